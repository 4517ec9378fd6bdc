"""From row numbers to the tensors of a micro-batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from megatron_agent.dataset.rows import PADDING_ID, PackedRow
from megatron_agent.model.attention import packed_seq_params

if TYPE_CHECKING:
    from megatron.core.packed_seq_params import PackedSeqParams

IntArray = npt.NDArray[np.int64]


@dataclass
class MicroBatch:
    """`b` packed rows as one THD sequence of `t` tokens, `t / cp` of them on this rank."""

    tokens: torch.Tensor  # int64 [1, t / cp]
    labels: torch.Tensor  # int64 [1, t / cp]
    loss_mask: torch.Tensor  # float32 [1, t / cp]
    trained_positions: torch.Tensor  # int64 [n], where the mask is 1; where it is nowhere, position 0
    position_ids: torch.Tensor  # int64 [1, t / cp]
    sources: torch.Tensor  # int64 [1, t / cp], index into the source names; padding has the index after the last
    packed_seq_params: "PackedSeqParams"  # borders over all t tokens


@dataclass(frozen=True)
class TokenLayout:
    """What the tokens of a micro-batch are rounded up to, and which of them this rank holds."""

    multiple: int = 1
    """`t` is a multiple of this."""
    context_parallel_size: int = 1
    context_parallel_rank: int = 0
    drop_padding: bool = False
    """Leave the rows' padding out, so that micro-batches differ in size: on a CPU, whose work is all arithmetic. GPUs
    like equal shapes better, and the stages of a pipeline need them."""


def collate(
    rows: Sequence[PackedRow], num_sources: int, device: torch.device, layout: TokenLayout, tokens: int
) -> MicroBatch:
    """Join packed rows into one THD sequence of `tokens` tokens (at least `tokens_needed(rows, layout)`).

    THD attention is defined for batch 1, and its conversations cannot see one another, so `b` rows side by side
    are one longer row: any micro-batch size runs the same code.
    """
    lengths, segment_sources, kept = _segments(rows, layout)
    padded = _padded_lengths(lengths, layout)
    # Where each kept token of the rows goes: segments keep their order, each starts at its padded border.
    places = np.arange(lengths.sum()) + np.repeat(_starts(padded) - _starts(lengths), lengths)
    segment_of_place = np.repeat(np.where(segment_sources < 0, num_sources, segment_sources), padded)
    if tokens > padded.sum():
        padded = np.append(padded, tokens - padded.sum())
    borders = np.concatenate([[0], np.cumsum(padded)]).astype(np.int32)
    mine = tokens_of_rank(padded, layout)

    def tensor(arrays: Sequence[np.ndarray], dtype: torch.dtype, padding: int) -> torch.Tensor:
        values = np.full(tokens, padding, dtype=arrays[0].dtype)
        values[places] = np.concatenate(arrays)[kept]
        return torch.from_numpy(values[mine]).to(device=device, dtype=dtype, non_blocking=True).unsqueeze(0)

    sources = np.full(tokens, num_sources, dtype=np.int64)
    sources[: len(segment_of_place)] = segment_of_place
    trained = np.zeros(tokens, dtype=np.bool_)
    trained[places] = np.concatenate([row.loss_mask for row in rows])[kept] != 0
    # Found here, not from the mask on the device, which would have the host wait for it. Megatron-core's fused cross
    # entropy fails on no position at all; the mask takes position 0's loss away again.
    trained_positions = np.flatnonzero(trained[mine]) if trained[mine].any() else np.zeros(1, dtype=np.int64)
    return MicroBatch(
        tokens=tensor([row.tokens for row in rows], torch.int64, PADDING_ID),
        labels=tensor([row.labels for row in rows], torch.int64, PADDING_ID),
        loss_mask=tensor([row.loss_mask for row in rows], torch.float32, 0),
        trained_positions=torch.from_numpy(trained_positions).to(device, non_blocking=True),
        position_ids=tensor([row.position_ids for row in rows], torch.int64, 0),
        sources=torch.from_numpy(sources[mine]).to(device).unsqueeze(0),
        packed_seq_params=packed_seq_params(torch.from_numpy(borders), device),
    )


def micro_batches(
    rows_per_micro_batch: Sequence[Sequence[PackedRow]],
    num_sources: int,
    device: torch.device,
    layout: TokenLayout,
) -> tuple[list[MicroBatch], int]:
    """Return the micro-batches of one step and their number of tokens `t` (with `drop_padding`, the largest).

    Every tensor- and pipeline-parallel rank builds the same ones itself, which costs less than sending them.
    """
    needed = [tokens_needed(rows, layout) for rows in rows_per_micro_batch]
    tokens = needed if layout.drop_padding else [max(needed)] * len(needed)
    batches = [
        collate(rows, num_sources, device, layout, size)
        for rows, size in zip(rows_per_micro_batch, tokens, strict=True)
    ]
    return batches, max(needed)


def tokens_needed(rows: Sequence[PackedRow], layout: TokenLayout) -> int:
    """Return how many tokens a micro-batch of `rows` takes, padding of the segments and of the whole included."""
    lengths = _segments(rows, layout)[0]
    return -(-int(_padded_lengths(lengths, layout).sum()) // layout.multiple) * layout.multiple


def tokens_of_rank(lengths: IntArray, layout: TokenLayout) -> IntArray:
    """Return which tokens of segments of these lengths are on this context-parallel rank, `[t / cp]`, ascending.

    Each segment is cut into `2 * cp` equal pieces; rank r holds pieces r and `2 * cp - 1 - r`, which gives every rank
    the same share of causal attention (Transformer Engine's order, `thd_get_partitioned_indices`).
    """
    size, rank = layout.context_parallel_size, layout.context_parallel_rank
    if size == 1:
        return np.arange(lengths.sum())
    piece = np.repeat(lengths // (2 * size), lengths)
    within = np.arange(lengths.sum()) - np.repeat(_starts(lengths), lengths)
    number = within // piece
    return np.flatnonzero((number == rank) | (number == 2 * size - 1 - rank))


def _segments(rows: Sequence[PackedRow], layout: TokenLayout) -> tuple[IntArray, IntArray, npt.NDArray[np.bool_]]:
    """Return lengths and sources of the segments that take part, and which tokens of the rows are theirs."""
    lengths = np.concatenate([np.diff(row.cu_seqlens) for row in rows]).astype(np.int64)
    sources = np.concatenate([row.segment_sources for row in rows])
    kept = sources >= 0 if layout.drop_padding else np.ones(len(sources), dtype=np.bool_)
    return lengths[kept], sources[kept], np.repeat(kept, lengths)


def _padded_lengths(lengths: IntArray, layout: TokenLayout) -> IntArray:
    """Segments must divide into equal pieces for context parallelism."""
    pieces = 2 * layout.context_parallel_size if layout.context_parallel_size > 1 else 1
    return -(-lengths // pieces) * pieces


def _starts(lengths: IntArray) -> IntArray:
    return np.concatenate([[0], np.cumsum(lengths)[:-1]])
