"""A hard end for steps that may hang in a library: a thread that ends this process when the time is up."""

import faulthandler
import os
import sys
import threading
import time

EXIT_CUT_OFF = 1
LAST_RESORT_SECONDS = 30.0


class HardLimit:
    """Ends the process with status 1 and one line on stderr when armed for longer than allowed.

    Should a hang keep the interpreter's lock, so that this thread cannot run, faulthandler's timer, which needs none,
    ends the process half a minute later.
    """

    def __init__(self, who: str) -> None:
        self.who = who
        self._end: tuple[float, str] | None = None
        threading.Thread(target=self._watch, name="limit", daemon=True).start()

    def arm(self, seconds: float, text: str) -> None:
        """Allow `seconds` from now until the next call; `text` is what the line says after that."""
        self._end = (time.monotonic() + seconds, text)
        faulthandler.dump_traceback_later(seconds + LAST_RESORT_SECONDS, exit=True)

    def disarm(self) -> None:
        """Watch no longer."""
        self._end = None
        faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        while True:
            time.sleep(0.1)
            end = self._end
            if end is not None and time.monotonic() > end[0]:
                print(f"preflight: {self.who}: {end[1]}", file=sys.stderr, flush=True)
                os._exit(EXIT_CUT_OFF)
