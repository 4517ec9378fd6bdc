"""One optimizer step, and one evaluation pass."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from megatron_agent.dataset.rows import PackedRow
from megatron_agent.errors import UserError
from megatron_agent.training.batch import micro_batches
from megatron_agent.training.loss import forward_step, mean_loss, reduce_reports

if TYPE_CHECKING:
    from megatron_agent.training.model_and_optimizer import Trainer


@dataclass(frozen=True)
class StepResult:
    """What one step reports: `report` is float64 `[sources, 2]`, loss sum and trained tokens per source."""

    loss: float
    grad_norm: float
    report: torch.Tensor


def run_forward_backward(
    trainer: "Trainer", rows_per_micro_batch: Sequence[Sequence[PackedRow]], *, forward_only: bool
) -> torch.Tensor:
    """Run the pipeline schedule over the micro-batches; return the reduced report `[sources, 2]`."""
    from megatron.core.pipeline_parallel import get_forward_backward_func

    num_sources = len(trainer.source_names)
    tokens_per_micro_batch = sum(len(row.tokens) for row in rows_per_micro_batch[0])
    reports = get_forward_backward_func()(
        forward_step_func=partial(forward_step, num_sources),
        data_iterator=micro_batches(rows_per_micro_batch, num_sources, trainer.device),
        model=trainer.model_chunks,
        num_microbatches=len(rows_per_micro_batch),
        seq_length=tokens_per_micro_batch,  # the rows of a micro-batch form one THD sequence ...
        micro_batch_size=1,  # ... of batch size 1
        forward_only=forward_only,
    )
    return reduce_reports(reports, num_sources, trainer.device)


def train_step(trainer: "Trainer", rows_per_micro_batch: Sequence[Sequence[PackedRow]], step: int) -> StepResult:
    """Forward, backward, reduce, clip, update. Raises :class:`UserError` on a loss or gradient that is not finite:
    bf16 has no loss scaler, so Megatron-core itself would apply such an update."""
    for chunk in trainer.model_chunks:
        chunk.zero_grad_buffer()
    trainer.optimizer.zero_grad()
    report = run_forward_backward(trainer, rows_per_micro_batch, forward_only=False)
    loss = mean_loss(report)
    if not report[:, 1].any():
        raise UserError(f"the rows of step {step} hold no trained token: raise --training.global_batch_size")
    if not _finite(loss):
        raise UserError(_not_finite_message("loss", loss, step))
    _, grad_norm, _ = trainer.optimizer.step()
    if not _finite(grad_norm):
        raise UserError(_not_finite_message("gradient norm", grad_norm, step))
    return StepResult(loss=loss, grad_norm=float(grad_norm), report=report)


def evaluate(trainer: "Trainer", rows: Sequence[PackedRow], micro_batch_size: int) -> torch.Tensor:
    """Return the report `[sources, 2]` of a forward pass over `rows`, split over the data-parallel ranks.

    The last micro-batch of a rank may repeat no row: ranks without a row left pass an emptied copy (all loss masks
    zero), since every rank must take part in the schedule.
    """
    from megatron.core import parallel_state

    size, rank = parallel_state.get_data_parallel_world_size(), parallel_state.get_data_parallel_rank()
    rows_per_pass = size * micro_batch_size
    passes = -(-len(rows) // rows_per_pass)
    padded = list(rows) + [_without_loss(rows[0])] * (passes * rows_per_pass - len(rows))
    mine = [
        padded[start + rank * micro_batch_size : start + (rank + 1) * micro_batch_size]
        for start in range(0, len(padded), rows_per_pass)
    ]
    for chunk in trainer.model_chunks:
        chunk.eval()
    with torch.no_grad():
        report = run_forward_backward(trainer, mine, forward_only=True)
    for chunk in trainer.model_chunks:
        chunk.train()
    return report


def _without_loss(row: PackedRow) -> PackedRow:
    return replace(row, loss_mask=np.zeros_like(row.loss_mask))


def _finite(value: Any) -> bool:
    return bool(torch.isfinite(torch.as_tensor(value)).item())


def _not_finite_message(what: str, value: float, step: int) -> str:
    return (
        f"the {what} of step {step} is {value}: training stopped before anything was saved. Resume from the last "
        "checkpoint with a lower --optimizer.lr, or look at the rows of this step with data_prep.inspect_dataset"
    )
