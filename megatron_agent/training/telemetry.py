"""What a run tells: metrics.jsonl and validation.jsonl, TensorBoard, W&B, a progress line. Used on one rank only."""

import math
import os
import sys
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from megatron_agent.files import append_json_line, read_json_lines_tolerating_cut_tail, write_json_lines
from megatron_agent.training.config import TrainConfig, config_to_dict
from megatron_agent.training.tensorboard_run import TensorboardRun
from megatron_agent.training.timers import BETWEEN_PARTS
from megatron_agent.training.wandb_run import WandbRun

CURVE_GROUPS = {"source_loss": "train_loss", "time": "time", "memory": "memory"}
"""Where the values of a field that holds several go in TensorBoard and W&B; all other fields go under `train/`."""


def drop_lines_after(path: Path, step: int) -> None:
    """Remove the records of steps after `step` (and a line a kill cut short), which a resumed run writes again."""
    if path.exists():
        records = read_json_lines_tolerating_cut_tail(path)
        write_json_lines(path, (record for record in records if record["step"] <= step))


class Telemetry:
    """Writers and progress bar of a run, continued from `start_step`.

    The files can be read while the run goes on: a line of JSON is written at once, TensorBoard's every 10 seconds.
    """

    def __init__(self, config: TrainConfig, start_step: int) -> None:
        settings, self.train_iters = config.telemetry, config.training.train_iters
        output_dir = Path(config.training.output_dir)
        output_dir.mkdir(parents=True, exist_ok=True)
        self.metrics_path = output_dir / "metrics.jsonl"
        self.validation_path = output_dir / "validation.jsonl"
        for path in (self.metrics_path, self.validation_path):
            drop_lines_after(path, start_step if start_step else -1)  # a fresh start measures step 0 again
        self.reporters: list[TensorboardRun | WandbRun] = []
        if settings.tensorboard:
            self.reporters.append(TensorboardRun(output_dir / "tensorboard", start_step))
        if settings.wandb_project is not None:
            self.reporters.append(WandbRun(settings, output_dir, config_to_dict(config)))
        self.log_interval = settings.log_interval
        self.recent: deque[float] = deque(maxlen=20)  # seconds of the last steps, for the time left
        # In a log file a bar is noise: print lines there.
        self.bar = tqdm(
            total=self.train_iters,
            initial=start_step,
            unit="step",
            disable=not sys.stderr.isatty(),
            dynamic_ncols=True,
        )

    def log_step(self, record: dict[str, Any]) -> None:
        """Record one optimizer step; `record` holds the fields of metrics.jsonl."""
        append_json_line(self.metrics_path, record)
        step = record["step"]
        self._log_curves(step, curves(record))
        self.recent.append(record["seconds"] + sum(record["time"][part] for part in BETWEEN_PARTS))
        if not self.bar.disable:
            self.bar.set_postfix_str(short_line(record), refresh=False)
            self.bar.update(1)
        elif step % self.log_interval == 0 or step == self.train_iters:
            left = (self.train_iters - step) * sum(self.recent) / len(self.recent)
            print(f"step {step}/{self.train_iters} | {long_line(record)} | {_duration(left)} left", flush=True)

    def log_validation(self, step: int, losses: dict[str, Any]) -> None:
        """Record losses per source on the held-out conversations."""
        append_json_line(self.validation_path, {"step": step, "loss": losses})
        self._log_curves(step, {f"validation_loss/{source}": value for source, value in losses.items()})
        self.message(
            f"step {step} held-out loss: " + ", ".join(f"{name} {value:.4f}" for name, value in losses.items())
        )

    def message(self, text: str) -> None:
        """Print a line without tearing the progress bar."""
        self.bar.write(text, file=sys.stdout)
        sys.stdout.flush()

    def close(self) -> None:
        """Flush and close the writers."""
        self.bar.close()
        for reporter in self.reporters:
            reporter.close()

    def _log_curves(self, step: int, values: dict[str, float]) -> None:
        for reporter in self.reporters:
            reporter.log(step, values)


def curves(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a line of metrics.jsonl by curve name; what is null has no point."""
    values: dict[str, float] = {}
    for field, value in record.items():
        if field in CURVE_GROUPS:
            values |= {f"{CURVE_GROUPS[field]}/{name}": number for name, number in value.items() if number is not None}
        elif field != "step" and value is not None:
            values[f"train/{field}"] = value
    return values


def short_line(record: Mapping[str, Any]) -> str:
    """Return what stands beside the progress bar."""
    return f"loss {_number(record['loss'], '.4f')}, {record['tokens_per_second']:,.0f} tokens/s"


def long_line(record: Mapping[str, Any]) -> str:
    """Return the console line of a step, without its number."""
    mfu = "" if record["mfu"] is None else f" (MFU {record['mfu']:.1%})"
    fullest = max(record["memory"].values()) / 2**30
    return " | ".join(
        [
            f"loss {_number(record['loss'], '.4f')}",
            f"grad norm {_number(record['grad_norm'], '.3f')}",
            f"lr {record['lr']:.3e}",
            f"{record['tokens_per_second']:,.0f} tokens/s",
            f"{record['tflops_per_gpu']:.3g} TFLOP/s/GPU{mfu}",
            f"{fullest:.1f} GiB",
        ]
    )


def print_derived(pairs: list[tuple[str, str]]) -> None:
    """Print every number the configuration implies, aligned, before the first step."""
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        print(f"  {name:<{width}}  {value}")
    sys.stdout.flush()


def is_main_rank() -> bool:
    """True on the rank that prints and writes."""
    return int(os.environ.get("RANK", "0")) == 0


def _number(value: float | None, form: str) -> str:
    return format(math.nan if value is None else value, form)


def _duration(seconds: float) -> str:
    minutes, second = divmod(int(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02d}:{second:02d}"
