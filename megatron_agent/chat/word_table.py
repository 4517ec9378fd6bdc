"""A hash table from short words to numbers that looks up whole arrays of words at once."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

WORD_BYTES = 16  # a word is two 64-bit keys: equal keys are equal words, not just equal hashes

IntArray = npt.NDArray[np.int64]
KeyArray = npt.NDArray[np.uint64]

MULTIPLIERS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F], dtype=np.uint64)  # odd, well mixed
MASKS = np.array([(1 << 8 * length) - 1 for length in range(9)], dtype=np.uint64)
"""By number of bytes of a key that belong to the word."""


class Keys(NamedTuple):
    """The bytes of words of at most `WORD_BYTES` bytes, filled up with zeros."""

    low: KeyArray
    high: KeyArray

    def hashes(self) -> KeyArray:
        """Return a hash of every word."""
        mixed = self.low * MULTIPLIERS[0] ^ self.high * MULTIPLIERS[1]
        mixed ^= mixed >> np.uint64(29)
        mixed *= MULTIPLIERS[0]
        return mixed ^ mixed >> np.uint64(32)


class WordTable:
    """Open addressing with linear probing; at most half full."""

    def __init__(self) -> None:
        self.numbers = np.full(1 << 16, -1, dtype=np.int64)
        self.low = np.zeros(1 << 16, dtype=np.uint64)
        self.high = np.zeros(1 << 16, dtype=np.uint64)
        self.size = 0

    @staticmethod
    def keys(content: bytes, starts: IntArray, ends: IntArray) -> Keys:
        """Return the keys of words of `content`, which goes on for `WORD_BYTES` after the last start."""
        words = np.ndarray((len(content) - 7,), dtype="<u8", buffer=content, strides=(1,))  # at every byte
        lengths = ends - starts
        return Keys(
            words[starts] & MASKS[np.minimum(lengths, 8)],
            words[starts + 8] & MASKS[np.maximum(lengths - 8, 0)],
        )

    def find(self, keys: Keys) -> IntArray:
        """Return the number of every word, -1 where it is not there."""
        found = np.full(len(keys.low), -1, dtype=np.int64)
        last = np.uint64(len(self.numbers) - 1)
        places = keys.hashes() & last
        waiting = np.arange(len(found))
        low, high = keys
        while len(waiting):
            numbers = self.numbers[places]
            same = (self.low[places] == low) & (self.high[places] == high) & (numbers >= 0)
            found[waiting[same]] = numbers[same]
            on = ~same & (numbers >= 0)  # another word is there: look at the next place
            waiting, places, low, high = waiting[on], (places[on] + np.uint64(1)) & last, low[on], high[on]
        return found

    @staticmethod
    def distinct(keys: Keys, at: IntArray) -> tuple[IntArray, IntArray]:
        """Return, of the words at some positions, one position for each, and for every position which one it is."""
        low, high = keys.low[at], keys.high[at]
        order = np.lexsort((low, high))
        is_first = np.ones(len(order), dtype=bool)
        is_first[1:] = (np.diff(low[order]) != 0) | (np.diff(high[order]) != 0)
        inverse = np.empty(len(order), dtype=np.int64)
        inverse[order] = np.cumsum(is_first) - 1
        return at[order[is_first]], inverse

    def insert(self, keys: Keys, at: IntArray, numbers: IntArray) -> None:
        """Put the words at some positions, distinct and not there yet, under their numbers."""
        while 2 * (self.size + len(at)) > len(self.numbers):
            self.grow()
        self.size += len(at)
        self._place(Keys(keys.low[at], keys.high[at]), numbers)

    def grow(self) -> None:
        """Double the table."""
        used = self.numbers >= 0
        numbers, keys = self.numbers[used], Keys(self.low[used], self.high[used])
        self.numbers = np.full(2 * len(self.numbers), -1, dtype=np.int64)
        self.low, self.high = (np.zeros(len(self.numbers), dtype=np.uint64) for _ in range(2))
        self._place(keys, numbers)

    def _place(self, keys: Keys, numbers: IntArray) -> None:
        last = np.uint64(len(self.numbers) - 1)
        places = keys.hashes() & last
        low, high = keys
        while len(numbers):
            free = self.numbers[places] < 0
            self.numbers[places[free]] = numbers[free]  # of several words for one place, one stays
            placed = self.numbers[places] == numbers
            self.low[places[placed]], self.high[places[placed]] = low[placed], high[placed]
            on = ~placed
            numbers, places = numbers[on], (places[on] + np.uint64(1)) & last
            low, high = low[on], high[on]
