"""Conversations that are nearly the same text, found by MinHash and locality-sensitive hashing.

A text is the set of its shingles: runs of five words, lower case, a word being what stands between blanks and each
Chinese, Japanese or Thai character a word of its own. The share of equal minima under 128 permutations (datasketch's
MinHash, seed 1) estimates the Jaccard similarity of two sets, with a standard error of sqrt(s (1 - s) / 128): 0.035 at
0.8. Candidates share one of 25 bands of 5 minima: two texts of similarity 0.8 are found with a probability of 0.99995.
"""

import re
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from megatron_agent.errors import UserError

THRESHOLD = 0.8
SHINGLE_WORDS = 5
PERMUTATIONS = 128
BANDS, BAND_ROWS = 25, 5
SEED = 1
UNSPACED = re.compile("[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
MULTIPLIERS = np.array([pow(0x9E3779B97F4A7C15, k + 1, 1 << 64) for k in range(SHINGLE_WORDS)], dtype=np.uint64)
KNOWN_WORDS = 1 << 17  # hashes of words kept at hand: some 15 MB


class WordHashes(dict[str, int]):
    """CRC-32 of words, each computed once."""

    def __missing__(self, word: str) -> int:
        if len(self) >= KNOWN_WORDS:
            self.clear()
        value = self[word] = zlib.crc32(word.encode("utf-8"))
        return value


def shingle_hashes(text: str, hashes: WordHashes) -> np.ndarray:
    """The distinct 32-bit hashes (uint32) of a text's shingles; a shorter text is one shingle, an empty one none."""
    if not text.isascii():
        text = UNSPACED.sub(r" \g<0> ", text)
    words = np.fromiter(map(hashes.__getitem__, text.lower().split()), dtype=np.uint64)
    if not len(words):
        return np.empty(0, dtype=np.uint32)
    count = max(1, len(words) - SHINGLE_WORDS + 1)
    mixed = np.zeros(count, dtype=np.uint64)
    for k in range(min(SHINGLE_WORDS, len(words))):
        mixed += words[k : k + count] * MULTIPLIERS[k]
    mixed ^= mixed >> np.uint64(29)  # the high half is what is kept: let the low bits reach it
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    return np.unique((mixed >> np.uint64(32)).astype(np.uint32))


def load_signer() -> Callable[[str], np.ndarray]:
    """Return a function from a text to its signature: `PERMUTATIONS` minima, uint32.

    Raises `UserError` when datasketch (2.0 or later: earlier ones lack the 32-bit permutations) is not installed.
    """
    try:
        from datasketch import MinHash

        empty = MinHash(num_perm=PERMUTATIONS, seed=SEED, hashfunc=int, scheme="affine32")
    except (ImportError, TypeError) as error:
        raise UserError(
            "near_duplicate needs datasketch 2.0; pip install 'agentlm-megatron[sharegpt]', "
            "or give --skip-rule near_duplicate"
        ) from error
    hashes = WordHashes()

    def sign(text: str) -> np.ndarray:
        signature = empty.copy()
        signature.update_batch(shingle_hashes(text, hashes).tolist())
        return np.asarray(signature.hashvalues)

    return sign


class NearDuplicateIndex:
    """The signatures of the texts kept so far, and which of them share a band.

    datasketch's own MinHashLSH keeps a Python set a band and text (several kilobytes a text); here a text takes 512
    bytes of signature, 100 of links and at most 200 of a hash table that grows with the texts. A bucket is a chain:
    `heads` holds its latest row, `links` the row before, per band.
    """

    def __init__(self, threshold: float = THRESHOLD) -> None:
        self.threshold = threshold
        self.count = 0
        self.signatures = np.empty((1024, PERMUTATIONS), dtype=np.uint32)
        self.links = np.empty((1024, BANDS), dtype=np.int32)
        self.heads = np.full((BANDS, 1024), -1, dtype=np.int32)

    def find(self, signature: np.ndarray) -> tuple[int, float] | None:
        """The most similar text (the earliest of equals): its number and the estimate, None below the threshold."""
        rows = self.candidates(signature)
        if not len(rows):
            return None
        similarities = np.count_nonzero(self.signatures[rows] == signature, axis=1) / PERMUTATIONS
        best = int(np.argmax(similarities))
        return (int(rows[best]), float(similarities[best])) if similarities[best] >= self.threshold else None

    def add(self, signature: np.ndarray) -> int:
        """Keep a text; returns its number, counted from 0."""
        if self.count == len(self.signatures):
            self.grow()
        self.signatures[self.count] = signature
        self.link(self.count)
        self.count += 1
        return self.count - 1

    def candidates(self, signature: np.ndarray) -> np.ndarray:
        """The rows that share a bucket with the signature in some band, ascending; every row when a bucket is crowded.

        That is so where most texts open with the same long prompt: a step along the chains costs as much as comparing
        some 64 rows, so that past that many steps comparing with every row is the faster way.
        """
        bands = np.arange(BANDS)
        rows = self.heads[bands, self.buckets(signature)]
        found: list[Any] = []
        for _ in range(64 + self.count // 64):
            present = rows >= 0
            bands, rows = bands[present], rows[present]
            if not len(rows):
                return np.unique(np.concatenate(found)) if found else np.empty(0, dtype=np.int32)
            found.append(rows)
            rows = self.links[rows, bands]
        return np.arange(self.count)

    def buckets(self, signature: np.ndarray) -> np.ndarray:
        """The bucket of each band."""
        bands = signature[: BANDS * BAND_ROWS].reshape(BANDS, BAND_ROWS).astype(np.uint64)
        mixed = (bands * MULTIPLIERS[:BAND_ROWS]).sum(axis=1, dtype=np.uint64)
        return ((mixed >> np.uint64(32)) % np.uint64(self.heads.shape[1])).astype(np.int64)

    def link(self, row: int) -> None:
        """Put a row at the head of its buckets."""
        bands, buckets = np.arange(BANDS), self.buckets(self.signatures[row])
        self.links[row] = self.heads[bands, buckets]
        self.heads[bands, buckets] = row

    def grow(self) -> None:
        """Double the room, and the buckets with it."""
        size = 2 * len(self.signatures)
        for name in ("signatures", "links"):
            old = getattr(self, name)
            new = np.empty((size, old.shape[1]), dtype=old.dtype)
            new[: self.count] = old
            setattr(self, name, new)
        self.heads = np.full((BANDS, size), -1, dtype=np.int32)
        for row in range(self.count):
            self.link(row)
