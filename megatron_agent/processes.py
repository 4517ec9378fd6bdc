"""Child processes: work spread over them in order, and none left behind."""

import ctypes
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from multiprocessing import active_children, get_context
from typing import TypeVar

from megatron_agent.errors import UserError

PR_SET_PDEATHSIG = 1  # linux/prctl.h

Task = TypeVar("Task")
Result = TypeVar("Result")


def available_cores() -> int:
    """Number of processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_workers(workers: int) -> None:
    """Raise :class:`UserError` for a number of worker processes that cannot be meant."""
    if workers < 1:
        raise UserError(f"--workers {workers}: expected at least 1")


def die_with_parent(by: signal.Signals = signal.SIGTERM) -> None:
    """Ask Linux to end this (child) process when its parent ends, killed or not: no orphan keeps the processors."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, by)


def map_in_order(
    function: Callable[[Task], Result],
    tasks: Iterable[Task],
    workers: int,
    initializer: Callable[..., object] | None = None,
    initargs: tuple[object, ...] = (),
) -> Iterator[Result]:
    """Yield `function(task)` for every task, in order; with several `workers`, from that many processes.

    At most two tasks a worker are taken from `tasks` ahead of the results. `initializer(*initargs)` runs first in
    every worker. One worker, or a single task, is this process itself. Whatever ends the iteration early, an error
    of a task, Ctrl-C or the caller, ends the workers at once; they also end with this process. Raises
    :class:`UserError` when a worker was killed.
    """
    check_workers(workers)
    tasks = iter(tasks)
    first = list(islice(tasks, 2))
    tasks = chain(first, tasks)
    if workers == 1 or len(first) < 2:
        if initializer:
            initializer(*initargs)
        yield from map(function, tasks)
        return
    others = set(active_children())
    # spawned, not forked: a fork copies the locks of threads (progress bars, tokenizers) that it does not copy
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _start_worker, (os.getpid(), initializer, initargs))
    running: deque[Future[Result]] = deque()
    try:
        for task in tasks:
            running.append(pool.submit(_run_task, function, task))
            if len(running) == 2 * workers:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    except BaseException as error:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(active_children()) - others:
            process.terminate()
        if isinstance(error, BrokenProcessPool):
            raise UserError(
                "a worker process was killed, most likely for want of memory; give fewer --workers, and run this again"
            ) from error
        raise
    pool.shutdown()


_errors: list[UserError] = []  # of this worker's initializer


def _start_worker(parent: int, initializer: Callable[..., object] | None, initargs: tuple[object, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its workers
    die_with_parent()
    if os.getppid() != parent:  # it ended before we asked to end with it
        os._exit(1)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # a process a core is enough
    try:
        if initializer:
            initializer(*initargs)
    except UserError as error:  # raised here it would only be seen as a worker that died
        _errors.append(error)


def _run_task(function: Callable[[Task], Result], task: Task) -> Result:
    if _errors:
        raise _errors[0]
    return function(task)
