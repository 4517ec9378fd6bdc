"""Packing: conversations into rows of a fixed number of tokens, block by block.

The stream of drawn conversations is cut into blocks worth 64, 128, 256, 512 and from then on 1,024 rows. A block is
packed on its own with a best fit, its rows are put into a seeded random order, and every conversation of the block
is in exactly one of them. Three things follow:

* Prefix stability: a row depends on its own block only, so asking for more rows never changes earlier ones.
* No selection by length: the rows of a block hold exactly what was drawn, and their order carries no trace of
  length. A packer that keeps rows (or conversations) open from one row to the next prefers short or long ones until
  it has settled: measured, its first 64 rows hold 13% agent conversations instead of 20% (docs/mixture.md).
* Short runs keep even passes, because early blocks are small; long runs keep a high fill, because later ones are
  large.
"""

import itertools
from bisect import bisect_left, bisect_right
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from megatron_agent.dataset.draws import permutation

FIRST_BLOCK_ROWS = 64
LARGEST_BLOCK_ROWS = 1024
PACKING_VERSION = 1  # part of the plan's hash: raise it when any row could come out differently

IntArray = npt.NDArray[np.int64]


def block_tokens(block: int, seq_length: int) -> int:
    """Return how many tokens to draw, at least, for block number `block` (from 0)."""
    return min(FIRST_BLOCK_ROWS << min(block, 32), LARGEST_BLOCK_ROWS) * seq_length


def best_fit(lengths: list[int], seq_length: int) -> list[list[int]]:
    """Pack items of the given lengths (1 to `seq_length` tokens) into rows; return item numbers by row.

    The first item not yet placed opens a row; then the longest waiting item that still fits is added, the earliest
    among equals, until none fits. Opening in order of arrival keeps the rows alike, where sorting by length first
    (best fit decreasing) would collect the short items in rows of their own.
    """
    waiting: dict[int, list[int]] = {}  # length -> items, earliest last
    for item in range(len(lengths) - 1, -1, -1):
        waiting.setdefault(lengths[item], []).append(item)
    sizes = sorted(waiting)
    placed = bytearray(len(lengths))
    rows = []
    for opener, size in enumerate(lengths):
        if placed[opener]:
            continue
        row: list[int] = []
        room = seq_length
        while True:
            items = waiting[size]
            item = items.pop()  # at the first turn this is the opener: all earlier items are placed
            placed[item] = 1
            row.append(item)
            room -= size
            if not items:
                del sizes[bisect_left(sizes, size)]
            fitting = bisect_right(sizes, room)
            if fitting == 0:
                break
            size = sizes[fitting - 1]
        rows.append(row)
    return rows


def pack_stream(chunks: Iterator[IntArray], seq_length: int, seed: int) -> Iterator[list[IntArray]]:
    """Pack an endless stream of conversation lengths; yield one block after the other.

    `chunks` are arrays `[n]` of lengths. A block is a list of rows in their final order; a row is the array of
    its conversations' positions in the stream, in stream order.
    """
    waiting = np.zeros(0, dtype=np.int64)
    start = block = 0
    while True:
        target = block_tokens(block, seq_length)
        pieces, tokens = [waiting], int(waiting.sum())
        while tokens < target:
            pieces.append(next(chunks))
            tokens += int(pieces[-1].sum())
        waiting = np.concatenate(pieces)
        count = int(np.searchsorted(np.cumsum(waiting), target)) + 1
        rows = best_fit(waiting[:count].tolist(), seq_length)
        order = permutation(len(rows), seed, "rows of block", block)
        in_order = [rows[row] for row in order.tolist()]
        sizes = np.array([len(row) for row in in_order])
        positions = np.fromiter(itertools.chain.from_iterable(in_order), np.int64, count)
        positions = positions[np.lexsort((positions, np.repeat(np.arange(len(rows)), sizes)))] + start
        yield np.split(positions, np.cumsum(sizes)[:-1])
        waiting = waiting[count:]
        start += count
        block += 1
