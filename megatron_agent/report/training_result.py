"""What a training run came to, read from its output_dir."""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from megatron_agent.errors import UserError
from megatron_agent.files import read_json_lines_tolerating_cut_tail
from megatron_agent.model.checkpoint_folder import RUN_FILE, complete_checkpoints, read_run_file
from megatron_agent.training.run_curves import RunCurves, read_run

RUN_FOLDERS = {"checkpoints", "tensorboard", "wandb", "stacks"}
"""Folders that a run makes in its output_dir."""


@dataclass(frozen=True)
class TrainingResult:
    """A training run: what it was to do, from its newest checkpoint, and what it did, from its curves."""

    folder: Path
    curves: RunCurves | None
    """None while no step is finished."""
    checkpoint_step: int | None
    config: dict[str, Any] | None
    """Of the newest complete checkpoint; None without one."""

    @property
    def steps(self) -> int:
        """The last finished step."""
        return int(self.curves.records[-1]["step"]) if self.curves else 0

    @property
    def train_iters(self) -> int | None:
        """Steps of the whole run; None while no checkpoint tells."""
        return None if self.config is None else int(self.config["training"]["train_iters"])

    @property
    def eta(self) -> float | None:
        """Eta of the configuration; None while no checkpoint tells."""
        return None if self.config is None else float(self.config["data"]["eta"])

    @property
    def model(self) -> str | None:
        """The checkpoint or the preset the run started from; None while no checkpoint tells."""
        return None if self.config is None else self.config["model"]["checkpoint"] or self.config["model"]["config"]

    @property
    def agent_sources(self) -> set[str]:
        """Names of the sources of agent trajectories."""
        return set() if self.config is None else {source["name"] for source in self.config["data"]["agent"]}

    @property
    def best_step(self) -> int | None:
        """Step of the lowest mean held-out loss."""
        best = self.curves.best_held_out() if self.curves else None
        return best[1] if best else None

    @property
    def last_measured(self) -> int | None:
        """The last step with a held-out loss."""
        losses = self.curves.held_out.values() if self.curves else []
        return max((step for by_step in losses for step in by_step), default=None)

    def held_out(self, source: str, step: int | None) -> float | None:
        """Return the held-out loss of a source at a step; None when it was not measured there or is not finite."""
        losses = self.curves.held_out.get(source, {}) if self.curves else {}
        loss = math.nan if step is None else losses.get(step, math.nan)
        return loss if math.isfinite(loss) else None

    @property
    def trained_tokens(self) -> int:
        """Tokens with a loss, over all steps but the skipped ones."""
        if self.curves is None:
            return 0
        return int(np.nansum(self.curves.values("trained_tokens")[~self.curves.skipped()]))

    @property
    def hours(self) -> float:
        """Time of the run, evaluation and checkpoints included; steps that were lost and done again count once."""
        return float(self.curves.axis("hours")[-1]) if self.curves else 0.0

    @property
    def gpu_hours(self) -> float | None:
        """Hours times GPUs; None on CPUs, and for runs of a version that did not record their number."""
        if self.curves is None:
            return 0.0
        on_gpu = all("allocated" in record.get("memory", {}) for record in self.curves.records)
        ranks = self.curves.values("world_size")
        if not on_gpu or np.isnan(ranks).any():
            return None
        return float(np.sum(np.diff(self.curves.axis("hours"), prepend=0.0) * ranks))

    def lacks(self) -> list[str]:
        """Return what a finished run would have and this one has not, in words."""
        if not self.steps:
            return ["no step is finished"]
        if self.train_iters is None:
            return [f"step {self.steps}, and no complete checkpoint that tells of how many"]
        if self.steps < self.train_iters:
            return [f"unfinished: {self.steps} of {self.train_iters} steps"]
        if self.checkpoint_step != self.train_iters:
            return [f"no checkpoint of the last step {self.train_iters}, the newest is of step {self.checkpoint_step}"]
        return []


def is_training_run(folder: Path, names: set[str]) -> bool:
    """Return whether a folder that holds these names is the output_dir of a run.

    A run that has not finished a step yet has measured the held-out losses, or has made its empty folders only.
    """
    if names & {"metrics.jsonl", "validation.jsonl"}:
        return True
    return "checkpoints" in names and names <= RUN_FOLDERS and not any((folder / "checkpoints").iterdir())


def read_training(folder: Path) -> TrainingResult:
    """Read a run's files. A cut last line is one being written; UserError names the file of any other damage."""
    curves = read_run(folder) if read_json_lines_tolerating_cut_tail(folder / "metrics.jsonl") else None
    checkpoints = complete_checkpoints(folder / "checkpoints")
    if not checkpoints:
        return TrainingResult(folder, curves, None, None)
    path = checkpoints[-1] / RUN_FILE
    record = read_run_file(checkpoints[-1])
    result = TrainingResult(folder, curves, record.get("step"), record.get("config"))
    try:
        good = int(record["step"]) >= 0 and result.config is not None and 0 <= (result.eta or 0.0) <= 1
        _ = (result.train_iters, result.model, result.agent_sources)
    except (KeyError, TypeError, ValueError):
        good = False
    if not good:
        raise UserError(
            f"{path}: expected the step and the configuration of a training run with its train_iters, eta, model and "
            "sources, found something else; restore the checkpoint from a copy, or delete its folder"
        )
    return result


def eta_in_name(name: str) -> float | None:
    """Return the eta that a folder is named after, as in `0.3`, `eta-0.3` and `eta_1.0`; None for other names."""
    match = re.fullmatch(r"(?:eta[-_=]?)?(0\.\d+|1\.0+)", name, re.ASCII)
    return float(match[1]) if match else None
