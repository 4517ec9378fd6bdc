"""From row numbers to the tensors of a micro-batch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from megatron_agent.dataset.rows import PackedRow
from megatron_agent.model.attention import packed_seq_params

if TYPE_CHECKING:
    from megatron.core.packed_seq_params import PackedSeqParams


@dataclass
class MicroBatch:
    """`b` packed rows of `s` tokens as one THD sequence of `t = b * s` tokens."""

    tokens: torch.Tensor  # int64 [1, t]
    labels: torch.Tensor  # int64 [1, t]
    loss_mask: torch.Tensor  # float32 [1, t]
    position_ids: torch.Tensor  # int64 [1, t]
    sources: torch.Tensor  # int64 [1, t], index into the source names; padding has the index after the last
    packed_seq_params: "PackedSeqParams"


def collate(rows: Sequence[PackedRow], num_sources: int, device: torch.device) -> MicroBatch:
    """Join packed rows into one THD sequence.

    THD attention is defined for batch 1, and its conversations cannot see one another, so `b` rows side by side
    are one longer row: any micro-batch size runs the same code.
    """
    lengths = [len(row.tokens) for row in rows]
    starts = np.cumsum([0, *lengths[:-1]])
    boundaries = [row.cu_seqlens[1:] + start for row, start in zip(rows, starts, strict=True)]
    cu_seqlens = np.concatenate([[0], *boundaries]).astype(np.int32)
    segment_lengths = np.diff(cu_seqlens)
    segment_sources = np.concatenate([row.segment_sources for row in rows])
    sources = np.repeat(np.where(segment_sources < 0, num_sources, segment_sources), segment_lengths)

    def tensor(arrays: Sequence[np.ndarray], dtype: torch.dtype) -> torch.Tensor:
        return torch.from_numpy(np.concatenate(arrays)).to(device=device, dtype=dtype).unsqueeze(0)

    return MicroBatch(
        tokens=tensor([row.tokens for row in rows], torch.int64),
        labels=tensor([row.labels for row in rows], torch.int64),
        loss_mask=tensor([row.loss_mask for row in rows], torch.float32),
        position_ids=tensor([row.position_ids for row in rows], torch.int64),
        sources=tensor([sources], torch.int64),
        packed_seq_params=packed_seq_params(torch.from_numpy(cu_seqlens).to(device)),
    )


def micro_batches(
    rows_per_micro_batch: Sequence[Sequence[PackedRow]], num_sources: int, device: torch.device
) -> Iterator[MicroBatch]:
    """Yield the micro-batches of one step; every tensor- and pipeline-parallel rank builds the same ones itself,
    which costs less than sending them."""
    for rows in rows_per_micro_batch:
        yield collate(rows, num_sources, device)
