"""Micro-batches: rows side by side, padding for FP8, the pieces of context parallelism."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from megatron_agent.dataset.rows import PackedRow, build_row
from megatron_agent.training.batch import TokenLayout, collate, micro_batches, tokens_needed, tokens_of_rank

DEVICE = torch.device("cpu")
SEQ_LENGTH = 24


def row(lengths: list[int], first: int) -> PackedRow:
    """Conversations of these lengths with ids counting up from `first`; every second token trained."""
    pieces = []
    for length in lengths:
        pieces.append((np.arange(first, first + length), np.arange(length) % 2 == 1))
        first += length
    return build_row(pieces, np.arange(len(lengths)) % 2, SEQ_LENGTH)


ROWS = [row([5, 7, 9], 100), row([3, 21], 200)]


def test_rows_lie_side_by_side() -> None:
    batch = collate(ROWS, 2, DEVICE, TokenLayout(), 2 * SEQ_LENGTH)
    assert batch.tokens[0].tolist() == [*ROWS[0].tokens, *ROWS[1].tokens]
    assert batch.labels[0].tolist() == [*ROWS[0].labels, *ROWS[1].labels]
    assert batch.packed_seq_params.cu_seqlens_q.tolist() == [0, 5, 12, 21, 24, 27, 48]
    assert batch.sources[0].tolist() == [0] * 5 + [1] * 7 + [0] * 9 + [2] * 3 + [0] * 3 + [1] * 21


def test_padding_to_a_multiple_is_a_segment_without_loss() -> None:
    """FP8 products take 16 rows at a time."""
    layout = TokenLayout(multiple=16)
    (batch,), tokens = micro_batches([ROWS[:1]], 2, DEVICE, layout)
    assert tokens == 32
    assert batch.tokens[0, :SEQ_LENGTH].tolist() == ROWS[0].tokens.tolist()
    assert batch.loss_mask[0, SEQ_LENGTH:].sum() == 0
    assert batch.sources[0, SEQ_LENGTH:].tolist() == [2] * 8
    assert batch.packed_seq_params.cu_seqlens_q.tolist() == [0, 5, 12, 21, 24, 32]


@pytest.mark.parametrize("size", [2, 4])
def test_context_parallel_ranks_share_every_trained_token(size: int) -> None:
    """Together the ranks hold each token once, with its label, and pieces r and 2 cp - 1 - r of each segment."""
    batches = []
    for rank in range(size):
        layout = TokenLayout(multiple=2 * size, context_parallel_size=size, context_parallel_rank=rank)
        (batch,), tokens = micro_batches([ROWS], 2, DEVICE, layout)
        assert tokens == tokens_needed(ROWS, layout)
        assert batch.tokens.shape == (1, tokens // size)
        borders = batch.packed_seq_params.cu_seqlens_q
        assert all(length % (2 * size) == 0 for length in borders.diff().tolist())
        batches.append(batch)
    kept = [
        (token, label, position)
        for batch in batches
        for token, label, position, mask in zip(
            *(x[0].tolist() for x in (batch.tokens, batch.labels, batch.position_ids, batch.loss_mask)), strict=True
        )
        if mask
    ]
    expected = [
        (token, label, position)
        for packed in ROWS
        for token, label, position, mask in zip(
            packed.tokens, packed.labels, packed.position_ids, packed.loss_mask, strict=True
        )
        if mask
    ]
    assert sorted(kept) == sorted(expected)


def test_trained_positions_are_those_of_the_mask() -> None:
    batch = collate(ROWS, 2, DEVICE, TokenLayout(multiple=16), 64)
    assert batch.trained_positions.tolist() == batch.loss_mask[0].nonzero().flatten().tolist()
    empty = replace(ROWS[0], loss_mask=np.zeros_like(ROWS[0].loss_mask))
    assert collate([empty], 2, DEVICE, TokenLayout(), SEQ_LENGTH).trained_positions.tolist() == [0]


def test_order_of_the_pieces() -> None:
    """Segments of 8 and 4 tokens over 2 ranks, as Transformer Engine's `thd_get_partitioned_indices` divides them."""
    lengths = np.array([8, 4])
    first, second = (tokens_of_rank(lengths, TokenLayout(4, 2, rank)).tolist() for rank in (0, 1))
    assert first == [0, 1, 6, 7, 8, 11]
    assert second == [2, 3, 4, 5, 9, 10]
