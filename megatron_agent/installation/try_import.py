"""Import modules in a process of their own: a broken extension can end the process that imports it.

    python -m megatron_agent.installation.try_import MODULE [MODULE ...]

prints one line of JSON: null, or the first line of what went wrong.
"""

import importlib
import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

SECONDS = 180
"""A first import over a network file system can take minutes."""
NO_DRIVER = "libcuda.so"
"""The driver's own library: where it is missing there is no driver, and nothing is wrong with who imports it."""


@dataclass(frozen=True)
class ImportFailure:
    """Why modules cannot be imported."""

    reason: str

    @property
    def no_driver(self) -> bool:
        """True when only NVIDIA's driver is missing: whether the library works cannot be judged here."""
        return NO_DRIVER in self.reason


def try_import(modules: Sequence[str], python: str = sys.executable) -> ImportFailure | None:
    """Import `modules`, in order, in a child process; return the first failure, None when all can be imported."""
    command = [python, "-m", "megatron_agent.installation.try_import", *modules]
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return ImportFailure(f"importing {' '.join(modules)} did not end within {SECONDS} s")
    if process.returncode < 0:
        return ImportFailure(f"importing {' '.join(modules)} {how_it_ended(process)}")
    try:
        reason = json.loads(process.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        return ImportFailure(f"importing {' '.join(modules)} {how_it_ended(process)}")
    return None if reason is None else ImportFailure(reason)


def how_it_ended(process: "subprocess.CompletedProcess[str]") -> str:
    """Return `crashed (SIGSEGV)`, or the status and the last line of what it said."""
    if process.returncode < 0:
        return f"crashed ({signal_name(-process.returncode)})"
    last = (process.stderr.strip().splitlines() or ["no message"])[-1]
    return f"ended with status {process.returncode}: {last}"


def signal_name(number: int) -> str:
    """Return `SIGSEGV` for 11."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def first_line(error: BaseException) -> str:
    """Return the type of an error and the first line of its message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def main() -> None:
    """Run the command."""
    reason = None
    try:
        for module in sys.argv[1:]:
            importlib.import_module(module)
    except BaseException as error:  # a module may call sys.exit
        reason = first_line(error)
    print("\n" + json.dumps(reason), flush=True)


if __name__ == "__main__":
    main()
