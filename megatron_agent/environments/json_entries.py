"""Large JSON files entry by entry: gigabytes of products or of recorded pages are never in memory at once."""

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from megatron_agent.errors import UserError

BLOCK_BYTES = 1 << 20
MAX_ENTRY_CHARACTERS = 1 << 29
"""A longer entry is one whose end is lost; a task of Mind2Web has up to 100 million."""
_BLANKS = re.compile(r"[ \t\r\n]*")
_CUT_NUMBER = re.compile(r"[-+.eE0-9]*\Z")
_CUT_WORD = 16
"""A decoder that fails so near to the end of the text may have met a literal or an escape that goes on."""

Progress = Callable[[str, int], None]
"""Called with a file's name and the number of its bytes that were read since the last call."""


def stream_entries(
    path: Path, kind: type, progress: Progress = lambda name, read: None
) -> Iterator[tuple[int | str, Any]]:
    """Yield `(index, value)` of a file's JSON array (kind list), or `(key, value)` of its object (kind dict).

    The file is plain or gzip; one entry at a time is in memory. Raises UserError with the entry's number, from 0, where
    the file is not JSON, ends in the middle, or holds the other kind.
    """
    opening, closing = ("[", "]") if kind is list else ("{", "}")
    window = _Window(_blocks(path, progress))
    if window.next_character() != opening:
        wanted = "a JSON array" if kind is list else "a JSON object"
        raise UserError(f"{path}: expected {wanted}, got {window.shown()}")
    window.position += 1
    number = 0
    while window.next_character() != closing:
        where = f"{path}: entry {number}"
        if number:
            if window.next_character() != ",":
                raise UserError(f"{where}: expected a comma before it, got {window.shown()}")
            window.position += 1
        key: int | str = number
        if kind is dict:
            key = window.decode(where)
            if not isinstance(key, str) or window.next_character() != ":":
                raise UserError(f"{where}: expected a name and a colon, got {str(key)[:40]!r} and {window.shown()}")
            window.position += 1
        yield key, window.decode(where)
        number += 1
    window.position += 1
    if window.next_character():
        raise UserError(f"{path}: expected nothing behind entry {number - 1} and {closing}, got {window.shown()}")


class _Window:
    """The part of a file that is held: its text, and how much of it is read."""

    def __init__(self, blocks: Iterator[str]) -> None:
        self.blocks = blocks
        self.text = ""
        self.position = 0
        self.decoder = json.JSONDecoder()

    def read(self, characters: int) -> bool:
        """Drop what was passed and append so many characters or a block more; False, and nothing done, at the end."""
        parts: list[str] = []
        while characters > 0 and (block := next(self.blocks, None)) is not None:
            parts.append(block)
            characters -= len(block)
        if parts:
            self.text, self.position = "".join([self.text[self.position :], *parts]), 0
        return bool(parts)

    def next_character(self) -> str:
        """Move to the next character that is not blank and return it; empty at the end of the file."""
        while True:
            self.position = _BLANKS.match(self.text, self.position).end()  # type: ignore[union-attr]  # matches ""
            if self.position < len(self.text):
                return self.text[self.position]
            if not self.read(1):
                return ""

    def decode(self, where: str) -> Any:
        """Decode the next value, reading twice as much after every time it was cut off."""
        self.next_character()
        while True:
            try:
                value, end = self.decoder.raw_decode(self.text, self.position)
                is_cut, reason = _CUT_NUMBER.match(self.text, end) is not None, "the file ends"
            except json.JSONDecodeError as error:
                is_near = error.pos >= len(self.text) - _CUT_WORD
                end, is_cut, reason = -1, is_near or error.msg.startswith("Unterminated string"), str(error)
            except RecursionError as error:
                end, is_cut, reason = -1, False, str(error)
            held = len(self.text) - self.position
            if is_cut and held <= MAX_ENTRY_CHARACTERS and self.read(max(1, held)):
                continue
            if end < 0 or self.text[end : end + 1] in (".", "e", "E"):
                raise UserError(f"{where}: not whole JSON ({reason}); the file is damaged or was cut: fetch it again")
            self.position = end
            return value

    def shown(self) -> str:
        """Return what stands at the position, for messages."""
        return repr(self.text[self.position :][:20]) if self.next_character() else "the end of the file"


def _blocks(path: Path, progress: Progress) -> Iterator[str]:
    """Yield a file's text in blocks, through gzip when it begins as gzip does; without a byte order mark."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    try:
        with open(path, "rb") as raw:
            compressed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            handle = cast(IO[bytes], gzip.GzipFile(fileobj=raw)) if compressed else raw
            before = 0
            while block := handle.read(BLOCK_BYTES):
                progress(path.name, raw.tell() - before)
                before = raw.tell()
                yield decoder.decode(block)
            decoder.decode(b"", final=True)
    except (UnicodeDecodeError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: expected whole UTF-8 text: {error}; fetch the file again") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
