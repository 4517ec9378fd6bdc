"""One episode's bubblewrap sandbox, seen from the harness."""

import contextlib
import json
import os
import shlex
import signal
import time
from collections.abc import Sequence

from megatron_agent.environments.base import EnvironmentFault
from megatron_agent.environments.operating_system import launcher
from megatron_agent.environments.operating_system.channel import Channel, Outcome, readable
from megatron_agent.environments.operating_system.launcher.watch import process_tree
from megatron_agent.environments.operating_system.sandbox import Execution, Limits, SandboxLost, script_command
from megatron_agent.environments.operating_system.task import Script

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


class BubblewrapSandbox:
    """One episode's namespaces: a control process that runs scripts, and the model's shell."""

    def __init__(self, control: Channel, shell: Channel, information: int, limits: Limits) -> None:
        self._control, self._shell, self._information = control, shell, information
        self._limits = limits
        self._directory = "/"
        self._first, self._first_handle = -1, -1
        self._shell_process: int | None = None  # its handle
        self._shell_id = -1
        self._control.send_ahead(self._shell_line())  # the control reads it when it is there

    def await_start(self, launcher_process: int) -> None:
        """Wait until the sandbox that the launcher was asked for has its shell. Raises EnvironmentFault."""
        self._first = self._read_first()
        try:
            self._first_handle = _open_handle(self._first, launcher_process)
            self._take_shell(self._control.wait(self._limits.script_seconds, (self._first_handle,)))
        except ProcessLookupError as error:
            self.close()
            raise EnvironmentFault("a sandbox ended before it was used") from error

    def execute(self, command: str) -> Execution:
        self._refuse_closed()
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
        elif outcome.exit_code is None:  # the command ended its shell, or all: then no other starts
            self._end_shell()
            self._start_shell()
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
        if self._information < 0:
            return
        if self._first_handle >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._first_handle, signal.SIGKILL)
        # a sandbox that nobody waited for ends with its control, at the end of the control's commands
        for descriptor in (self._first_handle, self._information, self._shell_process):
            if descriptor is not None and descriptor >= 0:
                os.close(descriptor)
        self._first_handle, self._information, self._shell_process = -1, -1, None
        self._control.close()
        self._shell.close()

    def _run_control(self, line: str, seconds: float) -> Execution:
        self._refuse_closed()
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

    def _read_first(self) -> int:
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
        self.close()
        raise EnvironmentFault(f"the sandbox did not start: {reason}")

    def _shell_line(self) -> str:
        """Return the control's line that starts the model's shell and tells its process id."""
        return (
            f"cd {shlex.quote(self._directory)} 2>/dev/null || cd /; "
            f"bash --noprofile --norc -c {shlex.quote(_SHELL)} bash </dev/null >&{launcher.SHELL_OUTPUT} 2>&1 "
            f"{launcher.SHELL_OUTPUT}>&- {launcher.CONTROL_STATUS}>&- & echo $!; disown; cd /"
        )

    def _start_shell(self) -> None:
        self._take_shell(self._control.call(self._shell_line(), self._limits.script_seconds, (self._first_handle,)))

    def _take_shell(self, outcome: Outcome | None) -> None:
        """Open a handle of the shell whose process id inside is what the control printed."""
        answer = outcome.output.split() if outcome is not None else []
        process = self._host_process(int(answer[-1])) if answer and answer[-1].isdigit() else None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._shell_process, self._shell_id = os.pidfd_open(process), process

    def _host_process(self, number: int) -> int | None:
        """Return the host's id of the process that has `number` inside."""
        for process in process_tree(self._first):
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
        """Kill what began since (seconds since boot); several times, as what forks may escape a single look.

        Not the shell, which may have begun within the same tick of the clock.
        """
        ticks = os.sysconf("SC_CLK_TCK")
        for _ in range(20):
            young = [p for p in process_tree(self._first) if p != self._shell_id and _started(p) >= int(since * ticks)]
            if not young:
                return
            for process in young:
                with contextlib.suppress(OSError):
                    handle = os.pidfd_open(process)
                    # an id may pass to another process between the look and now: the handle is looked at again
                    if process in process_tree(self._first):
                        signal.pidfd_send_signal(handle, signal.SIGKILL)
                    os.close(handle)
            time.sleep(0.01)
        self.close()
        raise SandboxLost("its processes could not be ended")

    def _refuse_closed(self) -> None:
        if self._first_handle < 0:
            raise SandboxLost("it is closed")

    def _gone(self) -> bool:
        return self._first_handle < 0 or readable(self._first_handle, 0)

    def _lost(self) -> SandboxLost:
        reason = b""
        if self._first_handle >= 0:
            with contextlib.suppress(BlockingIOError):
                reason = os.read(self._information, 4096)
        return SandboxLost(reason.decode() or "its first process ended")


def _open_handle(first: int, launcher_process: int) -> int:
    """Return a handle of a sandbox's first process. Raises ProcessLookupError when it is gone.

    Its id may have passed to a stranger since bubblewrap told it: so the handle is opened, then the process is looked
    at (its parent is bubblewrap, whose parent is the launcher), then the handle whether it was still the same.
    """
    handle = os.pidfd_open(first)
    if _parent(_parent(first)) != launcher_process or readable(handle, 0):
        os.close(handle)
        raise ProcessLookupError
    return handle


def _parent(process: int) -> int:
    return int(_facts(process)[1])


def _facts(process: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the third on (proc(5)). Raises ProcessLookupError."""
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()
    except FileNotFoundError as error:
        raise ProcessLookupError from error


def _started(process: int) -> int:
    """Return when a process began, in clock ticks since boot; -1 when it is gone or a zombie."""
    try:
        facts = _facts(process)
    except ProcessLookupError:
        return -1
    return -1 if facts[0] in "ZX" else int(facts[19])
