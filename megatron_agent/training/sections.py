"""The sections of a training configuration. The text under each field is its help on the command line.

Field names are Megatron's own argument names where Megatron has one. Nothing here imports torch.
"""

from dataclasses import dataclass
from typing import Literal


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
    recompute_num_layers: int = 1
    """With full recompute: layers between two stored activations (more: less memory, more of them alive at once)."""
    seed: int = 1234
    """Seed of weights and dropout; the order of the data has its own, data.seed."""
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
    """When to write checkpoints. The last step is written too."""

    save_interval: int = 200
    """Steps between checkpoints. 0 writes none, not even the last: for measurements."""
    keep_last: int = 2
    """Complete checkpoints kept; older ones are removed after a newer one is in place. 0 keeps all."""
    keep_best: int = 0
    """Checkpoints kept beside these, those with the lowest held-out loss (mean over the sources, measured at the same
    step; save_interval should be a multiple of eval_interval)."""
    async_save: bool = True
    """Write checkpoints in the background while training goes on; the last one of a run is waited for."""


@dataclass
class ReliabilitySection:
    """What a run does about signals, time limits, bad numbers and hanging ranks."""

    exit_duration_in_mins: float | None = None
    """Minutes after the start of the process, loading included, at which the run writes a checkpoint and ends with
    status 85 (requeue me). SIGTERM and SIGUSR1 do the same at any time."""
    max_skipped_steps: int = 5
    """Steps in a row with a loss or gradient norm that is not finite: each is skipped on all ranks and its rows are
    logged; when this many follow one another the run stops."""
    loss_spike_factor: float = 2.0
    """Warn when a step's loss exceeds this many times the mean of the last 50 steps; 0 switches the warning off."""
    hang_timeout_in_mins: float = 30.0
    """Minutes without a finished step, evaluation or save after which every rank writes its stacks to
    `output_dir/stacks/` and ends with status 86; longer than the longest save takes. 0 switches the watchdog off."""
    check_weight_hash_across_dp_replicas_interval: int = 500
    """Steps between comparisons of the weights that ranks hold in common (data-parallel replicas, norms across tensor
    ranks, tied embeddings across the pipeline); 0 switches them off."""


@dataclass
class TelemetrySection:
    """What a run reports, and where."""

    log_interval: int = 1
    """Steps between console lines; metrics.jsonl has every step."""
    tensorboard: bool = True
    """Write curves to output_dir/tensorboard."""
    wandb_project: str | None = None
    """Weights & Biases project to report to; needs the package wandb (WANDB_MODE=offline works without a network)."""
    wandb_exp_name: str | None = None
    """Name of the run there; default: the name of output_dir."""
    peak_tflops: float | None = None
    """Peak dense TFLOP/s of one GPU at the training precision, the denominator of MFU; default: by the GPU's name."""
