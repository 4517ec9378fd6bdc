"""Draws, passes, held-out split and plan: shares against published counts, prefix stability, the cache."""

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from megatron_agent.dataset.config import DataConfig, SourceConfig
from megatron_agent.dataset.draws import (
    DrawSource,
    draw_conversations,
    draw_probabilities,
    draws_for_token_shares,
    permutation,
    random_bits,
    split_documents,
)
from megatron_agent.dataset.indexed import ConversationDataset
from megatron_agent.dataset.plan import Plan, load_plan, make_plan, plan_key, save_plan
from megatron_agent.dataset.summary import summarize
from megatron_agent.errors import UserError

# AgentInstruct, ShareGPT GPT-4, ShareGPT GPT-3.5: the counts the AgentTuning authors publish
PUBLISHED = [
    DrawSource("agentinstruct", "agent", 1.0, np.arange(1866)),
    DrawSource("gpt4", "general", 0.2, np.arange(3670)),
    DrawSource("gpt35", "general", 0.8, np.arange(57096)),
]
ROWS_OF_THE_PAPER = 2000 * 64


def draws(sources: list[DrawSource], eta: float, seed: int, chunks: int) -> tuple[np.ndarray, np.ndarray]:
    pairs = list(islice(draw_conversations(sources, eta, seed), chunks))
    return np.concatenate([source for source, _ in pairs]), np.concatenate([document for _, document in pairs])


def test_random_bits_are_pinned() -> None:
    """A resume on another machine or NumPy version must draw the same rows."""
    assert random_bits(1234, "draws").random_raw(2).tolist() == [2547693692005656540, 14100928726501035052]
    assert permutation(8, 1234, "pass", 0, "x").tolist() == [7, 3, 4, 6, 1, 2, 5, 0]


def test_one_conversation_a_row_gives_the_authors_passes() -> None:
    """Issue 52 of THUDM/AgentTuning: 2000 * 64 rows at eta 0.2 are 13.72, 5.58 and 1.44 passes when nothing packs."""
    lengths = [np.full(len(source.documents), 4096) for source in PUBLISHED]
    plan = make_plan(PUBLISHED, lengths, 0.2, 4096, 1234, ROWS_OF_THE_PAPER)
    summary = summarize(plan, PUBLISHED, 0.2, lengths, lengths, 4096)
    assert (summary["fill"], summary["conversations_per_row"]) == (1.0, 1.0)
    for source, passes in zip(summary["sources"].values(), (13.72, 5.58, 1.44), strict=True):
        assert source["passes"] == pytest.approx(passes, rel=0.02)
        assert source["paper_passes"] == pytest.approx(passes, abs=0.006)  # issue 52 divides by 57,069, not 57,096


