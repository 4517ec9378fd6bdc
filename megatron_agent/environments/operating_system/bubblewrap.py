"""The default sandbox: bubblewrap over an overlay of the host's programs or of a root file system."""

import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from megatron_agent.environments.base import EnvironmentFault
from megatron_agent.environments.operating_system import launcher
from megatron_agent.environments.operating_system.channel import Channel, readable
from megatron_agent.environments.operating_system.host_resources import has_unused_ids, temporary_folder
from megatron_agent.environments.operating_system.host_view import Layer, make_host_view
from megatron_agent.environments.operating_system.request import Request, make_request
from megatron_agent.environments.operating_system.sandbox import (
    Execution,
    Limits,
    SandboxLost,
    script_command,
)
from megatron_agent.environments.operating_system.seccomp import filter_program
from megatron_agent.environments.operating_system.task import Script
from megatron_agent.errors import UserError

START_SECONDS = 30.0
# The model's shell. Its commands see neither of its own pipes.
_SHELL = f"""
shopt -s expand_aliases
while IFS= builtin read -r -d '' -u {launcher.SHELL_COMMANDS} agentlm_command; do
  eval "$agentlm_command" </dev/null {launcher.SHELL_COMMANDS}<&- {launcher.SHELL_STATUS}>&-
  builtin printf '%d %s\\0' "$?" "$PWD" >&{launcher.SHELL_STATUS}
done"""

_WITHOUT_CONTROL = (
    f"{launcher.SHELL_COMMANDS}<&- {launcher.SHELL_OUTPUT}>&- {launcher.SHELL_STATUS}>&- "
    f"{launcher.CONTROL_STATUS}>&- </dev/null"
)


class BubblewrapProvider:
    """Starts sandboxes through one launcher process; safe to call from several threads."""

    def __init__(self, socket_: socket.socket, request: Request, limits: Limits, filter_: bytes) -> None:
        self._socket = socket_
        self._message = json.dumps(asdict(request)).encode()
        self._limits = limits
        self._filter = filter_
        self._lock = threading.Lock()

    def start(self, image: str) -> "BubblewrapSandbox":
        """Start a sandbox. There is one root file system: every `image` is it."""
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
            try:
                with self._lock:
                    socket.send_fds(self._socket, [self._message], theirs)
            except OSError as error:
                control.close()
                shell.close()
                os.close(information)
                raise EnvironmentFault(f"the launcher of the sandboxes is gone: {error}") from error
        return BubblewrapSandbox(control, shell, information, self._limits)


def _open_channel(limits: Limits) -> tuple[Channel, list[int]]:
    """Return a channel and the descriptors that go to the other side: commands, output, status."""
    commands_reader, commands = os.pipe()
    # opened anew, as a copy would share the shell's reading mode
    unread = os.open(f"/proc/self/fd/{commands_reader}", os.O_RDONLY | os.O_NONBLOCK)
    output, output_writer = os.pipe()
    status, status_writer = os.pipe()
    theirs = [commands_reader, output_writer, status_writer]
    return Channel(unread, commands, output, status, limits), theirs


