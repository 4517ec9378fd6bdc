"""TensorBoard's files, one event a step: torch's SummaryWriter writes one a curve, which costs fifteen times more."""

import time
from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

FLUSH_SECONDS = 10


class TensorboardRun:
    """Curves in a folder that TensorBoard reads, also while the run goes on.

    It is told to forget what an earlier start of the run wrote of steps after `start_step`: they are done again.
    """

    def __init__(self, folder: Path, start_step: int) -> None:
        self.writer = EventFileWriter(str(folder), flush_secs=FLUSH_SECONDS)
        first = start_step + 1 if start_step else 0  # a fresh start measures held-out losses at step 0
        self._add(Event(step=first, session_log=SessionLog(status=SessionLog.START)))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Record `values` by curve name."""
        points = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._add(Event(step=step, summary=Summary(value=points)))

    def close(self) -> None:
        """Write what is left."""
        self.writer.close()

    def _add(self, event: Event) -> None:
        event.wall_time = time.time()
        self.writer.add_event(event)
