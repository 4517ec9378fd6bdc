"""Steps whose loss or gradient is not finite, and steps whose loss jumps. Used on every rank; rank 0 writes."""

import math
from collections import deque
from pathlib import Path
from typing import Any, NoReturn

from megatron_agent.errors import UserError
from megatron_agent.files import read_json_lines_tolerating_cut_tail

SKIPPED_STEPS = "skipped_steps.jsonl"
RECENT_STEPS = 50
FEWEST_STEPS = 10
"""Steps needed before a mean says anything about a spike."""


def skipped_record(record: dict[str, Any], first_row: int, num_rows: int, rows_not_finite: list[int]) -> dict[str, Any]:
    """Return the line of a skipped step from the line an applied one would have."""
    rows = [first_row, first_row + num_rows - 1]
    return record | {"skipped": True, "rows": rows, "rows_not_finite": rows_not_finite}


def describe_skipped(record: dict[str, Any]) -> str:
    """Return the console line of a skipped step."""
    what = "loss" if record["loss"] is None else "gradient norm"
    suspects = record["rows_not_finite"]
    return (
        f"step {record['step']} skipped on all ranks: its {what} is not finite; rows {record['rows'][0]} to "
        f"{record['rows'][1]}" + (f", the loss is not finite in rows {suspects}" if suspects else "")
    )


class SkippedSteps:
    """Counts skipped steps that follow one another."""

    def __init__(self, output_dir: Path, limit: int) -> None:
        self.path = output_dir / SKIPPED_STEPS
        self.limit = limit
        self.in_a_row = 0

    def finished(self) -> None:
        """A step was not skipped."""
        self.in_a_row = 0

    def skipped(self) -> None:
        """A step was skipped."""
        self.in_a_row += 1

    def exceeded(self) -> bool:
        """True when as many steps in a row were skipped as end a run."""
        return self.in_a_row >= self.limit

    def stop(self) -> NoReturn:
        """Raise the :class:`UserError` that ends the run."""
        raise UserError(
            f"{self.in_a_row} steps in a row had a loss or gradient norm that is not finite and were skipped "
            f"(--reliability.max_skipped_steps {self.limit}): {self.path} names their rows. Start again from "
            "an earlier checkpoint with a lower --optimizer.lr, or look at the rows with data_prep.inspect_dataset"
        )


class SpikeDetector:
    """The mean loss of the last 50 steps, and whether a new one is far above it."""

    def __init__(self, factor: float, losses: list[float]) -> None:
        self.factor = factor
        self.recent: deque[float] = deque(losses, maxlen=RECENT_STEPS)

    def warning(self, step: int, loss: float, first_row: int, num_rows: int) -> str | None:
        """Take in the loss of `step`; return a warning when it is a spike."""
        mean = sum(self.recent) / len(self.recent) if self.recent else math.inf
        spike = self.factor and len(self.recent) >= FEWEST_STEPS and loss > self.factor * mean
        self.recent.append(loss)
        if not spike:
            return None
        return (
            f"warning: loss {loss:.4f} of step {step} is more than {self.factor:g} times the mean {mean:.4f} of the "
            f"{min(RECENT_STEPS, len(self.recent) - 1)} steps before; rows {first_row} to {first_row + num_rows - 1}"
        )


def recent_losses(metrics: Path) -> list[float]:
    """Return the losses of the last steps in metrics.jsonl, so that a resumed run goes on where it stood."""
    records = read_json_lines_tolerating_cut_tail(metrics)[-RECENT_STEPS:]
    return [record["loss"] for record in records if "skipped" not in record]
