"""What a run tells: metrics.jsonl and validation.jsonl, TensorBoard, a progress line. Used on one rank only."""

import os
import sys
from collections import deque
from pathlib import Path
from typing import Any

from tqdm import tqdm

from megatron_agent.files import append_json_line, read_json_lines_tolerating_cut_tail, write_json_lines


def drop_lines_after(path: Path, step: int) -> None:
    """Remove the records of steps after `step` (and a line a kill cut short), which a resumed run writes again."""
    if path.exists():
        records = read_json_lines_tolerating_cut_tail(path)
        write_json_lines(path, (record for record in records if record["step"] <= step))


class Telemetry:
    """Writers and progress bar of a run, continued from `start_step`."""

    def __init__(self, output_dir: Path, start_step: int, train_iters: int, log_interval: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.metrics_path = output_dir / "metrics.jsonl"
        self.validation_path = output_dir / "validation.jsonl"
        for path in (self.metrics_path, self.validation_path):
            drop_lines_after(path, start_step if start_step else -1)  # a fresh start measures step 0 again
        self.writer = SummaryWriter(str(output_dir / "tensorboard"), purge_step=start_step + 1 if start_step else 0)
        self.log_interval = log_interval
        self.train_iters = train_iters
        self.recent: deque[float] = deque(maxlen=20)  # seconds of the last steps, for the time left
        # In a log file a bar is noise: print lines there.
        self.bar = tqdm(
            total=train_iters,
            initial=start_step,
            unit="step",
            disable=not sys.stderr.isatty(),
            dynamic_ncols=True,
        )

    def log_step(self, record: dict[str, Any]) -> None:
        """Record one optimizer step; `record` holds the fields of metrics.jsonl."""
        append_json_line(self.metrics_path, record)
        step = record["step"]
        for name, value in record.items():
            if name != "step" and not isinstance(value, dict):
                self.writer.add_scalar(f"train/{name}", value, step)
        for source, value in record["source_loss"].items():
            self.writer.add_scalar(f"train_loss/{source}", value, step)
        self.recent.append(record["seconds"])
        self.bar.update(1)
        self.bar.set_postfix_str(f"loss {record['loss']:.4f}, {record['tokens_per_second']:.0f} tokens/s")
        if self.bar.disable and (step % self.log_interval == 0 or step == self.train_iters):
            left = (self.train_iters - step) * sum(self.recent) / len(self.recent)
            print(
                f"step {step}/{self.train_iters} | loss {record['loss']:.4f} | grad norm {record['grad_norm']:.3f} | "
                f"lr {record['lr']:.3e} | {record['tokens_per_second']:.0f} tokens/s | {_duration(left)} left",
                flush=True,
            )

    def log_validation(self, step: int, losses: dict[str, Any]) -> None:
        """Record losses per source on the held-out conversations."""
        append_json_line(self.validation_path, {"step": step, "loss": losses})
        for source, value in losses.items():
            self.writer.add_scalar(f"validation_loss/{source}", value, step)
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
        self.writer.close()


def print_derived(pairs: list[tuple[str, str]]) -> None:
    """Print every number the configuration implies, aligned, before the first step."""
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        print(f"  {name:<{width}}  {value}")
    sys.stdout.flush()


def is_main_rank() -> bool:
    """True on the rank that prints and writes."""
    return int(os.environ.get("RANK", "0")) == 0


def _duration(seconds: float) -> str:
    minutes, second = divmod(int(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02d}:{second:02d}"
