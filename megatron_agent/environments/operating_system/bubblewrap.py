"""The default sandbox: bubblewrap over an overlay of the host's programs or of a root file system."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from megatron_agent.environments.base import EnvironmentFault
from megatron_agent.environments.operating_system import launcher
from megatron_agent.environments.operating_system.bubblewrap_sandbox import BubblewrapSandbox
from megatron_agent.environments.operating_system.channel import Channel
from megatron_agent.environments.operating_system.host_resources import has_unused_ids, temporary_folder
from megatron_agent.environments.operating_system.host_view import Layer, make_host_view
from megatron_agent.environments.operating_system.request import Request, make_request
from megatron_agent.environments.operating_system.sandbox import Limits, SandboxLost
from megatron_agent.environments.operating_system.seccomp import filter_program
from megatron_agent.environments.operating_system.task import Script
from megatron_agent.errors import UserError

LAUNCHER = Path(launcher.__file__).parent
SPARES = 2
"""Sandboxes that are started before they are asked for, so that an episode need not wait for the kernel."""


class BubblewrapProvider:
    """Starts sandboxes through one launcher process; safe to call from several threads."""

    def __init__(self, socket_: socket.socket, process: int, request: Request, limits: Limits, filter_: bytes) -> None:
        self._socket = socket_
        self.process = process
        self._message = json.dumps(asdict(request)).encode()
        self._limits = limits
        self._filter = filter_
        self._lock = threading.Lock()
        self._spares: deque[BubblewrapSandbox] = deque()

    def start(self, image: str) -> BubblewrapSandbox:
        """Start a sandbox, or take a spare one. There is one root file system: every `image` is it."""
        with self._lock:
            sandbox = self._spares.popleft() if self._spares else self._ask()
            while len(self._spares) < SPARES:
                self._spares.append(self._ask())
        sandbox.await_start(self.process)
        return sandbox

    def close(self) -> None:
        """End the spare sandboxes."""
        with self._lock:
            while self._spares:
                self._spares.pop().close()

    def _ask(self) -> BubblewrapSandbox:
        with contextlib.ExitStack() as open_files:
            control, control_ends = _open_channel(self._limits)
            shell, shell_ends = _open_channel(self._limits)
            filter_reader, filter_writer = os.pipe()
            information, information_writer = os.pipe()
            theirs = [*control_ends, *shell_ends, filter_reader, information_writer]
            for descriptor in theirs:
                open_files.callback(os.close, descriptor)
            os.write(filter_writer, self._filter)
            os.close(filter_writer)
            sandbox = BubblewrapSandbox(control, shell, information, self._limits)
            try:
                socket.send_fds(self._socket, [self._message], theirs)
            except OSError as error:
                sandbox.close()
                raise EnvironmentFault(f"the launcher of the sandboxes is gone: {error}") from error
        return sandbox


def _open_channel(limits: Limits) -> tuple[Channel, list[int]]:
    """Return a channel and the descriptors that go to the other side: commands, output, status."""
    commands_reader, commands = os.pipe()
    # opened anew, as a copy would share the shell's reading mode
    unread = os.open(f"/proc/self/fd/{commands_reader}", os.O_RDONLY | os.O_NONBLOCK)
    output, output_writer = os.pipe()
    status, status_writer = os.pipe()
    theirs = [commands_reader, output_writer, status_writer]
    return Channel(unread, commands, output, status, limits), theirs


@contextlib.contextmanager
def open_bubblewrap(rootfs: Path | None, limits: Limits) -> Iterator[BubblewrapProvider]:
    """Give a provider of sandboxes over the host's programs, or over `rootfs`; everything ends with the context.

    Raises UserError when bubblewrap is absent, when an ordinary user may not have namespaces, and when a first
    sandbox does not start.
    """
    program = shutil.which("bwrap")
    if program is None:
        raise UserError(
            "the operating-system task runs commands in bubblewrap, and there is no program bwrap here; install it "
            "(Debian, Ubuntu: apt-get install bubblewrap) or use --operating-system-sandbox docker"
        )
    own_user = os.geteuid() != 0 or not has_unused_ids()
    with temporary_folder() as folder:
        for part in ("mount", "root"):
            (folder / part).mkdir(mode=0o755)
        layers = _rootfs_layers(rootfs) if rootfs is not None else make_host_view(folder / "root")
        request = make_request(program, folder, layers, own_user, limits)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-S", "-E", "-m", LAUNCHER.name, str(folder)]
        with (
            ours,
            subprocess.Popen(command, stdin=theirs.fileno(), cwd=LAUNCHER.parent, start_new_session=True) as process,
        ):
            theirs.close()
            provider = BubblewrapProvider(ours, process.pid, request, limits, filter_program())
            try:
                _try_sandbox(provider, own_user, rootfs)
                yield provider
            finally:
                provider.close()
                ours.close()
                process.wait()


def _rootfs_layers(rootfs: Path) -> list[Layer]:
    if not (rootfs / "bin").exists() or not (rootfs / "etc").is_dir():
        raise UserError(
            f"--operating-system-rootfs {rootfs}: expected a root file system there (bin, etc, usr, ...); make one "
            f"with `debootstrap --variant=minbase --include=python3-minimal,procps,findutils bookworm {rootfs}`"
        )
    if any(character in str(rootfs.resolve()) for character in ",:\\"):
        raise UserError(f"--operating-system-rootfs {rootfs}: no comma, colon or backslash may be in its path")
    return [Layer(str(rootfs.resolve()), "")]


def _try_sandbox(provider: BubblewrapProvider, own_user: bool, rootfs: Path | None) -> None:
    try:
        sandbox = provider.start("default")
        try:
            execution = sandbox.run(Script("bash", "command -v python3"))
        finally:
            sandbox.close()
    except (EnvironmentFault, SandboxLost) as error:
        mend = (
            "an ordinary user needs user namespaces (sysctl kernel.unprivileged_userns_clone=1, "
            "kernel.apparmor_restrict_unprivileged_userns=0, user.max_user_namespaces above 0)"
            if own_user
            else "the superuser needs user namespaces (sysctl user.max_user_namespaces above 0), and in a container "
            "the right to mount and all of /proc (docker run --privileged)"
        )
        raise UserError(
            f"bubblewrap cannot make a sandbox here: {error}; {mend}; or use --operating-system-sandbox docker"
        ) from error
    if execution.exit_code != 0:
        where = f"--operating-system-rootfs {rootfs}" if rootfs else "the host's /usr/bin"
        raise UserError(f"{where}: expected python3 there, which AgentBench's check scripts are written in; install it")
