"""Weights & Biases as one more place to report to. Optional; rank 0 only."""

import importlib.util
import secrets
from pathlib import Path
from typing import Any

from megatron_agent.errors import UserError
from megatron_agent.files import atomic_write
from megatron_agent.training.sections import TelemetrySection

RUN_ID_FILE = "wandb_run_id.txt"


def check_wandb(settings: TelemetrySection) -> None:
    """Raise :class:`UserError` when W&B is asked for and its package is missing."""
    if settings.wandb_project is not None and importlib.util.find_spec("wandb") is None:
        raise UserError(
            f"--telemetry.wandb_project {settings.wandb_project} needs the package wandb, which is not installed: "
            "pip install wandb, or leave the flag out"
        )


class WandbRun:
    """A run at W&B that a resumed training goes on with.

    Its id is kept in `output_dir`. The x axis of every curve is `step`, not W&B's own counter, which refuses to go
    back: after a resume from an older checkpoint the repeated steps are drawn again instead of being dropped.
    """

    def __init__(self, settings: TelemetrySection, output_dir: Path, config: dict[str, Any]) -> None:
        import wandb

        try:
            self.run = wandb.init(
                project=settings.wandb_project,
                name=settings.wandb_exp_name or output_dir.resolve().name,
                id=_run_id(output_dir),
                resume="allow",
                dir=str(output_dir),
                config=config,
                # What is printed stays on the terminal; metrics.jsonl is the record.
                settings=wandb.Settings(console="off", silent=True),
            )
        except wandb.errors.Error as error:
            raise UserError(
                f"--telemetry.wandb_project {settings.wandb_project}: W&B refused the run ({error}); log in with "
                "`wandb login`, or set WANDB_MODE=offline and send the run later with `wandb sync`"
            ) from error
        self.run.define_metric("*", step_metric="step")

    def log(self, step: int, values: dict[str, float]) -> None:
        """Record `values` by curve name; handed to W&B's own process, which sends or stores them."""
        self.run.log({"step": step, **values})

    def close(self) -> None:
        """Send or store what is left and end the run."""
        self.run.finish()


def _run_id(output_dir: Path) -> str:
    """The id of this folder's run; made on the first call."""
    file = output_dir / RUN_ID_FILE
    if not file.exists():
        with atomic_write(file) as handle:
            handle.write(secrets.token_hex(8) + "\n")
    return file.read_text(encoding="utf-8").strip()
