"""Llama's SentencePiece encoding through a cache of words: the same ids, several times as fast.

BPE merges neighbouring symbols into pieces of the vocabulary. Where no piece spans the border between two parts of a
text, no merge crosses it, and each part can be encoded on its own. In Llama-like vocabularies no piece has a blank
behind another character, none mixes letters with punctuation, and some characters (line feed, digits) occur in no
longer piece at all: a text falls into words of one of these kinds, of which most were seen before.

These facts are read off the vocabulary, not assumed; a model for which they do not hold is encoded by SentencePiece
alone. Cutting, looking up and joining are numpy's, over all texts of a batch at once.
"""

import re
import string
from collections.abc import Sequence
from itertools import chain, pairwise

import numpy as np
import numpy.typing as npt
from sentencepiece import SentencePieceProcessor

from megatron_agent.chat.word_table import WORD_BYTES, WordTable

IdArray = npt.NDArray[np.int32]
IntArray = npt.NDArray[np.int64]

BLANK = "\u2581"  # SentencePiece's written blank
SEPARATOR = "\n"
GROUP = 32  # words encoded as one text: one at a time costs calls, all at once a long merge queue
MOST_WORDS = 1 << 21  # in the cache: 250,000 are the words of 30 million tokens of ShareGPT
NORMAL, USER_DEFINED, UNUSED = 1, 4, 5  # piece types of sentencepiece_model.proto
BPE = 2

BLANKS, ALONE, MARKS, OTHER, NOT_ASCII = range(5)
"""Kinds of bytes. Bytes beyond ASCII stay with any letter or punctuation beside them."""


class WordCache:
    """Encodes batches of texts with one SentencePiece model, remembering the ids of every word."""

    def __init__(self, processor: SentencePieceProcessor, kinds: npt.NDArray[np.uint8]) -> None:
        self.processor = processor
        self.kinds = kinds
        self.head = processor.encode(SEPARATOR)  # a dummy blank and the separator
        self.borders = np.array(
            [[is_border(before, kind) for kind in range(5)] for before in range(5)], dtype=bool
        ).reshape(-1)
        self.clear()

    def clear(self) -> None:
        """Forget all words."""
        self.table = WordTable()
        self.long_words: dict[bytes, int] = {}
        self.ids = np.zeros(1 << 16, dtype=np.int32)
        """Ids of all words, one after the other; word `w` has those from `ends[w - 1]` to `ends[w]`."""
        self.ends = np.zeros(1, dtype=np.int64)

    def encode_batch(self, texts: Sequence[str]) -> list[IdArray]:
        """Return the ids of every text, as `processor.encode` gives them."""
        if len(self.ends) > MOST_WORDS:
            self.clear()
        # with the dummy blank; SentencePiece takes its written blank for a blank too
        encoded = [f" {text.replace(BLANK, ' ')}".encode() if text else b"" for text in texts]
        text_starts = np.cumsum([0, *map(len, encoded)])
        content = b"".join([*encoded, bytes(WORD_BYTES)])  # room to read a whole word at the last byte
        starts = self.cut(content, text_starts)
        words = self.number(content, starts, np.append(starts[1:], text_starts[-1]))
        ends = self.ends[words]
        counts = ends - self.ends[words - 1]
        borders = np.append(0, np.cumsum(counts))
        ids = self.ids[np.repeat(ends - borders[1:], counts) + np.arange(borders[-1])]
        text_borders = borders[np.searchsorted(starts, text_starts)].tolist()
        return [ids[start:end] for start, end in pairwise(text_borders)]

    def cut(self, content: bytes, text_starts: IntArray) -> IntArray:
        """Return where words begin, `[words]`; no word spans two texts."""
        kinds = self.kinds[np.frombuffer(content, np.uint8, text_starts[-1])]
        is_start = np.ones(len(kinds), dtype=bool)
        is_start[1:] = self.borders[kinds[:-1] * np.uint8(5) + kinds[1:]]
        is_start[text_starts[text_starts < len(kinds)]] = True
        return np.flatnonzero(is_start)

    def number(self, content: bytes, starts: IntArray, ends: IntArray) -> IntArray:
        """Return the numbers of words, `[words]`; new ones are encoded and numbered."""
        words = np.zeros(len(starts), dtype=np.int64)
        long = ends - starts > WORD_BYTES
        short = np.flatnonzero(~long)
        keys = self.table.keys(content, starts[short], ends[short])
        found = self.table.find(keys)
        new = np.flatnonzero(found < 0)
        if len(new):
            first, inverse = self.table.distinct(keys, new)
            at = short[first]
            numbers = self.add([content[start:end] for start, end in zip(starts[at], ends[at], strict=True)])
            self.table.insert(keys, first, numbers)
            found[new] = numbers[inverse]
        words[short] = found
        if long.any():
            at = np.flatnonzero(long)
            texts = [content[start:end] for start, end in zip(starts[at], ends[at], strict=True)]
            missing = list(set(texts).difference(self.long_words))
            self.long_words.update(zip(missing, self.add(missing).tolist(), strict=True))
            words[at] = [self.long_words[text] for text in texts]
        return words

    def add(self, words: list[bytes]) -> IntArray:
        """Encode new words, some at a time, behind separators that nothing merges with; return their numbers."""
        separator = SEPARATOR.encode()
        lines = [b"" if word == separator else word for word in words]  # the separator is its own first id
        groups = [separator.join([b"", *lines[at : at + GROUP]]).decode() for at in range(0, len(lines), GROUP)]
        skipped = len(self.head) - 1  # the dummy blank
        ids = np.array(
            list(chain.from_iterable(group[skipped:] for group in self.processor.encode(groups))), dtype=np.int32
        )
        is_separator = ids == self.head[-1]
        is_asked = np.array([word == separator for word in words], dtype=bool)  # the separator itself is asked for
        kept = ~is_separator
        kept[np.flatnonzero(is_separator)[is_asked]] = True
        counts = np.diff(np.append(np.flatnonzero(is_separator), len(ids))) - 1 + is_asked
        first, used = len(self.ends), int(self.ends[-1])
        ids = ids[kept]
        if used + len(ids) > len(self.ids):
            self.ids = np.concatenate([self.ids, np.zeros(len(self.ids) + len(ids), dtype=np.int32)])
        self.ids[used : used + len(ids)] = ids
        self.ends = np.append(self.ends, used + np.cumsum(counts))
        return np.arange(first, len(self.ends))


