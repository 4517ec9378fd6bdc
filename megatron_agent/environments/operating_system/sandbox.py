"""What the environment needs of a sandbox, whichever program provides it."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from megatron_agent.environments.operating_system.task import Script

COMMANDS = {"bash": ("bash", "-c"), "python": ("python3", "-c")}
"""How a script of each language is run; AgentBench's files use these two."""


@dataclass(frozen=True)
class Limits:
    """What one episode may use. Memory and disk in MiB, times in seconds, output in bytes."""

    command_seconds: float = 5.0
    script_seconds: float = 30.0
    memory_mib: int = 512
    disk_mib: int = 256
    processes: int = 128
    kept_output_bytes: int = 65_536
    output_bytes: int = 64 * 1024 * 1024


@dataclass(frozen=True)
class Execution:
    """What came of one command: its output as text, its exit code, and whether it ran past its time."""

    output: str
    exit_code: int
    timed_out: bool = False


class SandboxLost(Exception):  # noqa: N818 - a state of the episode, not a fault of the program
    """The sandbox is gone: it went over a limit or destroyed itself. The message says which."""


class Sandbox(Protocol):
    """One episode's machine. Both methods raise :class:`SandboxLost` once it is gone."""

    def execute(self, command: str) -> Execution:
        """Run a command in the episode's shell, whose directory and variables last from call to call."""

    def run(self, script: Script, arguments: Sequence[str] = ()) -> Execution:
        """Run a script on its own, apart from the shell, in `/`."""

    def close(self) -> None:
        """End everything in it and release what it holds. Safe to call twice."""


class SandboxProvider(Protocol):
    """Makes sandboxes, from several threads at once."""

    def start(self, image: str) -> Sandbox:
        """Start one episode's sandbox from an image (`default`, `packages`, `ubuntu`).

        Raises EnvironmentFault when the machinery fails.
        """


OpenProvider = AbstractContextManager[SandboxProvider]


def script_command(script: Script, arguments: Sequence[str]) -> list[str]:
    """Return the words that run a script as AgentBench does: `$1` or `sys.argv[1]` is the first argument."""
    words = [*COMMANDS[script.language], script.code]
    if script.language == "bash" and arguments:
        words.append("--")
    return [*words, *arguments]
