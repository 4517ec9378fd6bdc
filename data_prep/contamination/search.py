"""The search of a contamination check over training texts of any number, in chunks and worker processes."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from data_prep.contamination.index import IntArray, WindowIndex, find_matches
from data_prep.contamination.texts import Numbering, Text, TrainingText
from megatron_agent.processes import map_in_order

CHUNK_CHARACTERS = 16_000_000  # some 4 million tokens; whatever the number of workers, so that results are the same
CHARACTERS_PER_ID = 4


@dataclass
class SearchResult:
    """What the training texts hold, and how many there were, counted as far as they were compared."""

    record: IntArray
    """`[windows]`: for each window of the index a training conversation that matches it, -1 for none."""
    conversations: int = 0
    turns: int = 0
    tokens: int = 0


@dataclass(frozen=True)
class ChunkMatches:
    """What a chunk holds: the windows found, for each the number of a text of the chunk, and the tokens searched."""

    windows: IntArray
    texts: IntArray
    tokens: int


def search_training(
    index: WindowIndex, numbering: Numbering, texts: Iterable[TrainingText], workers: int
) -> SearchResult:
    """Search training texts for every window of `index`; the result does not depend on the number of workers.

    Holds two chunks of text a worker at a time. Raises `UserError` when a worker process was killed.
    """
    from tqdm import tqdm

    result = SearchResult(np.full(len(index.starts), -1, np.int64))
    last_record = -1
    with tqdm(desc="searching", unit=" tokens", unit_scale=True) as bar:
        for records, found in searched_chunks(index, numbering, chunks(texts), workers):
            new = result.record[found.windows] < 0
            result.record[found.windows[new]] = records[found.texts[new]]
            result.turns += len(records)
            result.tokens += found.tokens
            result.conversations += int(np.count_nonzero(np.diff(records, prepend=last_record)))
            last_record = records[-1]
            bar.update(found.tokens)
    return result


def chunks(texts: Iterable[TrainingText]) -> Iterator[list[TrainingText]]:
    """Cut a stream of texts into chunks of some `CHUNK_CHARACTERS`."""
    chunk: list[TrainingText] = []
    characters = 0
    for text in texts:
        chunk.append(text)
        characters += len(text.text) * (1 if isinstance(text.text, str) else CHARACTERS_PER_ID)
        if characters >= CHUNK_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def searched_chunks(
    index: WindowIndex, numbering: Numbering, chunks: Iterator[list[TrainingText]], workers: int
) -> Iterator[tuple[IntArray, ChunkMatches]]:
    """Yield, in order, the record of each text of a chunk and what the chunk holds."""
    records: deque[IntArray] = deque()

    def texts() -> Iterator[list[Text]]:
        for chunk in chunks:
            records.append(record_numbers(chunk))
            yield [text.text for text in chunk]

    for found in map_in_order(search_chunk_in_worker, texts(), workers, start_worker, (index, numbering)):
        yield records.popleft(), found


def record_numbers(chunk: Sequence[TrainingText]) -> IntArray:
    """The conversation each text belongs to."""
    return np.array([text.record for text in chunk], np.int64)


def search_chunk(index: WindowIndex, numbering: Numbering, texts: Sequence[Text]) -> ChunkMatches:
    """Search the texts of one chunk."""
    numbered = numbering.number(texts)
    windows, places = find_matches(index, numbered)
    ends = np.cumsum([len(text) for text in numbered])
    return ChunkMatches(windows, np.searchsorted(ends, places, "right"), int(ends[-1]))


_worker: list[tuple[WindowIndex, Numbering]] = []


def start_worker(index: WindowIndex, numbering: Numbering) -> None:
    """Keep what every chunk needs in this worker process."""
    _worker[:] = [(index, numbering)]


def search_chunk_in_worker(texts: Sequence[Text]) -> ChunkMatches:
    """`search_chunk` with this worker process's index."""
    return search_chunk(*_worker[0], texts)