class BubblewrapSandbox:
    """One episode's namespaces: a control process that runs scripts, and the model's shell."""

    def __init__(self, control: Channel, shell: Channel, information: int, limits: Limits) -> None:
        self._control, self._shell, self._information = control, shell, information
        self._limits = limits
        self._directory = "/"
        self._shell_process: int | None = None
        self._first = self._await_start()
        self._first_handle = os.pidfd_open(self._first)

    def execute(self, command: str) -> Execution:
        if self._shell_process is None:
            self._start_shell()
        started = time.clock_gettime(time.CLOCK_BOOTTIME)
        handle = self._shell_process
        if handle is None:
            raise self._lost()
        outcome = self._shell.call(command, self._limits.command_seconds, (handle, self._first_handle))
        if outcome.timed_out:
            # As Ctrl-C would: what the command started is ended; the shell goes on where that frees it.
            self._end_processes(started)
            after = self._shell.wait(0.3, (handle, self._first_handle))
            if after is None:
                self._end_shell()
            else:
                self._directory = after.directory
        elif outcome.exit_code is None:  # the command ended its shell
            self._end_shell()
        else:
            self._directory = outcome.directory
        if self._gone():
            raise self._lost()
        code = outcome.exit_code if outcome.exit_code is not None else -1
        return Execution(outcome.output, code, outcome.timed_out)

    def run(self, script: Script, arguments: Sequence[str] = ()) -> Execution:
        words = shlex.join(script_command(script, [argument.replace("\0", "") for argument in arguments]))
        return self._run_control(f"(cd /; exec {words} {_WITHOUT_CONTROL})", self._limits.script_seconds)

    def close(self) -> None:
        if self._first_handle < 0:
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._first_handle, signal.SIGKILL)
        for descriptor in (self._first_handle, self._information, self._shell_process):
            if descriptor is not None:
                os.close(descriptor)
        self._first_handle, self._shell_process = -1, None
        self._control.close()
        self._shell.close()

    def _run_control(self, line: str, seconds: float) -> Execution:
        if self._first_handle < 0:
            raise SandboxLost("it is closed")
        started = time.clock_gettime(time.CLOCK_BOOTTIME)
        outcome = self._control.call(line, seconds, (self._first_handle,))
        if outcome.timed_out:
            self._end_processes(started)
            if self._control.wait(1.0, (self._first_handle,)) is None:
                raise SandboxLost("it does not answer")
        if self._gone():
            raise self._lost()
        code = outcome.exit_code if outcome.exit_code is not None else -1
        return Execution(outcome.output, code, outcome.timed_out)

    def _await_start(self) -> int:
        """Return the host's id of the namespace's first process, which bubblewrap reports."""
        text = b""
        deadline = time.monotonic() + START_SECONDS
        os.set_blocking(self._information, False)
        while time.monotonic() < deadline:
            readable(self._information, deadline - time.monotonic())
            with contextlib.suppress(BlockingIOError):
                part = os.read(self._information, 4096)
                text += part
                if text.rstrip().endswith(b"}"):
                    return int(json.loads(text)["child-pid"])
                if not part:
                    break
        reason = self._control.read_output().strip() or f"no answer within {START_SECONDS:g} s"
        os.close(self._information)
        self._control.close()
        self._shell.close()
        raise EnvironmentFault(f"the sandbox did not start: {reason}")

    def _start_shell(self) -> None:
        line = (
            f"cd {shlex.quote(self._directory)} 2>/dev/null || cd /; "
            f"bash --noprofile --norc -c {shlex.quote(_SHELL)} bash </dev/null >&{launcher.SHELL_OUTPUT} 2>&1 "
            f"{launcher.SHELL_OUTPUT}>&- {launcher.CONTROL_STATUS}>&- & echo $!; disown; cd /"
        )
        answer = self._run_control(line, self._limits.script_seconds).output.split()
        process = self._host_process(int(answer[-1])) if answer and answer[-1].isdigit() else None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._shell_process = os.pidfd_open(process)

    def _host_process(self, number: int) -> int | None:
        """Return the host's id of the process that has `number` inside."""
        for process in launcher.process_tree(self._first):
            with contextlib.suppress(OSError), open(f"/proc/{process}/status") as file:
                inside = next((line.split()[-1] for line in file if line.startswith("NSpid:")), "")
                if inside == str(number):
                    return process
        return None

    def _end_shell(self) -> None:
        if self._shell_process is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._shell_process, signal.SIGKILL)
            os.close(self._shell_process)
            self._shell_process = None
        self._shell.drain()

    def _end_processes(self, since: float) -> None:
        """Kill what began since (seconds since boot); several times, as what forks may escape a single look."""
        ticks = os.sysconf("SC_CLK_TCK")
        for _ in range(20):
            young = [p for p in launcher.process_tree(self._first) if _started(p) >= int(since * ticks)]
            if not young:
                return
            for process in young:
                with contextlib.suppress(OSError):
                    handle = os.pidfd_open(process)
                    # an id may pass to another process between the look and now: the handle is looked at again
                    if process in launcher.process_tree(self._first):
                        signal.pidfd_send_signal(handle, signal.SIGKILL)
                    os.close(handle)
            time.sleep(0.01)
        self.close()
        raise SandboxLost("its processes could not be ended")

    def _gone(self) -> bool:
        return self._first_handle < 0 or readable(self._first_handle, 0)

    def _lost(self) -> SandboxLost:
        reason = b""
        if self._first_handle >= 0:
            with contextlib.suppress(BlockingIOError):
                reason = os.read(self._information, 4096)
        return SandboxLost(reason.decode() or "its first process ended")


def _started(process: int) -> int:
    """Return when a process began, in clock ticks since boot; -1 when it is gone or a zombie."""
    try:
        with open(f"/proc/{process}/stat") as file:
            fields = file.read().rpartition(")")[2].split()  # from the third of proc(5) on
            return -1 if fields[0] in "ZX" else int(fields[19])
    except OSError:
        return -1


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
        command = [sys.executable, "-S", "-E", launcher.__file__]
        with ours, subprocess.Popen(command, stdin=theirs.fileno(), cwd="/", start_new_session=True) as process:
            theirs.close()
            try:
                provider = BubblewrapProvider(ours, request, limits, filter_program())
                _try_sandbox(provider, own_user, rootfs)
                yield provider
            finally:
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
