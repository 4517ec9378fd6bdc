"""End a run whose ranks wait for something that never comes, and leave every stack behind."""

import contextlib
import faulthandler
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

EXIT_HANG = 86
"""Exit status of a rank that made no progress for `reliability.hang_timeout_in_mins`."""

LAST_WORDS_SECONDS = 20.0
"""A rank that has written its stacks waits this long (at most half the time limit) before it ends: the end of one
rank ends the others, which are about to write theirs."""

GROWTH_SECONDS = 1.0
"""Seconds between two looks at the size of files that are being written."""


class Watchdog:
    """A thread that ends this process when `beat` is not called for `timeout_minutes`; 0 watches nothing.

    A hang that keeps the interpreter's lock also keeps this thread from running; for that case faulthandler's own
    timer, which needs no lock, writes the stacks to stderr a minute later and ends the process with status 1.
    """

    def __init__(self, timeout_minutes: float, output_dir: Path, rank: int) -> None:
        self.timeout = 60 * timeout_minutes
        self.stacks = output_dir / "stacks" / f"rank_{rank}.txt"
        self.rank = rank
        self.last = (time.monotonic(), 0, "start")
        self._armed = -math.inf
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        if self.timeout:
            self._thread.start()

    def beat(self, step: int, phase: str) -> None:
        """Note progress: this rank begins `phase` of `step`."""
        now = time.monotonic()
        self.last = (now, step, phase)
        if self.timeout and now - self._armed > self.timeout / 10:  # arming starts a thread: not at every beat
            self._armed = now
            faulthandler.dump_traceback_later(1.1 * self.timeout + 60, exit=True, file=2)

    def stop(self) -> None:
        """Watch no longer."""
        self._stopped.set()
        faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        while True:
            last, step, phase = self.last
            remaining = last + self.timeout - time.monotonic()
            if remaining <= 0:
                break
            if self._stopped.wait(remaining):
                return
        try:
            self.stacks.parent.mkdir(parents=True, exist_ok=True)
            with open(self.stacks, "w") as handle:
                handle.write(f"rank {self.rank}, step {step}, {phase}: no progress for {self.timeout:g} s\n\n")
                handle.flush()
                faulthandler.dump_traceback(handle, all_threads=True)
            where = f"stacks in {self.stacks}"
        except OSError as error:
            where = f"its stacks could not be written ({error})"
        print(
            f"rank {self.rank} hangs: step {step}, {phase}, no progress for {self.timeout / 60:g} minutes; {where}",
            file=sys.stderr,
            flush=True,
        )
        time.sleep(min(LAST_WORDS_SECONDS, self.timeout / 2))
        os._exit(EXIT_HANG)


@contextlib.contextmanager
def beat_while_growing(folder: Path, beat: Callable[[], None]) -> Iterator[None]:
    """Call `beat` at the start, and again whenever the files of `folder` have grown, whoever writes them.

    A write that takes long is then told from one that stands still, on the ranks that wait for another's too.
    """
    done = threading.Event()

    def watch() -> None:
        size = _size(folder)
        while not done.wait(GROWTH_SECONDS):
            before, size = size, _size(folder)
            if size != before:
                beat()

    beat()
    thread = threading.Thread(target=watch, name="growth", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _size(folder: Path) -> int:
    size = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # it has just been removed
            size += path.stat().st_size
    return size
