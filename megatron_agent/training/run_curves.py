"""What metrics.jsonl and validation.jsonl of a run hold, as arrays over its steps. No torch import."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from megatron_agent.errors import UserError
from megatron_agent.files import read_json_lines_tolerating_cut_tail

FloatArray = npt.NDArray[np.float64]
TIME_PARTS = ("data", "forward_backward", "reduce", "optimizer", "other", "checkpoint", "evaluation", "logging")
BETWEEN_STEPS = TIME_PARTS[5:]
"""Parts of the time that passed before a step, not in its `seconds`."""


@dataclass(frozen=True)
class RunCurves:
    """One run: the last record of every step, in the order of steps."""

    folder: Path
    records: list[dict[str, Any]]
    held_out: dict[str, dict[int, float]]
    """Loss by step, by source."""

    @property
    def sources(self) -> list[str]:
        """Names of the data sources, in the order in which they appear."""
        found = {name: None for record in self.records for name in record.get("source_loss", {})}
        return list(found | dict.fromkeys(self.held_out))

    def values(self, *path: str) -> FloatArray:
        """Return a field `[steps]` by its path, such as `("time", "data")`; NaN where it is null or missing."""

        def number(record: Any) -> float:
            for key in path:
                record = record.get(key) if isinstance(record, dict) else None
            return math.nan if record is None else float(record)

        return np.array([number(record) for record in self.records])

    def axis(self, name: str) -> FloatArray:
        """Return the x axis `[steps]`: "step", "tokens" so far, or "hours" so far with all that passed in between."""
        steps = self.values("step")
        if name == "step":
            return steps
        if name == "tokens":
            return steps * np.nanmax(self.values("tokens"))  # every step has as many
        parts = [("seconds",), *(("time", part) for part in BETWEEN_STEPS)]
        return np.cumsum(sum(np.nan_to_num(self.values(*part)) for part in parts)) / 3600

    def skipped(self) -> npt.NDArray[np.bool_]:
        """Return which steps `[steps]` were skipped: their loss or gradient norm was not finite."""
        return np.isnan(self.values("loss")) | np.isnan(self.values("grad_norm"))

    def held_out_curve(self, source: str, axis: str) -> tuple[FloatArray, FloatArray]:
        """Return `(x, loss)` of a source on its held-out conversations; x is where the step of the evaluation ends."""
        losses = self.held_out.get(source, {})
        steps = np.array(sorted(losses), dtype=np.float64)
        x = np.interp(steps, np.append(0, self.values("step")), np.append(0, self.axis(axis)))
        return x, np.array([losses[int(step)] for step in steps])

    def best_held_out(self) -> tuple[float, int] | None:
        """Return the lowest mean over the sources and its step, of evaluations that measured all sources."""
        steps = set.intersection(*(set(losses) for losses in self.held_out.values())) if self.held_out else set()
        means = {step: float(np.mean([losses[step] for losses in self.held_out.values()])) for step in steps}
        known = [(mean, step) for step, mean in means.items() if math.isfinite(mean)]
        return min(known) if known else None

    def time_shares(self) -> dict[str, float]:
        """Return the share of each part in the time of the run, by part."""
        totals = {part: float(np.nansum(self.values("time", part))) for part in TIME_PARTS}
        whole = sum(totals.values())
        return {part: total / whole for part, total in totals.items()} if whole else {}

    def mean_rate(self, field: str) -> float:
        """Return the mean of a rate weighted by time; the first step, which also warms up, counts only if alone."""
        start = 1 if len(self.records) > 1 else 0
        seconds, rate = self.values("seconds")[start:], self.values(field)[start:]
        known = ~np.isnan(rate)
        return float((rate * seconds)[known].sum() / seconds[known].sum()) if known.any() else math.nan


def read_run(folder: str | Path) -> RunCurves:
    """Read the files of a run; :class:`UserError` when `folder` is not the output_dir of a run with a finished step.

    A step that was done again after a resume is taken as it was done last; a line being written is left out.
    """
    folder = Path(folder)
    metrics = folder / "metrics.jsonl"
    if not metrics.is_file():
        raise UserError(
            f"{folder}: expected the output_dir of a training run, found no metrics.jsonl there; give the folder "
            "named by --training.output_dir"
        )
    records = {}
    for number, record in enumerate(read_json_lines_tolerating_cut_tail(metrics), start=1):
        if not isinstance(record.get("step"), int) or "loss" not in record:
            raise UserError(
                f"{metrics}:{number}: expected a line of megatron_agent.train with step and loss, "
                f"got {', '.join(record) or 'nothing'}; give the folder named by --training.output_dir"
            )
        if not all(isinstance(record.get(name), int | float | None) for name in ("loss", "world_size", "tokens")):
            raise UserError(
                f"{metrics}:{number}: expected numbers for loss, world_size and tokens; mend or remove the line"
            )
        records[record["step"]] = record
    if not records:
        raise UserError(f"{metrics}: no step is finished yet; come back when the first one is")
    held_out: dict[str, dict[int, float]] = {}
    validation = folder / "validation.jsonl"
    for number, record in enumerate(read_json_lines_tolerating_cut_tail(validation), start=1):
        step, losses = record.get("step"), record.get("loss")
        if not isinstance(step, int) or not isinstance(losses, dict):
            raise UserError(
                f"{validation}:{number}: expected a line of megatron_agent.train with step and loss by source, "
                f"got {', '.join(record) or 'nothing'}; mend or remove the line"
            )
        for source, loss in losses.items():
            if not isinstance(loss, int | float):
                raise UserError(f"{validation}:{number}: expected a number for {source}, got {loss!r}; mend the line")
            held_out.setdefault(source, {})[step] = loss
    return RunCurves(folder, [records[step] for step in sorted(records)], held_out)


def moving_mean(values: FloatArray, width: int) -> FloatArray:
    """Return the mean of the `width` values around each, fewer at the ends; NaN counts for nothing."""
    known = ~np.isnan(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(known)])
    centre = np.arange(len(values))
    low, high = np.maximum(centre - (width - 1) // 2, 0), np.minimum(centre + width // 2 + 1, len(values))
    count = counts[high] - counts[low]
    return np.where(count > 0, (sums[high] - sums[low]) / np.maximum(count, 1), np.nan)


def summary_table(runs: Mapping[str, RunCurves]) -> str:
    """Return a line of figures about each run, under a head."""
    head = ("run", "step", "loss", "held-out (step)", "tokens/s", "trained/s", "TFLOP/s/GPU", "MFU", "hours")
    table = [head]
    for name, run in runs.items():
        best = run.best_held_out()
        mfu = run.mean_rate("mfu")
        table.append(
            (
                name,
                str(run.records[-1]["step"]),
                _number(run.values("loss")[-1], ".4f"),
                f"{best[0]:.4f} ({best[1]})" if best else "-",
                _number(run.mean_rate("tokens_per_second"), ",.0f"),
                _number(run.mean_rate("trained_tokens_per_second"), ",.0f"),
                _number(run.mean_rate("tflops_per_gpu"), ".3g"),
                _number(mfu, ".1%"),
                f"{run.axis('hours')[-1]:.2f}",
            )
        )
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    lines = []
    for first, *others in table:
        cells = [f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([f"{first:<{widths[0]}}", *cells]))
    return "\n".join(lines)


def _number(value: float, form: str) -> str:
    return "-" if math.isnan(value) else format(value, form)
