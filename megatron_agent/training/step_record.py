"""The line of metrics.jsonl."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from megatron_agent.dataset.rows import PackedRows
from megatron_agent.model.config import LlamaConfig
from megatron_agent.training.flops import model_flops
from megatron_agent.training.loss import named_losses
from megatron_agent.training.step import StepResult


@dataclass(frozen=True)
class StepWork:
    """What a step had to do, and with what."""

    tokens: int  # positions of the packed rows of all ranks, padding included
    flops: float  # model FLOPs, see flops.py
    world_size: int
    peak_tflops: float | None  # of one GPU; None: unknown


def flops_of_rows(
    rows: PackedRows, start: int, stop: int, llama: LlamaConfig, trained_tokens: int, adapter_weights: int | None = None
) -> float:
    """Return the model FLOPs of rows `start` to `stop - 1`, all ranks' together; lengths come from the index.

    `trained_tokens`: tokens with a loss in these rows. `adapter_weights`: trained weights of LoRA; None trains all.
    """
    lengths = rows.lengths_of_rows(start, stop)
    return model_flops(llama, int(lengths.sum()), int((lengths * lengths).sum()), adapter_weights, trained_tokens)


def step_record(
    step: int,
    result: StepResult,
    lr: float,
    source_names: Sequence[str],
    work: StepWork,
    seconds: float,
    parts: Mapping[str, float],
    memory: Mapping[str, int],
) -> dict[str, Any]:
    """Return the line of metrics.jsonl for one step; docs/training.md lists the fields.

    `seconds` and `parts` are what `StepTimers.end_step` returns, `memory` is `peak_memory`'s. A loss or gradient norm
    that is not finite becomes null: JSON has no other word for it.
    """
    trained_tokens = int(result.report[:, 1].sum())
    tflops_per_gpu = work.flops / seconds / work.world_size / 1e12
    return {
        "step": step,
        "loss": _finite_or_none(result.loss),
        "grad_norm": _finite_or_none(result.grad_norm),
        "lr": lr,
        "trained_tokens": trained_tokens,
        "tokens": work.tokens,
        "seconds": seconds,
        "tokens_per_second": work.tokens / seconds,
        "trained_tokens_per_second": trained_tokens / seconds,
        "world_size": work.world_size,
        "tflops_per_gpu": tflops_per_gpu,
        "mfu": tflops_per_gpu / work.peak_tflops if work.peak_tflops else None,
        "source_loss": {
            name: _finite_or_none(loss) for name, loss in named_losses(result.report, list(source_names)).items()
        },
        "time": dict(parts),
        "memory": dict(memory),
    }


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
