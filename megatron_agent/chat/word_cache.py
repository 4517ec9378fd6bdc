"""Llama's SentencePiece encoding through a cache of words: the same ids, several times as fast.

BPE merges neighbouring symbols into pieces of the vocabulary. Where no piece spans the border between two parts of a
text, no merge crosses it, and each part can be encoded on its own. In Llama-like vocabularies no piece has a blank
behind another character, and some characters (line feed, digits) occur in no longer piece at all: a text falls into
words and such characters, of which most were seen before.

Both facts are read off the vocabulary, not assumed; a model for which they do not hold is encoded by SentencePiece
alone.
"""

import re
import string
from collections.abc import Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt
from sentencepiece import SentencePieceProcessor

IdArray = npt.NDArray[np.int32]

BLANK = "\u2581"  # SentencePiece's written blank
LARGEST_CACHE = 1 << 25  # characters of cached words: some 600 MB would take a text without any repeated word
SEPARATOR = "\n"
GROUP = 32  # words encoded as one text: one at a time costs calls, all at once a long merge queue
NORMAL, USER_DEFINED, UNUSED = 1, 4, 5  # piece types of sentencepiece_model.proto
BPE = 2


class WordCache:
    """Encodes batches of texts with one SentencePiece model, remembering the ids of every word as int32 bytes."""

    def __init__(self, processor: SentencePieceProcessor, words: re.Pattern[str], prefix: str) -> None:
        self.processor = processor
        self.words = words
        self.prefix = prefix
        self.head = processor.encode(SEPARATOR)  # a dummy blank, perhaps, and the separator
        self.clear()

    def clear(self) -> None:
        """Forget all words."""
        self.ids = {SEPARATOR: np.array(self.head[-1:], dtype=np.int32).tobytes()}
        self.characters = 0

    def encode_batch(self, texts: Sequence[str]) -> list[IdArray]:
        """Return the ids of every text, as `processor.encode` gives them."""
        if self.characters > LARGEST_CACHE:
            self.clear()
        split = [self.words.findall(self.prefix + text) if text else [] for text in texts]
        missing = set(chain.from_iterable(split)).difference(self.ids)
        if missing:
            self.add(list(missing))
        ids_of = self.ids.__getitem__
        return [np.frombuffer(b"".join(map(ids_of, words)), dtype=np.int32) for words in split]

    def add(self, words: list[str]) -> None:
        """Encode words that are not in the cache, some at a time, behind separators that nothing merges with."""
        groups = [words[start : start + GROUP] for start in range(0, len(words), GROUP)]
        encoded = self.processor.encode([SEPARATOR.join(["", *group]) for group in groups])
        skipped = len(self.head) - 1  # the dummy blank
        ids = np.array(list(chain.from_iterable(group[skipped:] for group in encoded)), dtype=np.int32)
        content = ids.tobytes()
        borders = (np.flatnonzero(ids == self.head[-1]) * ids.itemsize).tolist()
        for word, start, end in zip(words, borders, [*borders[1:], len(content)], strict=True):
            self.ids[word] = content[start + ids.itemsize : end]
            self.characters += len(word)


def word_cache(processor: SentencePieceProcessor) -> WordCache | None:
    """Return the cache for a model, None when its texts cannot be cut into words without changing ids."""
    from sentencepiece.sentencepiece_model_pb2 import ModelProto  # type: ignore[attr-defined]

    model = ModelProto.FromString(processor.serialized_model_proto())
    normalizer, trainer = model.normalizer_spec, model.trainer_spec
    longer = [piece.piece for piece in model.pieces if piece.type in (NORMAL, UNUSED) and len(piece.piece) > 1]
    in_longer = set().union(*longer)
    alone = [chr(code) for code in range(128) if chr(code) not in in_longer and chr(code) != " "]
    if (
        trainer.model_type != BPE
        or trainer.treat_whitespace_as_suffix
        or not trainer.byte_fallback  # unknown characters would be joined across words
        or normalizer.precompiled_charsmap
        or normalizer.remove_extra_whitespaces
        or not normalizer.escape_whitespaces
        or any(piece.type == USER_DEFINED for piece in model.pieces)  # matched before everything else
        or any(re.search(f"[^{BLANK}]{BLANK}", piece) for piece in longer)
        or SEPARATOR not in alone
    ):
        return None
    single, marks = re.escape("".join(alone)), re.escape("".join(sorted(with_punctuation(longer) - set(alone))))
    words = re.compile(f"[{single}]|[ {BLANK}]*(?:[^ {BLANK}{single}{marks}]+|[{marks}]+)|[ {BLANK}]+")
    return WordCache(processor, words, prefix=" " if normalizer.add_dummy_prefix else "")


def with_punctuation(pieces: list[str]) -> set[str]:
    """Return the punctuation of ASCII and, directly or through others, all characters that share a piece with it."""
    marks = set(string.punctuation)
    contents = [set(piece) - {BLANK} for piece in pieces]
    size = 0
    while len(marks) > size:
        size = len(marks)
        marks.update(*(content for content in contents if not marks.isdisjoint(content)))
    return marks
