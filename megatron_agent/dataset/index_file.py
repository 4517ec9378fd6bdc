"""Megatron-core's `.idx` file, version 1, in its multimodal form.

A header, then per sequence (here: per span of tokens with one loss flag) its length and its offset in the `.bin`
file, the borders of documents counted in sequences, and per sequence its int8 mode. Read and written here because
importing Megatron-core loads torch, which no data command needs, and because core checks nothing beyond the magic
number; tests compare the bytes with core's own writer.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from megatron_agent.dataset.manifest import REBUILD
from megatron_agent.errors import UserError

HEADER = struct.Struct("<9sQBQQ")  # magic, version, dtype code, sequences, document borders
MAGIC = b"MMIDIDX\x00\x00"
DTYPE_CODES: dict[int, type[np.integer]] = {4: np.int32, 8: np.uint16}  # Megatron-core's
LARGEST_UINT16_VOCABULARY = 65_499

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Index:
    """What an `.idx` file holds. A document is a conversation, a span a run of tokens with one loss flag."""

    dtype: type[np.integer]
    """Of the ids in the `.bin` file."""
    span_lengths: IntArray
    """`[spans]`, tokens."""
    document_borders: IntArray
    """`[documents + 1]`, in spans."""
    modes: IntArray
    """`[spans]`: 1 trained, 0 context."""


def token_dtype(vocab_size: int) -> type[np.integer]:
    """Return the dtype of stored ids: uint16 below a vocabulary of 65,500, int32 from there on (Megatron's rule)."""
    return np.uint16 if vocab_size <= LARGEST_UINT16_VOCABULARY else np.int32


def write_index(handle: IO[bytes], index: Index) -> None:
    """Write an `.idx` file."""
    code = next(code for code, dtype in DTYPE_CODES.items() if dtype is index.dtype)
    handle.write(HEADER.pack(MAGIC, 1, code, len(index.span_lengths), len(index.document_borders)))
    handle.write(index.span_lengths.astype(np.int32).tobytes())
    handle.write(span_offsets(index).tobytes())
    handle.write(index.document_borders.astype(np.int64).tobytes())
    handle.write(index.modes.astype(np.int8).tobytes())


def span_offsets(index: Index) -> IntArray:
    """Return where each span begins in the `.bin` file, `[spans]`, bytes."""
    ends = np.cumsum(index.span_lengths, dtype=np.int64)
    return (ends - index.span_lengths) * np.dtype(index.dtype).itemsize


def read_index(path: Path) -> Index:
    """Read and check an `.idx` file; :class:`UserError` names it when it is not one that we could have written."""
    content = path.read_bytes()
    if len(content) < HEADER.size:
        raise UserError(f"{path}: {len(content)} bytes are too few for a Megatron index; {REBUILD}")
    magic, version, code, num_spans, num_borders = HEADER.unpack_from(content)
    if magic != MAGIC or version != 1 or code not in DTYPE_CODES:
        raise UserError(f"{path}: not a Megatron index of token ids (magic, version or dtype differ); {REBUILD}")
    expected = HEADER.size + num_spans * (4 + 8 + 1) + num_borders * 8
    if len(content) != expected:
        raise UserError(f"{path}: its header promises {expected:,} bytes, got {len(content):,}; {REBUILD}")
    offset = HEADER.size
    arrays = []
    layout = ((np.int32, num_spans), (np.int64, num_spans), (np.int64, num_borders), (np.int8, num_spans))
    for dtype, count in layout:
        arrays.append(np.frombuffer(content, dtype, count, offset).astype(np.int64))
        offset += count * np.dtype(dtype).itemsize
    lengths, offsets, borders, modes = arrays
    if (
        num_borders < 2
        or borders[0] != 0
        or borders[-1] != num_spans
        or (np.diff(borders) <= 0).any()
        or (lengths <= 0).any()
        or not np.isin(modes, (0, 1)).all()
    ):
        raise UserError(f"{path}: lengths, borders or loss flags are out of range; {REBUILD}")
    index = Index(DTYPE_CODES[code], lengths, borders, modes)
    if not np.array_equal(offsets, span_offsets(index)):
        raise UserError(f"{path}: its offsets do not follow from its lengths; {REBUILD}")
    return index
