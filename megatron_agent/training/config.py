"""Every setting of a training run: dataclasses (`sections.py`), one YAML file, command-line overrides.

Nothing here imports torch, so `--help` answers at once.
"""

import dataclasses
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megatron_agent.configuration import config_parser
from megatron_agent.dataset.config import DataConfig
from megatron_agent.errors import UserError
from megatron_agent.model.config import LlamaConfig
from megatron_agent.model.kernels import KernelConfig
from megatron_agent.model.layout import ParallelConfig, layers_per_stage
from megatron_agent.model.lora_config import LoraConfig
from megatron_agent.training.sections import (
    CheckpointSection,
    ModelSection,
    OptimizerSection,
    ReliabilitySection,
    TelemetrySection,
    TrainingSection,
)

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser


@dataclass
class TrainConfig:
    """Fine-tune a Llama model on packed conversations with Megatron-core."""

    model: ModelSection = field(default_factory=ModelSection)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    training: TrainingSection = field(default_factory=TrainingSection)
    optimizer: OptimizerSection = field(default_factory=OptimizerSection)
    checkpoint: CheckpointSection = field(default_factory=CheckpointSection)
    kernels: KernelConfig = field(default_factory=KernelConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    reliability: ReliabilitySection = field(default_factory=ReliabilitySection)
    telemetry: TelemetrySection = field(default_factory=TelemetrySection)

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
        self.lora.check()
        if self.lora.r and self.model.checkpoint is None:
            raise UserError(
                f"--lora.r {self.lora.r} trains adapters beside weights that stay as they are: it needs "
                "--model.checkpoint, not --model.config (random weights)"
            )
        self.data.check()
        training, optimizer, checkpoint = self.training, self.optimizer, self.checkpoint
        _check_at_least("training", training, 1, "train_iters", "global_batch_size", "micro_batch_size")
        _check_at_least("training", training, 1, "recompute_num_layers")
        _check_at_least("training", training, 0, "eval_interval")
        _check_at_least("checkpoint", checkpoint, 0, "save_interval", "keep_last", "keep_best")
        if checkpoint.keep_best and not training.eval_interval:
            raise UserError(
                f"--checkpoint.keep_best {checkpoint.keep_best} needs held-out losses, --training.eval_interval is 0"
            )
        _check_at_least("reliability", self.reliability, 1, "max_skipped_steps")
        _check_at_least("reliability", self.reliability, 0, "loss_spike_factor", "hang_timeout_in_mins")
        _check_at_least("reliability", self.reliability, 0, "check_weight_hash_across_dp_replicas_interval")
        if self.reliability.exit_duration_in_mins is not None:
            _check_at_least("reliability", self.reliability, 0, "exit_duration_in_mins")
        _check_at_least("telemetry", self.telemetry, 1, "log_interval")
        if self.telemetry.peak_tflops is not None and not 0 < self.telemetry.peak_tflops < math.inf:
            raise UserError(
                f"--telemetry.peak_tflops must be greater than 0 and finite, got {self.telemetry.peak_tflops}"
            )
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
        num_microbatches = self.training.global_batch_size // rows_per_pass
        pipeline, virtual = (
            self.parallel.pipeline_model_parallel_size,
            self.parallel.virtual_pipeline_model_parallel_size,
        )
        if virtual is not None and num_microbatches % pipeline:
            raise UserError(
                f"--parallel.virtual_pipeline_model_parallel_size {virtual} needs a number of micro-batches that is a "
                f"multiple of --parallel.pipeline_model_parallel_size ({pipeline}), got {num_microbatches} = "
                "--training.global_batch_size / (--training.micro_batch_size x data-parallel size)"
            )
        return num_microbatches

    def check_recompute(self, llama: LlamaConfig) -> None:
        """Refuse groups of recomputed layers that do not divide the layers of every (virtual) pipeline stage.

        Megatron-core's uniform recomputation runs past the last layer otherwise. The layout must fit the model.
        """
        training, virtual = self.training, self.parallel.virtual_pipeline_model_parallel_size or 1
        if training.recompute_granularity != "full":
            return
        for layers in layers_per_stage(llama.num_hidden_layers, self.parallel):
            if (layers // virtual) % training.recompute_num_layers:
                raise UserError(
                    f"--training.recompute_num_layers ({training.recompute_num_layers}) must divide the "
                    f"{layers // virtual} layers of a {'virtual ' if virtual > 1 else ''}pipeline stage"
                )


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
    parser = training_parser(
        prog="python -m megatron_agent.train",
        description=f"{TrainConfig.__doc__} One process trains on one GPU, or on the CPU where there is "
        "none; start more with `torchrun --nproc-per-node N -m megatron_agent.train --config C.yaml`.",
    )
    config, _ = parse_sections(parser, arguments)
    config.check()
    return config


def training_parser(prog: str, description: str) -> "ArgumentParser":
    """Return a parser of a training configuration, to which a command may add arguments of its own."""
    parser = config_parser(prog=prog, description=description)
    parser.add_argument("--config", action="config", help="YAML file with the sections below.")
    parser.add_class_arguments(TrainConfig, nested_key=None, fail_untyped=True)
    return parser


def parse_sections(parser: "ArgumentParser", arguments: Sequence[str] | None) -> tuple[TrainConfig, dict[str, Any]]:
    """Return the configuration, not yet checked, and the values of all arguments by name."""
    import jsonargparse

    try:
        namespace = parser.parse_args(arguments)
        values = parser.instantiate(namespace)
    except jsonargparse.ArgumentError as error:
        raise UserError(f"configuration: {error.message or error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"configuration: {error}") from error
    sections = {section.name: values[section.name] for section in dataclasses.fields(TrainConfig)}
    return TrainConfig(**sections), vars(values)


def config_to_dict(config: TrainConfig) -> dict[str, Any]:
    """Plain values, for run.json."""
    return dataclasses.asdict(config)


def world_size_from_environment() -> int:
    """Number of ranks as torchrun sets it (1 without).

    Raises :class:`UserError` for a task of srun without the variables: each would train alone, into one folder.
    """
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))  # srun sets it, a batch script has none
    if tasks > 1 and "WORLD_SIZE" not in os.environ:
        raise UserError(
            f"srun started {tasks} tasks without WORLD_SIZE, RANK, LOCAL_RANK, MASTER_ADDR and MASTER_PORT: export "
            "WORLD_SIZE=$SLURM_STEP_NUM_TASKS RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID in each task, and the "
            "address of the first node in all; or start torchrun once a node"
        )
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank_from_environment() -> int:
    """Rank of this process as torchrun sets it (0 without)."""
    return int(os.environ.get("RANK", "0"))
