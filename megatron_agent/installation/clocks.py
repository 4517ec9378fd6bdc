"""Is the clock of a node right, by rank 0's?

Rank 0 writes its time on the board twenty times a second. A node reads it as NTP does: its own time is taken before
and after, and the exchange that took least counts, because it says most exactly when rank 0's time was read.
"""

import threading
import time
from collections.abc import Callable

LIMIT_SECONDS = 5.0
"""Clocks further apart than this make logs, file times and time limits misleading."""
TICK_SECONDS = 0.05
EXCHANGES = 8


def now() -> float:
    """Return this machine's time in seconds since 1970."""
    return time.time()


def clock_offset(read_rank_0: Callable[[], float]) -> float:
    """Return by how many seconds this machine's clock is ahead of rank 0's; right to about `TICK_SECONDS`."""
    best: tuple[float, float] | None = None
    for _ in range(EXCHANGES):
        before = now()
        theirs = read_rank_0() + TICK_SECONDS / 2  # it was written up to a tick ago
        after = now()
        exchange = (after - before, (before + after) / 2 - theirs)
        best = exchange if best is None else min(best, exchange)
        time.sleep(TICK_SECONDS / 3)
    assert best is not None
    return best[1]


class ClockOfRank0:
    """A thread that calls `publish` with the time, again and again: it is rank 0's sign of life too."""

    def __init__(self, publish: Callable[[float], None]) -> None:
        self._publish, self._done = publish, threading.Event()
        self._thread = threading.Thread(target=self._run, name="clock", daemon=True)
        publish(now())
        self._thread.start()

    def stop(self) -> None:
        """Publish no more."""
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(TICK_SECONDS):
            self._publish(now())
