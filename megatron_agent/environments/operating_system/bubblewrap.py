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
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from megatron_agent.environments.base import EnvironmentFault
from megatron_agent.environments.operating_system import launcher
from megatron_agent.environments.operating_system.channel import Channel, readable
from megatron_agent.environments.operating_system.host_view import HOSTNAME, Layer, make_host_view
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
_READ_ONLY = "acpi asound driver dynamic_debug fs mtrr pressure scsi sys sysrq-trigger"
"""Parts of /proc that change the whole kernel. bubblewrap itself sees to irq and bus, but leaves sys to the superuser.

What only shows the kernel (kcore, kmsg, kallsyms) asks for capabilities that the sandbox lacks.
"""
MAX_FILES = 50_000
MAX_OPEN_FILES = 256
_CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SYS_CHROOT", "AUDIT_WRITE")
"""What administering a machine's files, users and processes takes; those of Docker that need no device or network."""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# The first process of the namespace: it cannot be killed from inside. It runs the harness's own lines.
_CONTROL = f"""
while IFS= read -r -d '' agentlm_line; do
  eval "$agentlm_line"
  printf '%d /\\0' "$?" >&{launcher.CONTROL_STATUS}
done"""

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


@dataclass(frozen=True)
class _Request:
    """What the launcher is told; see launcher.py."""

    command: list[str]
    own_user: bool
    mount_point: str
    layers: list[tuple[str, str, list[str]]]
    disk_mib: int
    files: int
    memory_mib: int
    processes: int
    rlimits: dict[str, int]
    groups: str


class BubblewrapProvider:
    """Starts sandboxes through one launcher process; safe to call from several threads."""

    def __init__(self, socket_: socket.socket, request: _Request, limits: Limits, filter_: bytes) -> None:
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
    own_user = os.geteuid() != 0
    with tempfile.TemporaryDirectory(prefix="agentlm-os-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "mount").mkdir()
        (folder / "root").mkdir(mode=0o755)
        layers = _rootfs_layers(rootfs) if rootfs is not None else make_host_view(folder / "root", own_user)
        request = _request(program, folder / "mount", layers, own_user, limits)
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


def _request(program: str, point: Path, layers: Sequence[Layer], own_user: bool, limits: Limits) -> _Request:
    capabilities = [word for name in _CAPABILITIES for word in ("--cap-add", f"CAP_{name}")]
    command = [
        *(program, "--bind", f"{point}/root", "/", "--proc", "/proc", *_kernel_interfaces(), "--dev", "/dev"),
        *("--size", str(limits.disk_mib * 1024 * 1024), "--tmpfs", "/dev/shm", "--remount-ro", "/dev"),
        *("--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
        *("--cap-drop", "ALL", *capabilities, "--seccomp", str(launcher.FILTER)),
        *("--info-fd", str(launcher.INFORMATION), "--die-with-parent", "--new-session", "--as-pid-1"),
        *("--hostname", HOSTNAME, "--chdir", "/", "--clearenv", "--setenv", "PATH", PATH, "--setenv", "HOME", "/root"),
        *("--setenv", "TERM", "dumb", "--setenv", "USER", "root", "--setenv", "SHELL", "/bin/bash"),
        *("bash", "--noprofile", "--norc", "-c", _CONTROL, "bash"),
    ]
    mib = 1024 * 1024
    rlimits = {
        "RLIMIT_DATA": limits.memory_mib * mib,
        "RLIMIT_FSIZE": limits.disk_mib * mib,
        "RLIMIT_NOFILE": MAX_OPEN_FILES,
        "RLIMIT_CORE": 0,
        "RLIMIT_MSGQUEUE": 0,
        "RLIMIT_MEMLOCK": 64 * 1024,
    }
    if own_user:  # counted within the sandbox's own user namespace
        rlimits["RLIMIT_NPROC"] = 2 * limits.processes
    return _Request(
        command,
        own_user,
        str(point),
        [(layer.lower, layer.where, list(layer.folders)) for layer in layers],
        limits.disk_mib,
        MAX_FILES,
        limits.memory_mib,
        limits.processes,
        rlimits,
        "" if own_user else _process_groups(),
    )


def _kernel_interfaces() -> list[str]:
    """Return the options that make the kernel's interfaces in /proc read-only."""
    paths = [f"/proc/{name}" for name in _READ_ONLY.split()]
    return [word for path in paths if os.path.exists(path) for word in ("--ro-bind", path, path)]


def _process_groups() -> str:
    """Return the folder in which control groups that limit processes can be made: our own group's.

    RLIMIT_NPROC does not hold the superuser, so without it nothing would stop a fork bomb but our watch, which a
    bomb can outrun. Raises UserError.
    """
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "pids"):
            continue
        folder = Path("/sys/fs/cgroup", controllers, path.lstrip("/"))
        for old in folder.glob(f"{launcher.GROUP_PREFIX}*"):  # of a launcher that was killed
            if not Path("/proc", old.name.removeprefix(launcher.GROUP_PREFIX).split("-")[0]).exists():
                launcher.remove_group(str(old))
        trial = folder / f"{launcher.GROUP_PREFIX}{os.getpid()}-trial-{threading.get_ident()}"
        try:
            trial.mkdir()
        except OSError:
            continue
        usable = (trial / "pids.max").exists()
        trial.rmdir()
        if usable:
            return str(folder)
    raise UserError(
        "as superuser the bubblewrap sandbox holds fork bombs with the control group pids, and none can be made here; "
        "run this as an ordinary user, mount the pids control group, or use --operating-system-sandbox docker"
    )


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
            else "in a container that takes the right to mount (docker run --privileged, or --cap-add SYS_ADMIN)"
        )
        raise UserError(
            f"bubblewrap cannot make a sandbox here: {error}; {mend}; or use --operating-system-sandbox docker"
        ) from error
    if execution.exit_code != 0:
        where = f"--operating-system-rootfs {rootfs}" if rootfs else "the host's /usr/bin"
        raise UserError(f"{where}: expected python3 there, which AgentBench's check scripts are written in; install it")
