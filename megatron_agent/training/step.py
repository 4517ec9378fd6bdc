"""One optimizer step, and one evaluation pass."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from megatron_agent.dataset.rows import PackedRow
from megatron_agent.errors import UserError
from megatron_agent.training.batch import micro_batches
from megatron_agent.training.loss import forward_step, mean_loss, reduce_reports
from megatron_agent.training.model_and_optimizer import Trainer, gather_parameters
from megatron_agent.training.signals import agree


@dataclass(frozen=True)
class StepResult:
    """What one step reports: `report` is float64 `[sources, 2]`, loss sum and trained tokens per source, on the CPU.

    A step that was not `applied` left weights and optimizer state as they were. `flags` are the largest over all
    ranks of those given to the step.
    """

    loss: float
    grad_norm: float
    report: torch.Tensor
    applied: bool
    flags: list[int]
    micro_batches_not_finite: list[int]
    """Micro-batches of this rank whose loss is not finite; found on the last pipeline stage when not applied."""


def run_forward_backward(
    trainer: Trainer, rows_per_micro_batch: Sequence[Sequence[PackedRow]], *, forward_only: bool
) -> list[torch.Tensor]:
    """Run the pipeline schedule over the micro-batches; return a report `[sources, 2]` of each on the last stage."""
    from megatron.core.pipeline_parallel import get_forward_backward_func

    num_sources = len(trainer.source_names)
    with trainer.timers.measure("data"):
        batches, tokens = micro_batches(rows_per_micro_batch, num_sources, trainer.device, trainer.token_layout)
    iterators = [iter(batches) for _ in trainer.model_chunks]  # every virtual stage walks through all of them
    reports: list[torch.Tensor] = get_forward_backward_func()(
        forward_step_func=partial(forward_step, num_sources),
        data_iterator=iterators if len(iterators) > 1 else iterators[0],
        model=trainer.model_chunks,
        num_microbatches=len(batches),
        seq_length=tokens,  # the rows of a micro-batch form one THD sequence ...
        micro_batch_size=1,  # ... of batch size 1
        forward_only=forward_only,
    )
    return reports


def forward_backward(
    trainer: Trainer, rows_per_micro_batch: Sequence[Sequence[PackedRow]]
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Gradients of one step, reduced; return the reports of the micro-batches and the reduced report `[sources, 2]`."""
    for chunk in trainer.model_chunks:
        chunk.zero_grad_buffer()
    trainer.optimizer.zero_grad()
    with trainer.timers.measure("forward_backward"):
        reports = run_forward_backward(trainer, rows_per_micro_batch, forward_only=False)
    return reports, reduce_reports(reports, len(trainer.source_names), trainer.device)


def update_weights(
    trainer: Trainer, reports: list[torch.Tensor], report: torch.Tensor, flags: Sequence[int], step: int
) -> StepResult:
    """Clip and apply the gradients, unless the loss or their norm is not finite: then change nothing on any rank.

    bf16 has no loss scaler, so Megatron-core itself would apply such an update. `flags` are integers of this rank's
    own that all ranks want to agree on: they travel with the check of the loss, in the one small reduction of a
    step. Raises :class:`UserError` when the step has no trained token.
    """
    optimizer = trainer.optimizer
    shared = torch.tensor([0, *flags], dtype=torch.int32).to(trainer.device, non_blocking=True)
    shared[0] = ~torch.isfinite(report[:, 0].sum())
    agree(shared)
    optimizer.prepare_grads()
    grad_norm = float(optimizer.get_grad_norm())  # over all ranks; waits for the device, so what follows need not
    loss_not_finite, *agreed = shared.tolist()
    report = report.cpu()
    if not report[:, 1].any():
        raise UserError(f"the rows of step {step} hold no trained token: raise --training.global_batch_size")
    applied = not loss_not_finite and math.isfinite(grad_norm)
    if applied:
        clip_gradients(optimizer, grad_norm)
        optimizer.step_with_ready_grads()
    suspects = [] if applied else [i for i, part in enumerate(reports) if not torch.isfinite(part).all()]
    return StepResult(mean_loss(report), grad_norm, report, applied, agreed, suspects)


def clip_gradients(optimizer: Any, grad_norm: float) -> None:
    """Scale the gradients to `clip_grad`, as Megatron-core's own `optimizer.step()` does after computing the norm."""
    from megatron.core.optimizer.clip_grads import clip_grad_by_total_norm_fp32

    for part in optimizer.chained_optimizers:
        parameters = part.get_parameters()
        if parameters and part.config.clip_grad > 0:
            clip_grad_by_total_norm_fp32(
                parameters,
                max_norm=part.config.clip_grad,
                total_norm=grad_norm,
                use_decoupled_grad=part.config.use_precision_aware_optimizer_no_fp8_or_ds_fp8,
            )


def evaluate(trainer: Trainer, rows: Sequence[PackedRow], micro_batch_size: int) -> torch.Tensor:
    """Return the report `[sources, 2]` of a forward pass over `rows`, split over the data-parallel ranks.

    The last micro-batch of a rank may repeat no row: ranks without a row left pass an emptied copy (all loss masks
    zero), since every rank must take part in the schedule.
    """
    from megatron.core import parallel_state

    size, rank = parallel_state.get_data_parallel_world_size(), parallel_state.get_data_parallel_rank()
    rows_per_pass = size * micro_batch_size
    passes = -(-len(rows) // rows_per_pass)
    if len(trainer.model_chunks) > 1:  # interleaved schedules take micro-batches in groups of the pipeline's size
        stages = parallel_state.get_pipeline_model_parallel_world_size()
        passes = -(-passes // stages) * stages
    padded = list(rows) + [_without_loss(rows[0])] * (passes * rows_per_pass - len(rows))
    mine = [
        padded[start + rank * micro_batch_size : start + (rank + 1) * micro_batch_size]
        for start in range(0, len(padded), rows_per_pass)
    ]
    gather_parameters(trainer)
    for chunk in trainer.model_chunks:
        chunk.eval()
    with torch.no_grad():
        reports = run_forward_backward(trainer, mine, forward_only=True)
        report = reduce_reports(reports, len(trainer.source_names), trainer.device).cpu()
    for chunk in trainer.model_chunks:
        chunk.train()
    return report


def _without_loss(row: PackedRow) -> PackedRow:
    return replace(row, loss_mask=np.zeros_like(row.loss_mask))
