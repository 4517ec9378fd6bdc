"""Packed rows against the documents they are made of."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from megatron_agent.dataset.config import DataConfig, SourceConfig
from megatron_agent.dataset.indexed import ConversationDataset
from megatron_agent.dataset.rows import PackedRow, PackedRows, build_row
from megatron_agent.errors import UserError


@pytest.fixture
def config(make_dataset: Callable[..., str]) -> DataConfig:
    return DataConfig(
        agent=[SourceConfig(make_dataset("agent", 40))],
        general=[SourceConfig(make_dataset("good", 60), 0.2), SourceConfig(make_dataset("many", 200), 0.8)],
        eta=0.3,
        seq_length=128,
        validation_fraction=0.1,
    )


def test_row_by_hand() -> None:
    one = (np.array([1, 10, 11, 2]), np.array([False, False, True, True]))
    two = (np.array([1, 20, 2]), np.array([False, True, False]))
    row = build_row([one, two], np.array([0, 3]), 9)
    assert row.tokens.tolist() == [1, 10, 11, 2, 1, 20, 2, 0, 0]
    assert row.labels.tolist() == [10, 11, 2, 0, 20, 2, 0, 0, 0]
    assert row.loss_mask.tolist() == [0, 1, 1, 0, 1, 0, 0, 0, 0]
    assert row.position_ids.tolist() == [0, 1, 2, 3, 0, 1, 2, 0, 1]
    assert row.cu_seqlens.tolist() == [0, 4, 7, 9]
    assert row.segment_sources.tolist() == [0, 3, -1]
    kinds = [row.tokens.dtype, row.labels.dtype, row.loss_mask.dtype, row.position_ids.dtype, row.cu_seqlens.dtype]
    assert kinds == [np.int64, np.int64, np.float32, np.int64, np.int32]


def test_full_row_has_no_padding_and_too_much_is_refused() -> None:
    piece = (np.array([1, 5, 2]), np.array([False, True, True]))
    row = build_row([piece, piece], np.array([1, 1]), 6)
    assert (row.cu_seqlens.tolist(), row.segment_sources.tolist()) == ([0, 3, 6], [1, 1])
    with pytest.raises(ValueError, match="do not fit"):
        build_row([piece, piece], np.array([1, 1]), 5)


def check_row(
    row: PackedRow, datasets: list[ConversationDataset], seq_length: int
) -> list[tuple[int, tuple[int, ...]]]:
    """Check a row against its own definition; return its conversations as (source, ids)."""
    assert row.cu_seqlens[0] == 0
    assert row.cu_seqlens[-1] == seq_length
    assert (np.diff(row.cu_seqlens) > 0).all()
    assert len(row.segment_sources) == len(row.cu_seqlens) - 1
    found = []
    for source, start, stop in zip(row.segment_sources, row.cu_seqlens, row.cu_seqlens[1:], strict=False):
        tokens, labels, mask = row.tokens[start:stop], row.labels[start:stop], row.loss_mask[start:stop]
        assert row.position_ids[start:stop].tolist() == list(range(stop - start))
        if source == -1:
            assert stop == seq_length
            assert not np.concatenate([tokens, labels, mask]).any()
            continue
        assert labels[:-1].tolist() == tokens[1:].tolist()
        assert (labels[-1], mask[-1]) == (0, 0)
        dataset = datasets[source]
        matches = [i for i in range(len(dataset)) if dataset.document(i)[0].tolist() == tokens.tolist()]
        trained = dataset.document(matches[0])[1]
        assert mask[:-1].tolist() == trained[1:].tolist()
        found.append((int(source), matches[0]))
    return found


def test_rows_are_the_planned_documents(config: DataConfig) -> None:
    rows = PackedRows(config, 100)
    assert (len(rows), rows.vocab_size, rows.tokenizer_sha256) == (100, 1000, "a" * 64)
    assert rows.source_names == ["agent", "good", "many"]
    trained = 0.0
    for number in range(100):
        row = rows.row(number)
        planned = list(zip(*(part.tolist() for part in rows.plan.row(number)), strict=True))
        assert check_row(row, rows.datasets, 128) == planned
        trained += row.loss_mask.sum()
    assert trained == rows.summary()["trained_tokens"]
    with pytest.raises(UserError, match="row 100 asked for, expected 0 to 99"):
        rows.row(100)


def test_lengths_of_rows_are_those_of_the_rows(config: DataConfig) -> None:
    rows = PackedRows(config, 20)
    built = [np.diff(row.cu_seqlens)[row.segment_sources >= 0] for row in map(rows.row, range(4, 9))]
    assert rows.lengths_of_rows(4, 9).tolist() == np.concatenate(built).tolist()
    assert rows.lengths_of_rows(20, 20).tolist() == []


def test_validation_rows_hold_what_training_never_sees(config: DataConfig) -> None:
    rows = PackedRows(config, 300)
    drawn = {(s, d) for number in range(300) for s, d in zip(*(p.tolist() for p in rows.plan.row(number)), strict=True)}
    sizes = {"agent": 4, "good": 6, "many": 20}
    for number, (name, size) in enumerate(sizes.items()):
        packed = rows.validation_rows(name)
        held_out = [pair for row in packed for pair in check_row(row, rows.datasets, 128)]
        assert sorted(document for _, document in held_out) == rows.validation_documents[name].tolist()
        assert (len(held_out), {source for source, _ in held_out}) == (size, {number})
        assert not drawn & set(held_out)
    assert len({d for s, d in drawn if s == 0}) == 36  # and everything else of the small source is used
    with pytest.raises(UserError, match="no source 'other', expected one of agent, good, many"):
        rows.validation_rows("other")
    other_eta = PackedRows(replace(config, eta=0.9), 10)
    assert all(np.array_equal(other_eta.validation_documents[n], rows.validation_documents[n]) for n in sizes)
    none = PackedRows(replace(config, validation_fraction=0.0), 10)
    assert none.validation_rows("agent") == []


def equal(one: PackedRow, two: PackedRow) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(two, name)) for name in vars(one))


def test_row_is_a_function_of_its_number(config: DataConfig, tmp_path: Path) -> None:
    short = PackedRows(config, 50)
    long = PackedRows(replace(config, verify=False, cache_dir=str(tmp_path / "plans")), 400)
    assert all(equal(short.row(number), long.row(number)) for number in reversed(range(50)))
    (cached,) = (tmp_path / "plans").iterdir()
    changed = cached.stat().st_mtime_ns
    again = PackedRows(replace(config, cache_dir=str(tmp_path / "plans")), 400)
    assert cached.stat().st_mtime_ns == changed  # read, not written
    assert all(equal(long.row(number), again.row(number)) for number in range(400))
    cached.write_bytes(cached.read_bytes()[:200])
    mended = PackedRows(replace(config, cache_dir=str(tmp_path / "plans")), 400)
    assert all(equal(long.row(number), mended.row(number)) for number in range(0, 400, 37))


def test_at_eta_gives_the_rows_of_that_configuration(config: DataConfig) -> None:
    for unit in ("conversation", "token"):
        start = replace(config, eta_per=unit)
        other, alone = PackedRows(start, 60).at_eta(0.8), PackedRows(replace(start, eta=0.8), 60)
        assert other.config == alone.config
        assert all(equal(other.row(number), alone.row(number)) for number in range(60))
    with pytest.raises(UserError, match=r"data\.eta must lie"):
        PackedRows(config, 10).at_eta(1.5)


def test_conversation_longer_than_a_row(config: DataConfig) -> None:
    with pytest.raises(UserError, match=r"source 'agent' .*conversation \d+ has \d+ tokens.*--seq-length 16"):
        PackedRows(replace(config, seq_length=16), 10)


@pytest.mark.parametrize(
    "difference",
    [{"tokenizer_sha256": "b" * 64}, {"vocab_size": 2000}, {"template": "chatml"}, {"system_prompt": "Be quick."}],
    ids=lambda d: next(iter(d)),
)
def test_sources_must_agree(
    config: DataConfig, make_dataset: Callable[..., str], difference: dict[str, object]
) -> None:
    other = SourceConfig(make_dataset("other", 10, **difference))
    with pytest.raises(UserError, match=f"'agent' .* and 'other' .* different {next(iter(difference))}"):
        PackedRows(replace(config, general=[*config.general, other]), 10)


def test_damaged_data_and_bad_values_are_refused_before_planning(config: DataConfig) -> None:
    with pytest.raises(UserError, match="at least one row"):
        PackedRows(config, 0)
    with pytest.raises(UserError, match=r"data\.eta"):
        PackedRows(replace(config, eta=2.0), 10)
    path = Path(config.general[1].prefix + ".bin")
    content = bytearray(path.read_bytes())
    content[100] ^= 4
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"many\.bin: expected sha256"):
        PackedRows(config, 10)
