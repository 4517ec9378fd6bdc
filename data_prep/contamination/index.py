"""Exact search for n-grams of test items in training tokens, some positions of an n-gram being allowed to differ.

Two windows of `ngram` tokens differ in at most `mismatches` positions exactly when they agree on all positions of at
least one subset of `ngram - mismatches` positions: 210 subsets for the paper's 10 and 4. For each subset the test
windows become keys (a hash of the tokens at these positions), and every training window is looked up in a bit table of
them; what passes is compared token by token. So nothing is missed, nothing false is reported, and the work grows
with the training tokens times the subsets, not with test windows times training windows.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from megatron_agent.errors import UserError

IntArray = npt.NDArray[np.int64]
Tokens = npt.NDArray[np.int32]
Keys = npt.NDArray[np.uint32]

MAX_SUBSETS = 5_000  # 24 times the paper's 210; the search takes that many times as long
MAX_HASHES = 10 << 22  # of the tokens of training windows searched at once: 168 MB
BITS_PER_KEY = 16  # of a bit table: it should stay in the processor's cache
BLOCK = 1 << 15  # windows hashed at once: a block stays in the processor's cache
NO_TOKEN = 0
"""Number of a training token that no test item holds; it matches nothing."""


@dataclass(frozen=True)
class WindowIndex:
    """The different windows of the test items, and where they stand.

    `tokens` `[n]` are the items' texts one after the other, numbered from 1 (see `NO_TOKEN`). `starts` `[windows]` is
    the first token of each different window. `occurrences` and `occurrence_window`, both `[m]`, say for each place
    where a window begins which window it is.
    """

    tokens: Tokens
    starts: IntArray
    occurrences: IntArray
    occurrence_window: IntArray
    ngram: int
    mismatches: int
    hashes: npt.NDArray[np.uint32]
    """`[ngram, vocabulary]`: a random number for each token at each position."""


def build_index(texts: Sequence[Tokens], ngram: int, mismatches: int) -> WindowIndex:
    """Return the index of the windows of `texts`, whose tokens are numbered from 1. No window spans two texts."""
    check_definition(ngram, mismatches)
    tokens = np.concatenate([*texts, np.zeros(0, np.int32)]).astype(np.int32)
    occurrences = window_starts([len(text) for text in texts], ngram)
    windows = np.ascontiguousarray(tokens[occurrences[:, None] + np.arange(ngram)])
    rows = windows.view(np.dtype((np.void, windows.dtype.itemsize * ngram))).ravel()
    _, first, occurrence_window = np.unique(rows, return_index=True, return_inverse=True)
    vocabulary = int(tokens.max(initial=0)) + 1
    hashes = np.random.default_rng(0).integers(0, 1 << 32, (ngram, vocabulary), dtype=np.uint32)
    return WindowIndex(
        tokens, occurrences[first], occurrences, occurrence_window.astype(np.int64), ngram, mismatches, hashes
    )


def check_definition(ngram: int, mismatches: int) -> None:
    """Raise `UserError` for lengths of n-grams and numbers of mismatches that cannot be searched."""
    if ngram < 1:
        raise UserError(f"--ngram {ngram}: expected at least 1 token")
    if not 0 <= mismatches < ngram:
        raise UserError(f"--mismatches {mismatches}: expected 0 to {ngram - 1}, fewer than the --ngram {ngram} tokens")
    if math.comb(ngram, mismatches) > MAX_SUBSETS:
        raise UserError(
            f"--ngram {ngram} --mismatches {mismatches}: {math.comb(ngram, mismatches):,} ways to place the "
            f"mismatches, at most {MAX_SUBSETS:,} can be searched (10 and 4 have 210); lower one of them"
        )


def window_starts(lengths: Sequence[int] | IntArray, ngram: int) -> IntArray:
    """Return where a window of `ngram` tokens begins in texts laid end to end, without crossing a border."""
    ends = np.cumsum(np.asarray(lengths, np.int64))
    total = int(ends[-1]) if len(ends) else 0
    end_of_text = np.repeat(ends, lengths)
    return np.flatnonzero(np.arange(total) + ngram <= end_of_text)


def covered_tokens(index: WindowIndex, found: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return for each token of the index whether it lies inside one of the `found` `[windows]`."""
    steps = np.zeros(len(index.tokens) + 1, np.int64)
    starts = index.occurrences[found[index.occurrence_window]]
    np.add.at(steps, starts, 1)
    np.add.at(steps, starts + index.ngram, -1)
    return np.cumsum(steps[:-1]) > 0


