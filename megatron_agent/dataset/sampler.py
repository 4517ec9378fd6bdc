"""Which rows a data-parallel rank reads at a step. The only state is the number of rows consumed so far."""


def rows_for_step(
    consumed_rows: int, micro_batch_size: int, dp_rank: int, dp_size: int, num_microbatches: int
) -> list[list[int]]:
    """Return the row numbers of one training step for one data-parallel rank, `[num_microbatches][micro_batch_size]`.

    The global batch is rows `consumed_rows` to `consumed_rows + micro_batch_size * dp_size * num_microbatches`, so
    it depends only on that product, not on how the three factors share it out; resuming needs one integer.
    """
    for name, value in (
        ("micro_batch_size", micro_batch_size),
        ("dp_size", dp_size),
        ("num_microbatches", num_microbatches),
    ):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if not 0 <= dp_rank < dp_size:
        raise ValueError(f"dp_rank must lie in [0, {dp_size}), got {dp_rank}")
    if consumed_rows < 0:
        raise ValueError(f"consumed_rows must not be negative, got {consumed_rows}")
    starts = [
        consumed_rows + (microbatch * dp_size + dp_rank) * micro_batch_size for microbatch in range(num_microbatches)
    ]
    return [list(range(start, start + micro_batch_size)) for start in starts]
