"""Rows without their padding: the same conversations, and nothing else."""

import numpy as np
import torch

from megatron_agent.dataset.rows import PackedRow, build_row
from megatron_agent.training.batch import TokenLayout, micro_batches

DEVICE = torch.device("cpu")


def row(lengths: list[int], first_id: int) -> PackedRow:
    pieces = [(np.arange(first_id, first_id + length), np.arange(length) > 1) for length in lengths]
    return build_row(pieces, np.arange(len(lengths)), seq_length=32)


def test_padding_is_left_out_and_nothing_else() -> None:
    rows = [row([5, 9], 100), row([32], 200), row([7, 3, 6], 300)]
    full, full_size = micro_batches([[rows[0], rows[1]], [rows[2], rows[2]]], 3, DEVICE, TokenLayout())
    dropped, size = micro_batches(
        [[rows[0], rows[1]], [rows[2], rows[2]]], 3, DEVICE, TokenLayout(multiple=4, drop_padding=True)
    )
    assert (full_size, size) == (64, 48)  # 46 tokens, rounded up to a multiple of 4
    assert [batch.tokens.shape[1] for batch in dropped] == [48, 32]
    assert dropped[0].packed_seq_params.cu_seqlens_q.tolist() == [0, 5, 14, 46, 48]
    assert dropped[1].packed_seq_params.cu_seqlens_q.tolist() == [0, 7, 10, 16, 23, 26, 32]
    for ours, reference in zip(dropped, full, strict=True):
        for name in ("tokens", "labels", "loss_mask", "position_ids", "sources"):
            got, expected = (getattr(b, name)[b.sources < 3] for b in (ours, reference))
            assert torch.equal(got, expected), name
        assert not ours.loss_mask[ours.sources == 3].any()
