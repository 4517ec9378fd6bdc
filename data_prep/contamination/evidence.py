"""Which training conversations an item matches, so that a user can look at them."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, groupby

import numpy as np

from data_prep.contamination.index import IntArray, WindowIndex, build_index, covered_tokens, find_matches
from data_prep.contamination.report import RecordEvidence
from data_prep.contamination.texts import Numbering, TestItem, TrainingText

CANDIDATES = 3


def candidate_records(windows: IntArray, record: IntArray) -> list[int]:
    """Return up to `CANDIDATES` training conversations, those that `record` `[all windows]` gives most of `windows`."""
    counts = Counter(record[windows][record[windows] >= 0].tolist())
    return sorted(counts, key=lambda number: (-counts[number], number))[:CANDIDATES]


def find_evidence(
    items: Mapping[int, TestItem],
    candidates: Mapping[int, Sequence[int]],
    texts: Iterable[TrainingText],
    numbering: Numbering,
    ngram: int,
    mismatches: int,
) -> dict[int, list[RecordEvidence]]:
    """Compare items, by number, with the whole of each of their candidate conversations, read again from `texts`.

    The conversation that covers most of an item comes first.
    """
    wanted: dict[int, list[int]] = defaultdict(list)
    for number in items:
        for record in candidates[number]:
            wanted[record].append(number)
    indexes = {n: build_index(numbering.number(item.texts), ngram, mismatches) for n, item in items.items()}
    evidence: dict[int, list[RecordEvidence]] = {number: [] for number in items}
    for record, turns in read_records_until(texts, max(wanted, default=-1)):
        for number in wanted.get(record, ()):
            evidence[number].append(compare(items[number], indexes[number], list(turns), numbering))
    for records in evidence.values():
        records.sort(key=lambda found: -found.share)  # stable: the earlier conversation first among equals
    return evidence


def read_records_until(texts: Iterable[TrainingText], last: int) -> Iterator[tuple[int, list[TrainingText]]]:
    """Yield the texts conversation by conversation, up to conversation `last`."""
    for record, turns in groupby(texts, key=lambda text: text.record):
        if record > last:
            return
        yield record, list(turns)


def compare(item: TestItem, index: WindowIndex, turns: Sequence[TrainingText], numbering: Numbering) -> RecordEvidence:
    """Compare one item with one training conversation."""
    numbered = numbering.number([turn.text for turn in turns])
    windows, places = find_matches(index, numbered)
    place_of = np.full(len(index.starts), -1, np.int64)
    place_of[windows] = places
    share = float(covered_tokens(index, place_of >= 0).mean())
    start, place, length = longest_run(index, place_of)
    ends = np.cumsum([len(text) for text in numbered])
    turn = turns[int(np.searchsorted(ends, place, "right"))]
    test_tokens: list[Hashable] = list(chain.from_iterable(numbering.tokens(item.texts)))
    training_tokens = list(chain.from_iterable(numbering.tokens([turn.text for turn in turns])))
    return RecordEvidence(
        turn.where,
        share,
        turn.turn,
        numbering.join(test_tokens[start : start + length]),
        numbering.join(training_tokens[place : place + length]),
    )


def longest_run(index: WindowIndex, place_of: IntArray) -> tuple[int, int, int]:
    """Return the longest stretch of matches side by side: start in the item, start in the training texts, tokens."""
    places = place_of[index.occurrence_window]
    starts, places = index.occurrences[places >= 0], places[places >= 0]
    breaks = np.flatnonzero((np.diff(starts) != 1) | (np.diff(places) != 1)) + 1
    borders = np.concatenate([[0], breaks, [len(starts)]])
    longest = int(np.argmax(np.diff(borders)))
    first, end = borders[longest], borders[longest + 1]
    return int(starts[first]), int(places[first]), int(end - first) + index.ngram - 1