def test_packing_makes_more_passes_with_the_same_shares() -> None:
    generator = np.random.default_rng(0)
    lengths = [
        np.minimum(generator.lognormal(6.5, 0.9, len(s.documents)).astype(np.int64) + 20, 4096) for s in PUBLISHED
    ]
    trained = [length // 2 for length in lengths]
    plan = make_plan(PUBLISHED, lengths, 0.2, 4096, 1234, 20_000)
    summary = summarize(plan, PUBLISHED, 0.2, lengths, trained, 4096)
    expected = {"agentinstruct": 0.2, "gpt4": 0.16, "gpt35": 0.64}
    for name, share in expected.items():
        source = summary["sources"][name]
        assert source["expected_conversation_share"] == pytest.approx(share)
        deviation = np.sqrt(share * (1 - share) / summary["conversations"])
        assert abs(source["conversation_share"] - share) < 4 * deviation
        assert source["passes"] > 20_000 * share / {"agentinstruct": 1866, "gpt4": 3670, "gpt35": 57096}[name]
    for kind in ("conversation_share", "token_share", "trained_token_share"):
        assert sum(source[kind] for source in summary["sources"].values()) == pytest.approx(1.0)
    assert summary["fill"] > 0.99


def test_draws_for_token_shares_by_hand() -> None:
    """Mean lengths 10, 20 and 40 (conversations outside of `documents` do not count): eta 0.5, weights 1 and 3."""
    sources = [
        DrawSource("a", "agent", 1.0, np.array([0, 1])),
        DrawSource("g", "general", 1.0, np.array([1, 2])),
        DrawSource("h", "general", 3.0, np.array([0])),
    ]
    lengths = [np.array([5, 15, 999]), np.array([999, 10, 30]), np.array([40])]
    weighted, eta = draws_for_token_shares(sources, lengths, 0.5)
    # tokens 0.5, 0.125, 0.375 -> draws in proportion 0.05, 0.00625, 0.009375
    expected = np.array([0.05, 0.00625, 0.009375])
    assert draw_probabilities(weighted, eta) == pytest.approx(expected / expected.sum())
    assert [draws_for_token_shares(sources, lengths, end)[1] for end in (0.0, 1.0)] == [0.0, 1.0]
    assert draws_for_token_shares(sources[:1], lengths[:1], 1.0)[1] == 1.0
    assert draws_for_token_shares(sources[1:], lengths[1:], 0.0)[1] == 0.0


def test_repeats_and_runs_against_a_slow_count() -> None:
    generator = np.random.default_rng(8)
    sizes = [20, 60, 200]
    sources = [
        DrawSource(name, group, 1.0, np.arange(size))
        for name, group, size in zip("agh", ("agent", "general", "general"), sizes, strict=True)
    ]
    lengths = [generator.integers(5, 120, size) for size in sizes]
    plan = make_plan(sources, lengths, 0.6, 128, 3, 300)
    summary = summarize(plan, sources, 0.6, lengths, [length // 2 for length in lengths], 128)
    rows = [list(zip(*(part.tolist() for part in plan.row(number)), strict=True)) for number in range(300)]
    drawn = [pair for row in rows for pair in row]
    for number, source in enumerate(summary["sources"].values()):
        assert source["most_repeats"] == max(drawn.count((number, document)) for document in range(sizes[number]))
        run = longest = 0
        for other, _ in drawn:
            run = run + 1 if other == number else 0
            longest = max(longest, run)
        assert source["longest_run"] == longest
        run = longest = 0
        for row in rows:
            run = run + 1 if {other for other, _ in row} == {number} else 0
            longest = max(longest, run)
        assert source["longest_run_rows"] == longest
        assert source["tokens"] == sum(lengths[s][d] for s, d in drawn if s == number)
        assert source["trained_tokens"] == sum(lengths[s][d] // 2 for s, d in drawn if s == number)
        assert source["paper_passes"] == pytest.approx(300 * [0.6, 0.2, 0.2][number] / sizes[number])
    histogram = summary["rows_by_conversations"]
    assert histogram == [sum(len(row) == n for row in rows) for n in range(len(histogram))]
    assert summary["most_conversations_in_a_row"] == len(histogram) - 1


@pytest.mark.parametrize(("eta", "used"), [(0.0, {1, 2}), (1.0, {0})])
def test_ends_of_eta_are_exact(eta: float, used: set[int]) -> None:
    source, _ = draws(PUBLISHED, eta, 5, 2)
    assert set(source.tolist()) == used


@pytest.mark.parametrize("size", [1, 2, 7, 100, 5000])
def test_every_pass_holds_every_conversation_once(size: int) -> None:
    documents = np.arange(size) * 3 + 1  # not 0..n-1: the numbers of the training part
    sources = [DrawSource("a", "agent", 1.0, documents), DrawSource("g", "general", 1.0, np.arange(50))]
    source, document = draws(sources, 0.7, 11, 1 if size < 5000 else 3)
    walked = document[source == 0]
    passes = [walked[start : start + size] for start in range(0, len(walked) - size + 1, size)]
    assert len(passes) >= 3
    for k, one in enumerate(passes[:20]):
        assert np.array_equal(np.sort(one), documents)
        assert np.array_equal(one, documents[permutation(size, 11, "pass", k, "a")])
    if size >= 7:
        assert not np.array_equal(passes[0], passes[1])


def test_order_of_a_source_does_not_depend_on_eta_or_company() -> None:
    _, alone = draws([PUBLISHED[0]], 1.0, 3, 1)
    source, mixed = draws(PUBLISHED, 0.3, 3, 3)
    walked = mixed[source == 0]
    assert np.array_equal(walked, alone[: len(walked)])
    source_again, _ = draws(PUBLISHED, 0.4, 3, 3)
    assert np.array_equal(source == 0, (source == 0) & (source_again == 0))  # a larger eta only adds agent draws


def test_split_is_fixed_by_seed_and_name() -> None:
    training, held_out = split_documents(1000, 0.01, 7, "a")
    assert (len(training), len(held_out)) == (990, 10)
    assert np.array_equal(np.sort(np.concatenate([training, held_out])), np.arange(1000))
    assert np.array_equal(split_documents(1000, 0.01, 7, "a")[1], held_out)
    assert not np.array_equal(split_documents(1000, 0.01, 7, "b")[1], held_out)
    assert not np.array_equal(split_documents(1000, 0.01, 8, "a")[1], held_out)
    assert [len(part) for part in split_documents(20, 0.01, 7, "a")] == [19, 1]  # at least one
    assert [len(part) for part in split_documents(20, 0.0, 7, "a")] == [20, 0]
    with pytest.raises(UserError, match="leaves none to train on"):
        split_documents(1, 0.01, 7, "a")


def test_longer_plans_keep_the_earlier_rows() -> None:
    generator = np.random.default_rng(4)
    lengths = [generator.integers(5, 900, len(source.documents)) for source in PUBLISHED]
    longest = make_plan(PUBLISHED, lengths, 0.2, 1024, 9, 3000)
    for rows in (1, 63, 64, 65, 500, 2999):
        plan = make_plan(PUBLISHED, lengths, 0.2, 1024, 9, rows)
        assert len(plan) == rows
        for mine, theirs in ((plan.sources, longest.sources), (plan.documents, longest.documents)):
            assert np.array_equal(mine, theirs[: len(mine)])
        assert np.array_equal(plan.offsets, longest.offsets[: rows + 1])
    other_seed = make_plan(PUBLISHED, lengths, 0.2, 1024, 10, 63)
    assert not np.array_equal(other_seed.documents[:50], longest.documents[:50])


def test_plan_key_covers_everything(make_dataset: Callable[..., str]) -> None:
    prefixes = {name: make_dataset(name, 30) for name in ("a", "g", "h")}
    config = DataConfig(
        agent=[SourceConfig(prefixes["a"])], general=[SourceConfig(prefixes["g"]), SourceConfig(prefixes["h"])]
    )

    def key(config: DataConfig, rows: int = 10) -> str:
        return plan_key(config, [ConversationDataset(source.prefix) for source in config.sources()], rows)

    renamed = replace(config.agent[0], name="b")
    heavier = replace(config.general[0], weight=2.0)
    other_data = replace(config.general[1], prefix=prefixes["g"])
    variants = [
        key(config),
        key(config, 11),
        *(key(replace(config, **c)) for c in ({"eta": 0.3}, {"eta_per": "token"}, {"seed": 1}, {"seq_length": 64})),
        key(replace(config, validation_fraction=0.1)),
        key(replace(config, agent=[renamed])),
        key(replace(config, general=[heavier, config.general[1]])),
        key(replace(config, general=[config.general[0], other_data])),
        key(replace(config, agent=[config.agent[0], config.general[0]], general=[config.general[1]])),
    ]
    assert len(set(variants)) == len(variants)
    assert key(replace(config, cache_dir="elsewhere", verify=False)) == key(config)


def test_cache_round_trip_and_damage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plan = Plan(np.array([0, 2, 3]), np.array([0, 1, 0]), np.array([5, 6, 7]))
    path = tmp_path / "plan.npz"
    assert load_plan(path, "k") is None
    save_plan(path, plan, "k")
    loaded = load_plan(path, "k")
    assert loaded is not None
    assert [loaded.row(1)[0].tolist(), loaded.row(1)[1].tolist(), len(loaded)] == [[0], [7], 2]
    assert not caplog.records
    content = path.read_bytes()
    assert load_plan(path, "another key") is None
    flipped = bytearray(content)
    flipped[content.index(np.int64(5).tobytes() + np.int64(6).tobytes())] ^= 1  # one document number
    for damaged in (content[:-1], content[:100], b"", bytes(flipped)):
        caplog.clear()
        path.write_bytes(damaged)
        assert load_plan(path, "k") is None
        assert "cached mixture plan is damaged" in caplog.text
