"""Every setting of a training run: dataclasses, one YAML file, command-line overrides.

The text under each field is its help on the command line. Field names are Megatron's own argument names
where Megatron has one. Nothing here imports torch, so `--help` answers at once.
"""

import dataclasses
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from megatron_agent.configuration import config_parser
from megatron_agent.dataset.config import DataConfig
from megatron_agent.errors import UserError
from megatron_agent.model.config import ParallelConfig


@dataclass
class ModelSection:
    """What is trained."""

    checkpoint: str | None = None
    """Megatron checkpoint to start from, as written by `python -m checkpoints_convert.hf_to_megatron`."""
    config: str | None = None
    """Instead of `checkpoint`: a preset name or a folder with config.json, trained from random weights."""


@dataclass
class TrainingSection:
    """The loop. The defaults are the paper's (AgentTuning, appendix A)."""

    output_dir: str = "runs/train"
    """Folder for checkpoints/, metrics.jsonl, validation.jsonl and tensorboard/. A run that finds a complete
    checkpoint of its own here resumes from it."""
    train_iters: int = 2000
    """Optimizer steps."""
    global_batch_size: int = 64
    """Packed rows per optimizer step, over all data-parallel ranks."""
    micro_batch_size: int = 1
    """Packed rows per forward pass on one data-parallel rank."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """Parameter and activation type; gradients are reduced and the optimizer works in fp32 either way."""
    hidden_dropout: float = 0.05
    """Dropout after attention and MLP."""
    attention_dropout: float = 0.0
    """Dropout on attention probabilities."""
    recompute_granularity: Literal["full", "selective"] | None = None
    """Recompute activations in the backward pass: whole layers, attention only, or nothing."""
    seed: int = 1234
    """Seed of weights and dropout; the order of the data has its own, data.seed."""
    log_interval: int = 1
    """Steps between console lines; metrics.jsonl has every step."""
    eval_interval: int = 100
    """Steps between evaluations on the held-out conversations; also before the first step and after the last.
    0 switches evaluation off."""


@dataclass
class OptimizerSection:
    """AdamW, linear warm-up, cosine decay. The defaults are the paper's for 7B and 13B; 70B uses lr 1e-5."""

    lr: float = 5e-5
    """Peak learning rate."""
    min_lr: float = 0.0
    """Learning rate after the decay (not published; 0 is our choice)."""
    lr_warmup_fraction: float = 0.02
    """Share of train_iters spent on linear warm-up."""
    lr_decay_fraction: float = 0.9
    """Share of train_iters after which the cosine has reached min_lr (the paper's "decay ratio")."""
    weight_decay: float = 0.1
    """Decoupled weight decay; not applied to norms."""
    adam_beta1: float = 0.9
    """Decay of the first moment."""
    adam_beta2: float = 0.95
    """Decay of the second moment."""
    adam_eps: float = 1e-8
    """Added to the denominator."""
    clip_grad: float = 1.0
    """Largest global L2 norm of the gradient; 0 switches clipping off."""


@dataclass
class CheckpointSection:
    """When to write checkpoints. The last step is always written."""

    save_interval: int = 200
    """Steps between checkpoints."""
    keep_last: int = 2
    """Complete checkpoints kept; older ones are removed after a newer one is in place. 0 keeps all."""


