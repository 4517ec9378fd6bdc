"""Large JSON files entry by entry: the catalogue's five gigabytes are never in memory at once."""

import codecs
import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from megatron_agent.errors import UserError

BLOCK_BYTES = 1 << 20
MAX_ENTRY_CHARACTERS = 64 << 20
_BLANKS = " \t\r\n"

Progress = Callable[[str, int], None]
"""Called with a file's name and the number of its bytes that were read since the last call."""


def stream_entries(path: Path, kind: type, progress: Progress) -> Iterator[tuple[int | str, Any]]:
    """Yield `(index, value)` of a file's JSON array (kind list), or `(key, value)` of its object (kind dict).

    One entry at a time is in memory. Raises UserError with the entry's number where the file is not JSON, ends in
    the middle, or holds the other kind.
    """
    opening, closing = ("[", "]") if kind is list else ("{", "}")
    decoder = json.JSONDecoder()
    blocks = _blocks(path, progress)
    text, start = _skip(next(blocks, ""), 0, blocks)
    number = 0
    if text[start : start + 1] != opening:
        wanted = "a JSON array" if kind is list else "a JSON object"
        raise UserError(f"{path}: expected {wanted} of WebShop's data, got {text[start : start + 20]!r}")
    start += 1
    while True:
        text, start = _skip(text, start, blocks)
        if number and text[start : start + 1] == ",":
            text, start = _skip(text, start + 1, blocks)
        elif text[start : start + 1] == closing:
            return
        elif number:
            raise UserError(f"{path}: entry {number}: expected a comma before it, got {text[start : start + 20]!r}")
        key: int | str = number
        if kind is dict:
            name, text, start = _decode(decoder, text, start, blocks, path, number)
            text, start = _skip(text, start, blocks)
            if not isinstance(name, str) or text[start : start + 1] != ":":
                raise UserError(f"{path}: entry {number}: expected a name and a colon, got {str(name)[:40]!r}")
            key = name
            text, start = _skip(text, start + 1, blocks)
        value, text, start = _decode(decoder, text, start, blocks, path, number)
        yield key, value
        number += 1


def _decode(
    decoder: json.JSONDecoder, text: str, start: int, blocks: Iterator[str], path: Path, number: int
) -> tuple[Any, str, int]:
    """Return the value that begins at `start`, and where the text goes on."""
    while True:
        try:
            value, end = decoder.raw_decode(text, start)
            if end < len(text) and text[end] not in ".eE":  # a number at the end of a block may go on
                return value, text, end
            failure: ValueError | RecursionError = ValueError("the file ends")
        except (ValueError, RecursionError) as error:
            failure = error
        block = next(blocks, None)
        if block is None or len(text) - start > MAX_ENTRY_CHARACTERS:
            raise UserError(
                f"{path}: entry {number}: not whole JSON ({failure}); the file is damaged or was cut: fetch it again"
            ) from failure
        text, start = text[start:] + block, 0


def _skip(text: str, start: int, blocks: Iterator[str]) -> tuple[str, int]:
    """Move over blanks, into the next block where one ends."""
    while True:
        while start < len(text) and text[start] in _BLANKS:
            start += 1
        if start < len(text):
            return text, start
        block = next(blocks, None)
        if block is None:
            return text, start
        text, start = block, 0


def _blocks(path: Path, progress: Progress) -> Iterator[str]:
    """Yield a file's text in blocks, through gzip when it begins as gzip does."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with open(path, "rb") as raw:
        compressed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        handle = cast(IO[bytes], gzip.GzipFile(fileobj=raw)) if compressed else raw
        before = 0
        try:
            while block := handle.read(BLOCK_BYTES):
                progress(path.name, raw.tell() - before)
                before = raw.tell()
                yield decoder.decode(block)
            decoder.decode(b"", final=True)
        except (UnicodeDecodeError, EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise UserError(f"{path}: expected whole UTF-8 text: {error}; fetch the file again") from error
