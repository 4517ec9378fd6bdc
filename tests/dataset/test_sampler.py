"""The sampler: one global batch, however it is shared out."""

import pytest

from megatron_agent.dataset.sampler import rows_for_step


@pytest.mark.parametrize(
    ("micro_batch_size", "num_microbatches", "dp_size"), [(4, 1, 1), (1, 4, 1), (2, 1, 2), (1, 2, 2), (1, 1, 4)]
)
def test_global_batch_does_not_depend_on_the_layout(micro_batch_size: int, num_microbatches: int, dp_size: int) -> None:
    for consumed in (0, 4, 400):
        shares = [rows_for_step(consumed, micro_batch_size, rank, dp_size, num_microbatches) for rank in range(dp_size)]
        assert all(len(share) == num_microbatches for share in shares)
        assert all(len(microbatch) == micro_batch_size for share in shares for microbatch in share)
        rows = sorted(row for share in shares for microbatch in share for row in microbatch)
        assert rows == list(range(consumed, consumed + 4))


def test_resume_with_another_layout_reads_each_row_once() -> None:
    seen = [row for step in range(3) for m in rows_for_step(8 * step, 2, 0, 1, 4) for row in m]
    for step in range(3, 6):
        seen += [row for rank in range(4) for m in rows_for_step(8 * step, 1, rank, 4, 2) for row in m]
    assert sorted(seen) == list(range(48))


@pytest.mark.parametrize(
    "arguments", [(0, 0, 0, 1, 1), (0, 1, 1, 1, 1), (0, 1, 0, 0, 1), (0, 1, 0, 1, 0), (-1, 1, 0, 1, 1)]
)
def test_impossible_arguments(arguments: tuple[int, int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="must"):
        rows_for_step(*arguments)
