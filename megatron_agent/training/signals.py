"""Stopping a run from outside: signals, a time budget, and the status that asks to be started again."""

import signal
import time
from types import FrameType

import torch

EXIT_REQUEUE = 85
"""Exit status of a run that was told to stop, wrote a checkpoint and has steps left: start the same command again."""

TIME_BUDGET = 1000
"""The reason to stop when the time is up; other reasons are signal numbers, 0 is none."""

_received: list[int] = []


def catch_stop_signals() -> None:
    """From now on SIGTERM and SIGUSR1 are noted instead of ending the process; more of them change nothing."""
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, _note)


def _note(number: int, frame: FrameType | None) -> None:
    _received.append(number)


class StopClock:
    """Whether this rank has a reason to stop: a signal, or on rank 0 the end of the time budget.

    Rank 0's clock decides for all, so that ranks need not agree on the time.
    """

    def __init__(self, exit_duration_in_mins: float | None, rank: int) -> None:
        self.deadline = None
        if exit_duration_in_mins is not None and rank == 0:
            self.deadline = time.monotonic() + 60 * exit_duration_in_mins

    def reason(self) -> int:
        """Return 0, a signal number or `TIME_BUDGET`."""
        if _received:
            return _received[0]
        return TIME_BUDGET if self.deadline is not None and time.monotonic() >= self.deadline else 0


def describe_reason(reason: int) -> str:
    """Return a reason to stop in words."""
    return "the time budget is spent" if reason == TIME_BUDGET else f"{signal.Signals(reason).name} received"


def agree(flags: torch.Tensor) -> torch.Tensor:
    """Return the elementwise largest of all ranks' `flags`, an integer tensor `[n]`, changed in place. Collective."""
    torch.distributed.all_reduce(flags, op=torch.distributed.ReduceOp.MAX)
    return flags
