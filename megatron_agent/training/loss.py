"""The loss: summed over trained tokens, divided once by their number in the global batch.

Megatron-core divides (in `finalize_model_grads`) when `calculate_per_token_loss` is set and the loss function returns
(sum, count, report). A mean per micro-batch would weigh tokens by how many trained neighbours they happen to have.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from megatron_agent.training.batch import MicroBatch

LossFunction = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor, torch.Tensor]]


def masked_loss_sum(
    num_sources: int, batch: MicroBatch, token_losses: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return (loss sum, trained-token count, report) of one micro-batch.

    `token_losses` is the model's output `[1, t]`. The report is float64 `[num_sources, 2]`: loss sum and trained
    tokens of each data source; its column sums are the loss and the count of the micro-batch.
    """
    losses = token_losses.float() * batch.loss_mask
    report = torch.zeros(num_sources + 1, 2, dtype=torch.float64, device=losses.device)
    with torch.no_grad():
        report[:, 0].index_add_(0, batch.sources[0], losses[0].double())
        report[:, 1].index_add_(0, batch.sources[0], batch.loss_mask[0].double())
    return losses.sum(), batch.loss_mask.sum().int(), report[:num_sources]


def forward_step(
    num_sources: int, batches: Iterator[MicroBatch], model: torch.nn.Module
) -> tuple[torch.Tensor, LossFunction]:
    """One forward pass of this pipeline stage, in the form `get_forward_backward_func` expects."""
    batch = next(batches)
    output = model(
        batch.tokens,
        batch.position_ids,
        attention_mask=None,
        labels=batch.labels,
        trained_positions=batch.trained_positions,
        packed_seq_params=batch.packed_seq_params,
    )
    return output, partial(masked_loss_sum, num_sources, batch)


def reduce_reports(reports: list[torch.Tensor], num_sources: int, device: torch.device) -> torch.Tensor:
    """Sum the micro-batch reports over the step and the data-parallel ranks.

    Every rank gets float64 `[num_sources, 2]`. Only the last pipeline stage has reports; it broadcasts the result.
    """
    from megatron.core import parallel_state

    if reports:
        total = torch.stack(reports).sum(dim=0)
        group = parallel_state.get_data_parallel_group(with_context_parallel=True)
        torch.distributed.all_reduce(total, group=group)
    else:
        total = torch.zeros(num_sources, 2, dtype=torch.float64, device=device)
    if parallel_state.get_pipeline_model_parallel_world_size() > 1:
        torch.distributed.broadcast(
            total,
            src=parallel_state.get_pipeline_model_parallel_last_rank(),
            group=parallel_state.get_pipeline_model_parallel_group(),
        )
    return total


def mean_loss(report: torch.Tensor) -> float:
    """Return the loss per trained token of a report `[..., 2]`; 0 trained tokens give NaN."""
    total = report.reshape(-1, 2).sum(dim=0).tolist()
    return total[0] / total[1] if total[1] else float("nan")


def named_losses(report: torch.Tensor, source_names: list[str]) -> dict[str, Any]:
    """Return the loss per trained token of each source that had any."""
    return {name: mean_loss(row) for name, row in zip(source_names, report, strict=True) if row[1] > 0}
