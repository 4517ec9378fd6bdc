"""One function call in a forked child, beside the training that goes on."""

import ctypes
import gc
import os
import pickle
import signal
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import torch

from megatron_agent.processes import PR_SET_PDEATHSIG


class BackgroundCallError(Exception):
    """The call raised, or its process was killed; the text says which."""


class BackgroundCall:
    """`function()` in a forked child process, which sees memory as it is at this moment.

    Pages are shared until either side writes to them. The function must not use a GPU, a process group or more than
    one thread: the child has copies of their locks, not their threads. It ignores the signals that stop a run, and
    ends with its parent, killed or not.
    """

    def __init__(self, function: Callable[[], Any]) -> None:
        # A file: a pipe would block a child whose result is large.
        self._outcome = tempfile.TemporaryFile()  # noqa: SIM115
        self._status: int | None = None
        # Looked up before the fork: the loader's lock may be held by another thread.
        prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
                    signal.signal(number, signal.SIG_IGN)
                if prctl is not None:
                    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
                if os.getppid() == parent:
                    torch.set_num_threads(1)  # OpenMP would wait for threads that only the parent has
                    gc.disable()  # collecting the parent's GPU tensors here would be an error
                    _run(function, self._outcome)
            finally:
                os._exit(1)

    def running(self) -> bool:
        """True while the child lives."""
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._status = status
        return self._status is None

    def failed(self) -> bool:
        """True when the child has ended without a result."""
        return not self.running() and self._status != 0

    def result(self) -> Any:
        """Wait for the child and return what the function returned; raise :class:`BackgroundCallError` otherwise."""
        if self._status is None:
            _, self._status = os.waitpid(self.pid, 0)
        code = os.waitstatus_to_exitcode(self._status)
        if code < 0:
            raise BackgroundCallError(f"its process was killed by {signal.Signals(-code).name}")
        with self._outcome:
            self._outcome.seek(0)
            try:
                outcome = pickle.load(self._outcome)
            except Exception as error:  # a child that could not write it, on a full disk, leaves a part
                raise BackgroundCallError(f"what its process left could not be read ({describe(error)})") from error
        if code:
            raise BackgroundCallError(outcome)
        return outcome

    def kill(self) -> None:
        """End the child now."""
        if self._status is None:
            os.kill(self.pid, signal.SIGKILL)
            _, self._status = os.waitpid(self.pid, 0)


def describe(error: BaseException) -> str:
    """Return an error as one line."""
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _run(function: Callable[[], Any], outcome: Any) -> None:
    """Leave the result, or the text of the error, in the file `outcome`; never returns."""
    status = 0
    try:
        result = function()
    except BaseException as error:
        result, status = describe(error), 1
    pickle.dump(result, outcome)
    outcome.flush()
    os._exit(status)