def find_matches(index: WindowIndex, texts: Sequence[Tokens]) -> tuple[IntArray, IntArray]:
    """Search training texts for every window of the index.

    Returns `(windows, places)`: the windows that match, ascending, and for each one place where it does: the
    first token, counted over `texts` laid end to end. No match spans two texts. Tokens are numbered as in the index;
    numbers that it does not hold match nothing.
    """
    tokens = np.concatenate([*texts, np.zeros(0, np.int32)]).astype(np.int32)
    tokens[tokens >= index.hashes.shape[1]] = NO_TOKEN
    starts = window_starts([len(text) for text in texts], index.ngram)
    known = np.concatenate([[0], np.cumsum(tokens != NO_TOKEN)])
    starts = starts[known[starts + index.ngram] - known[starts] >= index.ngram - index.mismatches]
    match = np.full(len(index.starts), -1, np.int64)
    at_once = max(MAX_HASHES // index.ngram, 1)
    for first in range(0, len(starts), at_once):
        _search(index, match, tokens, _different(index, tokens, starts[first : first + at_once]))
    windows = np.flatnonzero(match >= 0)
    return windows, match[windows]


def _different(index: WindowIndex, tokens: Tokens, starts: IntArray) -> IntArray:
    """Leave out windows that repeat an earlier one (instructions stand in thousands of records), ascending."""
    order = _sort_with_positions(_keys(_hash_rows(index, tokens, starts), range(index.ngram)))[1]
    ordered = starts[order]
    repeats = np.ones(max(len(order) - 1, 0), np.bool_)
    for offset in range(index.ngram):  # equal hashes alone would not do
        column = tokens[ordered + offset]
        repeats &= column[1:] == column[:-1]
    keep = np.ones(len(starts), np.bool_)
    keep[order[1:][repeats]] = False
    return starts[keep]


def _search(index: WindowIndex, match: IntArray, tokens: Tokens, starts: IntArray) -> None:
    """Fill in `match` `[windows]`, where it is still -1, with starts in `tokens` of matching training windows."""
    positions = range(index.ngram)
    train_hashes = _hash_rows(index, tokens, starts)
    open_windows = np.flatnonzero(match < 0)
    test_hashes = _hash_rows(index, index.tokens, index.starts[open_windows])
    whole = [tuple(positions)] if index.mismatches else []  # equal windows first: they are most of all matches
    for subset in [*whole, *combinations(positions, index.ngram - index.mismatches)]:
        if np.count_nonzero(match[open_windows] < 0) < 0.9 * len(open_windows):
            still_open = match[open_windows] < 0
            open_windows, test_hashes = open_windows[still_open], np.ascontiguousarray(test_hashes[:, still_open])
        if not len(open_windows):
            return
        keys = _keys(test_hashes, subset)
        candidates, candidate_keys = _candidates(keys, train_hashes, subset)
        asked_for = np.flatnonzero(_look_up(_bit_table(candidate_keys), keys))  # spares sorting all keys
        sorted_keys, order = _sort_with_positions(keys[asked_for])
        while len(candidates):
            # One candidate stands for all of its key, so that a phrase in every record is compared once.
            different, first, group = np.unique(candidate_keys, return_index=True, return_inverse=True)
            low = np.searchsorted(sorted_keys, different, "left")
            counts = np.searchsorted(sorted_keys, different, "right") - low
            test = open_windows[asked_for[order[_ranges(low, counts)]]]
            train = starts[np.repeat(candidates[first], counts)]
            equal = _agree(subset, index.tokens, index.starts[test], tokens, train)
            equal &= match[test] < 0
            match[test[equal]] = train[equal]
            # Candidates of the same key but other tokens get a turn of their own.
            same = _agree(subset, tokens, starts[candidates], tokens, starts[candidates[first]][group])
            candidates, candidate_keys = candidates[~same], candidate_keys[~same]


def _candidates(keys: Keys, train_hashes: npt.NDArray[np.uint32], subset: Sequence[int]) -> tuple[IntArray, Keys]:
    """Return the training windows, ascending, whose key may be among `keys`, and their keys.

    A bit table of the keys passes 3 to 6 % of the others; a second one, on other bits of the hash, is for what passed.
    """
    first, second = _bit_table(keys), _bit_table(_mix(keys))
    found, found_keys = [], []
    for start in range(0, train_hashes.shape[1], BLOCK):
        key = _keys(train_hashes[:, start : start + BLOCK], subset)
        hits = np.flatnonzero(_look_up(first, key))
        key = key[hits]
        passed = _look_up(second, _mix(key))
        found.append(hits[passed] + start)
        found_keys.append(key[passed])
    none = np.zeros(0, np.int64)
    return np.concatenate([none, *found]), np.concatenate([none.astype(np.uint32), *found_keys])


def _bit_table(keys: Keys) -> npt.NDArray[np.uint8]:
    """Return a table of 2^n bytes in which the bits of `keys` are set, `BITS_PER_KEY` to twice as many bits a key."""
    bits = min(max(math.ceil(math.log2(max(len(keys), 1) * BITS_PER_KEY)), 13), 27)
    table = np.zeros(1 << bits, np.bool_)
    # the upper bits of a key choose the byte, the lowest three the bit
    table[(keys >> np.uint32(35 - bits) << np.uint32(3)) | (keys & np.uint32(7))] = True
    return np.packbits(table, bitorder="little")


def _look_up(table: npt.NDArray[np.uint8], keys: Keys) -> npt.NDArray[np.bool_]:
    """Return whether the bit of each key is set in a bit table."""
    bits = len(table).bit_length() + 2
    # mode="clip" spares the check of the bounds; no index is beyond them
    byte = table.take(keys >> np.uint32(35 - bits), mode="clip")
    byte >>= keys.astype(np.uint8) & np.uint8(7)
    byte &= np.uint8(1)
    return byte.view(np.bool_)


def _mix(keys: Keys) -> Keys:
    """Other bits of the same hash: a multiplication (Knuth's golden ratio), its upper half brought down too."""
    mixed = keys * np.uint32(0x9E3779B1)
    return mixed ^ (mixed >> np.uint32(15))


def _hash_rows(index: WindowIndex, tokens: Tokens, starts: IntArray) -> npt.NDArray[np.uint32]:
    """Return the hash of each window's token at each position, `[ngram, windows]`."""
    rows = np.empty((index.ngram, len(starts)), np.uint32)
    for offset in range(index.ngram):
        rows[offset] = index.hashes[offset].take(tokens[starts + offset])
    return rows


def _keys(rows: npt.NDArray[np.uint32], subset: Sequence[int]) -> Keys:
    """Return the hash of each window's tokens at the positions `subset`, `[windows]`."""
    key = rows[subset[0]].copy()
    for offset in subset[1:]:
        key ^= rows[offset]
    return key


def _sort_with_positions(keys: Keys) -> tuple[Keys, IntArray]:
    """Return the sorted keys and the position each had; positions ascend among equal keys."""
    packed = np.sort((keys.astype(np.uint64) << np.uint64(32)) | np.arange(len(keys), dtype=np.uint64))
    return (packed >> np.uint64(32)).astype(np.uint32), (packed & np.uint64(0xFFFFFFFF)).astype(np.int64)


def _ranges(low: IntArray, counts: IntArray) -> IntArray:
    """Return `low[0], low[0] + 1, ...` (`counts[0]` numbers), then the same for `low[1]`, and so on."""
    before = np.cumsum(counts) - counts
    return np.arange(int(counts.sum())) + np.repeat(low - before, counts)


def _agree(
    subset: Sequence[int], tokens: Tokens, starts: IntArray, other_tokens: Tokens, other_starts: IntArray
) -> npt.NDArray[np.bool_]:
    """Whether pairs of windows have the same tokens at the positions `subset`, `[pairs]`."""
    equal = np.ones(len(starts), np.bool_)
    for offset in subset:
        equal &= tokens[starts + offset] == other_tokens[other_starts + offset]
    return equal