def is_border(before: int, kind: int) -> bool:
    """Whether a word begins at a byte of a kind, given the kind of the byte before it."""
    if ALONE in (before, kind):
        return True
    if BLANKS in (before, kind):
        return before != BLANKS  # a run of blanks begins the word behind it
    return {before, kind} == {MARKS, OTHER}


def word_cache(processor: SentencePieceProcessor) -> WordCache | None:
    """Return the cache for a model, None when its texts cannot be cut into words without changing ids."""
    from sentencepiece.sentencepiece_model_pb2 import ModelProto  # type: ignore[attr-defined]

    model = ModelProto.FromString(processor.serialized_model_proto())
    normalizer, trainer = model.normalizer_spec, model.trainer_spec
    longer = [piece.piece for piece in model.pieces if piece.type in (NORMAL, UNUSED) and len(piece.piece) > 1]
    in_longer = set().union(*longer)
    if (
        trainer.model_type != BPE
        or trainer.treat_whitespace_as_suffix
        or not trainer.byte_fallback  # unknown characters would be joined across words
        or normalizer.precompiled_charsmap
        or normalizer.remove_extra_whitespaces
        or not normalizer.add_dummy_prefix
        or not normalizer.escape_whitespaces
        or any(piece.type == USER_DEFINED for piece in model.pieces)  # matched before everything else
        or any(re.search(f"[^{BLANK}]{BLANK}", piece) for piece in longer)
        or not in_longer.isdisjoint((SEPARATOR, "\0"))  # NUL: keys of words are filled up with it
    ):
        return None
    marks = with_punctuation(longer)
    kinds = np.full(256, NOT_ASCII, dtype=np.uint8)
    for code in range(128):
        character = chr(code)
        kinds[code] = ALONE if character not in in_longer else MARKS if character in marks else OTHER
    kinds[ord(" ")] = BLANKS
    return WordCache(processor, kinds)


def with_punctuation(pieces: list[str]) -> set[str]:
    """Return the punctuation of ASCII and, directly or through others, all characters that share a piece with it."""
    marks = set(string.punctuation)
    contents = [set(piece) - {BLANK} for piece in pieces]
    size = 0
    while len(marks) > size:
        size = len(marks)
        marks.update(*(content for content in contents if not marks.isdisjoint(content)))
    return marks
