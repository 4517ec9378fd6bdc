"""Packing: nothing lost, nothing doubled, full rows, an order without a trace of length."""

from collections.abc import Iterator
from itertools import islice

import numpy as np
import pytest

from megatron_agent.dataset.packing import best_fit, pack_stream


def sharegpt_like_lengths(generator: np.random.Generator, count: int) -> np.ndarray:
    """Lengths with the quantiles of real ShareGPT (10%: 362, 25%: 799, 50%: 1807, 75%: 2400, 90%: 2720, 99%: 3275)."""
    quantiles = [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0]
    return np.interp(generator.random(count), quantiles, [6, 362, 799, 1807, 2400, 2720, 3275, 4096]).astype(np.int64)


def chunks_of(lengths: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (lengths[start : start + size] for start in range(0, len(lengths), size))


@pytest.mark.parametrize("seed", range(20))
def test_best_fit_places_everything_once_and_leaves_no_row_that_could_take_more(seed: int) -> None:
    generator = np.random.default_rng(seed)
    seq_length = int(generator.integers(2, 300))
    lengths = generator.integers(1, seq_length + 1, int(generator.integers(1, 400))).tolist()
    rows = best_fit(lengths, seq_length)
    assert sorted(item for row in rows for item in row) == list(range(len(lengths)))
    placed: set[int] = set()
    for row in rows:
        total = sum(lengths[item] for item in row)
        assert total <= seq_length
        assert row[0] == min(set(range(len(lengths))) - placed)  # opened by the earliest that was waiting
        placed.update(row)
        waiting = [lengths[item] for item in range(len(lengths)) if item not in placed]
        assert not waiting or min(waiting) > seq_length - total


def test_best_fit_by_hand() -> None:
    assert best_fit([5, 3, 7, 5, 2, 10, 1], 10) == [[0, 3], [1, 2], [4, 6], [5]]
    assert best_fit([4, 4, 4, 4], 8) == [[0, 1], [2, 3]]  # equals in order of arrival
    assert best_fit([], 8) == []


def test_stream_is_complete_block_by_block() -> None:
    lengths = sharegpt_like_lengths(np.random.default_rng(0), 4000)
    seen = 0
    for block in islice(pack_stream(chunks_of(lengths, 100), 4096, 0), 4):
        positions = np.sort(np.concatenate(block))
        assert np.array_equal(positions, np.arange(seen, seen + len(positions)))  # this block's draws, each once
        assert all(lengths[row].sum() <= 4096 for row in block)
        seen += len(positions)


def test_rows_do_not_depend_on_how_the_stream_is_chunked() -> None:
    lengths = sharegpt_like_lengths(np.random.default_rng(1), 3000)
    one = list(islice(pack_stream(chunks_of(lengths, 1), 4096, 7), 3))
    other = list(islice(pack_stream(chunks_of(lengths, 777), 4096, 7), 3))
    assert [[row.tolist() for row in block] for block in one] == [[row.tolist() for row in block] for block in other]


def test_fill_on_sharegpt_like_lengths_and_order_without_trace_of_length() -> None:
    lengths = sharegpt_like_lengths(np.random.default_rng(2), 40_000)
    rows: list[np.ndarray] = []
    blocks = pack_stream(chunks_of(lengths, 8192), 4096, 3)
    while len(rows) < 12_800:
        rows.extend(next(blocks))
    fill = np.array([lengths[row].sum() for row in rows]) / 4096
    assert fill.mean() > 0.99
    counts = np.array([len(row) for row in rows], dtype=float)
    assert abs(np.corrcoef(counts[:-1], counts[1:])[0, 1]) < 0.05
    batches = counts[: len(counts) // 64 * 64].reshape(-1, 64).mean(axis=1)
    assert 0.8 < batches.std() / (counts.std() / 8) < 1.2  # as independent rows would vary


def test_rows_are_in_stream_order_inside() -> None:
    lengths = sharegpt_like_lengths(np.random.default_rng(5), 3000)
    for block in islice(pack_stream(chunks_of(lengths, 500), 4096, 1), 3):
        assert all((np.diff(row) > 0).all() for row in block)


def test_first_rows_prefer_no_length() -> None:
    """The mean length in the first batch is that of the stream: within 3 standard errors over 60 seeds."""
    means = []
    for seed in range(60):
        lengths = sharegpt_like_lengths(np.random.default_rng(seed), 400)
        block = next(pack_stream(iter([lengths]), 4096, seed))
        means.append(np.mean(np.concatenate([lengths[row] for row in block[:32]])))
    expected = sharegpt_like_lengths(np.random.default_rng(99), 200_000).mean()
    assert abs(np.mean(means) - expected) < 3 * np.std(means) / np.sqrt(len(means)) + 0.01 * expected