@dataclass
class TrainConfig:
    """Fine-tune a Llama model on packed conversations with Megatron-core."""

    model: ModelSection = field(default_factory=ModelSection)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    training: TrainingSection = field(default_factory=TrainingSection)
    optimizer: OptimizerSection = field(default_factory=OptimizerSection)
    checkpoint: CheckpointSection = field(default_factory=CheckpointSection)

    @property
    def num_rows(self) -> int:
        """Packed rows the whole run consumes."""
        return self.training.train_iters * self.training.global_batch_size

    @property
    def checkpoint_root(self) -> Path:
        """Folder of this run's own checkpoints."""
        return Path(self.training.output_dir) / "checkpoints"

    def check(self) -> None:
        """Refuse values that cannot work, naming the flag. Layout checks need the model: `check_layout`."""
        if (self.model.checkpoint is None) == (self.model.config is None):
            raise UserError(
                "exactly one of --model.checkpoint (start from converted weights) and --model.config "
                f"(random weights) is needed; got checkpoint={self.model.checkpoint!r}, config={self.model.config!r}"
            )
        self.data.check()
        training, optimizer, checkpoint = self.training, self.optimizer, self.checkpoint
        _check_at_least("training", training, 1, "train_iters", "global_batch_size", "micro_batch_size", "log_interval")
        _check_at_least("training", training, 0, "eval_interval")
        _check_at_least("checkpoint", checkpoint, 1, "save_interval")
        _check_at_least("checkpoint", checkpoint, 0, "keep_last")
        _check_at_least("optimizer", optimizer, 0, "lr", "min_lr", "weight_decay", "adam_eps", "clip_grad")
        _check_fraction("training", training, "hidden_dropout", "attention_dropout", one=False)
        _check_fraction("optimizer", optimizer, "lr_warmup_fraction", "lr_decay_fraction")
        _check_fraction("optimizer", optimizer, "adam_beta1", "adam_beta2", one=False)
        if not 0 <= training.seed < 2**32:
            raise UserError(f"--training.seed must lie in [0, 2**32), got {training.seed}")
        if Path(training.output_dir).exists() and not Path(training.output_dir).is_dir():
            raise UserError(f"--training.output_dir must be a folder, {training.output_dir} is a file")
        if optimizer.lr_warmup_fraction > optimizer.lr_decay_fraction:
            raise UserError(
                f"--optimizer.lr_warmup_fraction ({optimizer.lr_warmup_fraction}) must not exceed "
                f"--optimizer.lr_decay_fraction ({optimizer.lr_decay_fraction})"
            )

    def num_microbatches(self, data_parallel_size: int) -> int:
        """Gradient-accumulation steps per optimizer step; :class:`UserError` when the sizes do not divide."""
        rows_per_pass = self.training.micro_batch_size * data_parallel_size
        if self.training.global_batch_size % rows_per_pass:
            raise UserError(
                f"--training.global_batch_size ({self.training.global_batch_size}) must be a multiple of "
                f"--training.micro_batch_size ({self.training.micro_batch_size}) x data-parallel size "
                f"({data_parallel_size}) = {rows_per_pass}"
            )
        return self.training.global_batch_size // rows_per_pass


def _check_at_least(section: str, values: Any, minimum: int, *names: str) -> None:
    for name in names:
        value = getattr(values, name)
        if not minimum <= value < math.inf:  # also catches NaN
            raise UserError(f"--{section}.{name} must be at least {minimum} and finite, got {value}")


def _check_fraction(section: str, values: Any, *names: str, one: bool = True) -> None:
    for name in names:
        value = getattr(values, name)
        if not 0 <= value <= 1 or (value == 1 and not one):
            raise UserError(f"--{section}.{name} must lie in [0, 1{']' if one else ')'}, got {value}")


def parse_config(arguments: Sequence[str] | None = None) -> TrainConfig:
    """Read `--config FILE.yaml` and `--SECTION.FIELD VALUE` overrides; later ones win.

    Unknown keys and values of the wrong type are :class:`UserError`s that name the key.
    """
    import jsonargparse

    parser = config_parser(
        prog="python -m megatron_agent.train",
        description=f"{TrainConfig.__doc__} One process trains on one GPU, or on the CPU where there is "
        "none; start more with `torchrun --nproc-per-node N -m megatron_agent.train --config C.yaml`.",
    )
    parser.add_argument("--config", action="config", help="YAML file with the sections below.")
    parser.add_class_arguments(TrainConfig, nested_key=None, fail_untyped=True)
    try:
        namespace = parser.parse_args(arguments)
        values = parser.instantiate(namespace)
    except jsonargparse.ArgumentError as error:
        raise UserError(f"configuration: {error.message or error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"configuration: {error}") from error
    sections = {section.name: values[section.name] for section in dataclasses.fields(TrainConfig)}
    config = TrainConfig(**sections)
    config.check()
    return config


def config_to_dict(config: TrainConfig) -> dict[str, Any]:
    """Plain values, for run.json."""
    return dataclasses.asdict(config)


def world_size_from_environment() -> int:
    """Number of ranks torchrun or srun started (1 without them)."""
    return int(os.environ.get("WORLD_SIZE", "1"))
