"""The index of test windows finds what a slow implementation of its definition finds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.contamination import index as contamination_index
from data_prep.contamination.index import build_index, covered_tokens, find_matches
from tests.data_prep.contamination.brute_force import brute_force


def search(test: list[list[int]], training: list[list[int]], ngram: int, mismatches: int) -> list[bool]:
    """Flags of all test tokens as the index finds them; checks that each place named is a match inside one text."""
    known = max([token for text in test for token in text], default=0)
    numbered = [np.array([token if token <= known else 0 for token in text], np.int32) for text in training]
    index = build_index([np.array(text, np.int32) for text in test], ngram, mismatches)
    windows, places = find_matches(index, numbered)
    flat = [(token, number) for number, text in enumerate(training) for token in text]
    for window, place in zip(windows, places, strict=True):
        begin = index.starts[window]
        there = flat[place : place + ngram]
        assert len({number for _, number in there}) == 1
        assert sum(a != b for a, (b, _) in zip(index.tokens[begin : begin + ngram], there, strict=True)) <= mismatches
    found = np.zeros(len(index.starts), np.bool_)
    found[windows] = True
    return covered_tokens(index, found).tolist()


texts = st.lists(st.lists(st.integers(1, 4), max_size=24), min_size=1, max_size=4)


@settings(max_examples=150, deadline=None)
@given(texts, texts, st.integers(1, 10).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n - 1))))
def test_index_equals_brute_force(test: list[list[int]], training: list[list[int]], sizes: tuple[int, int]) -> None:
    expected = [flag for text in test for flag in brute_force(text, training, *sizes)]
    assert search(test, training, *sizes) == expected


@pytest.mark.parametrize("altered", range(6))
def test_planted_windows_at_borders(altered: int) -> None:
    """10 tokens with 0 to 4 altered are found wherever they stand, with 5 nowhere."""
    rng = np.random.default_rng(altered)
    for place in (0, 7, 20):  # first, inner and last window of item and of training text
        item = list(range(1, 31))
        piece = item[place : place + 10]
        for position in rng.choice(10, altered, replace=False):
            piece[position] = 900 + int(position)
        for before, after in ((0, 0), (5, 0), (0, 5), (3, 4)):
            training = [[99] * before + piece + [99] * after]
            flags = search([item], training, 10, 4)
            assert flags == brute_force(item, training, 10, 4)  # windows beside the piece may match as well
            assert all(flags[place : place + 10]) == any(flags) == (altered <= 4)


def test_matches_cross_no_border() -> None:
    item = list(range(1, 31))
    halves = [item[:9], item[9:18], item[18:27]]  # each is too short for a window of its own
    assert not any(search([item], halves, 10, 4))
    assert not any(search(halves, [item], 10, 4))
    assert all(search([item], [item[:9], item], 10, 4))


def test_random_texts_in_small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The result is that of brute force too when the search is cut into the smallest pieces."""
    rng = np.random.default_rng(3)
    draw = lambda length: np.minimum(rng.zipf(1.3, length), 60).tolist()  # noqa: E731
    test, training = [draw(60) for _ in range(5)], [draw(n) for n in (3, 200, 10, 150)]
    expected = [flag for text in test for flag in brute_force(text, training, 10, 4)]
    assert 0 < sum(expected) < len(expected)
    assert search(test, training, 10, 4) == expected
    monkeypatch.setattr(contamination_index, "BLOCK", 7)
    monkeypatch.setattr(contamination_index, "MAX_HASHES", 110)
    assert search(test, training, 10, 4) == expected


def test_hash_collisions_lose_nothing() -> None:
    """With hashes that are all alike, every comparison falls to the tokens themselves."""
    rng = np.random.default_rng(4)
    test = [rng.integers(1, 9, 60).tolist()]
    training = [rng.integers(1, 9, 20).tolist() for _ in range(3)]
    index = build_index([np.array(text, np.int32) for text in test], 6, 2)
    index.hashes[:] = 0
    windows, _ = find_matches(index, [np.array(text, np.int32) for text in training])
    found = np.zeros(len(index.starts), np.bool_)
    found[windows] = True
    expected = brute_force(test[0], training, 6, 2)
    assert 0 < sum(expected) < len(expected)
    assert covered_tokens(index, found).tolist() == expected
