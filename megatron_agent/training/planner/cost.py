"""Time and storage of a run: tokens, model FLOPs, hours at a stated utilisation, size of a checkpoint."""

from dataclasses import dataclass

from megatron_agent.model.config import LlamaConfig
from megatron_agent.training.config import TrainConfig
from megatron_agent.training.flops import model_flops

OPTIMIZER_BYTES = 12
"""Of a parameter in a checkpoint: fp32 weight and two moments, whatever the training precision."""


@dataclass(frozen=True)
class RunCost:
    """What a run takes on `world_size` GPUs.

    `model_flops_per_step` counts what the model's arithmetic needs (`training/flops.py`): recomputation and the
    pipeline bubble are not in it but in the utilisation, `mfu`, which is that of whole steps.
    """

    tokens_per_step: int
    steps: int
    conversation_tokens: int  # length taken for every conversation in the attention's share
    model_flops_per_step: float
    attention_share: float  # of these FLOPs
    step_seconds: float
    hours: float
    gpu_hours: float
    tokens_per_second_per_gpu: float


def run_cost(
    config: TrainConfig,
    llama: LlamaConfig,
    world_size: int,
    *,
    mfu: float,
    peak_tflops: float,
    conversation_tokens: int | None = None,
    adapter_weights: int | None = None,
) -> RunCost:
    """Return the cost of `config.training.train_iters` steps without evaluations, checkpoints and start.

    The attention of a packed row costs the sum of its squared conversation lengths. The planner does not open the
    data: without `conversation_tokens` every row counts as one conversation, which is the most it can cost.
    """
    length = min(conversation_tokens or config.data.seq_length, config.data.seq_length)
    tokens = config.training.global_batch_size * config.data.seq_length
    flops = model_flops(llama, tokens, float(tokens) * length, adapter_weights)
    without_attention = model_flops(llama, tokens, 0.0, adapter_weights)
    seconds = flops / (world_size * peak_tflops * 1e12 * mfu)
    hours = seconds * config.training.train_iters / 3600
    return RunCost(
        tokens_per_step=tokens,
        steps=config.training.train_iters,
        conversation_tokens=length,
        model_flops_per_step=flops,
        attention_share=1 - without_attention / flops,
        step_seconds=seconds,
        hours=hours,
        gpu_hours=hours * world_size,
        tokens_per_second_per_gpu=tokens / seconds / world_size,
    )


def checkpoint_bytes(parameters: int, trainable_parameters: int, *, bf16: bool) -> tuple[int, int]:
    """Return (weights only, weights and optimizer) of a checkpoint of the whole model, padding included."""
    weights = parameters * (2 if bf16 else 4)
    return weights, weights + OPTIMIZER_BYTES * trainable_parameters
