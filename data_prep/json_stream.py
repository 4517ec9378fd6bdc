"""JSON records out of an array or out of JSONL, as a stream, also when the file is damaged.

ShareGPT dumps are arrays of up to a gigabyte, and the copy on PyPI stops in the middle of a string: `json.load`
can do nothing with it. Here one record is decoded at a time, so that memory stays small; with a `Damage` to fill
in, what cannot be decoded is skipped up to the next record and written down.
"""

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BufferedIOBase
from pathlib import Path
from typing import cast

from megatron_agent.chat.conversation import find_lone_surrogate, refuse_constant, require_file, unique_keys
from megatron_agent.errors import UserError
from megatron_agent.files import open_decompressed

BLOCK_BYTES = 1 << 20
MAX_RECORD_CHARACTERS = 1 << 24
"""A longer text is not one record but several with a broken border; the longest of ShareGPT has 394,565."""
SEPARATORS = re.compile("[ \t\r\n,\ufeff]*")  # a byte order mark may open the file
FIRST_KEYS = ("id", "conversations", "items", "model", "avatarUrl")
CANDIDATE_CHARACTERS = 256  # a record start that the end of a block cuts is not longer than this
OTHER_ENCODINGS = (  # UTF-32 first: its little-endian mark begins with UTF-16's
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
CUT_ESCAPE = re.compile(r"\\u[0-9a-fA-F]{0,4}\Z")
CUT_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.|(\.[0-9]+)?[eE][-+]?)\Z")
NUMBER_CHARACTERS = re.compile(r"[-+.eE0-9]+\Z")


@dataclass
class LostText:
    """One place of a file that could not be read. Positions count in the text after decompression, from 1 and 0."""

    line: int
    byte: int
    characters: int
    bytes: int
    reason: str


@dataclass
class Damage:
    """What was lost of one file."""

    places: list[LostText] = field(default_factory=list)
    cut_off: bool = False
    """The file ends in the middle."""
    gzip_error: str | None = None
    """Why decompression stopped, when it did."""

    @property
    def lost_characters(self) -> int:
        """Characters lost in all places."""
        return sum(place.characters for place in self.places)


class Window:
    """The part of a file that is held in memory: its text, and where `start` stands in the file."""

    def __init__(self, blocks: Iterator[str]) -> None:
        self.blocks = blocks
        self.text = ""
        self.start = 0
        self.line = 1
        self.byte = 0
        self.ended = False
        self.has_invalid_bytes = False
        """Bytes that are not UTF-8 were met; `surrogateescape` makes lone surrogates of them."""

    def advance(self, end: int) -> str:
        """Move `start` to `end`; return the text passed over."""
        passed = self.text[self.start : end]
        self.line += passed.count("\n")
        self.byte += len(passed.encode("utf-8", "surrogateescape"))
        self.start = end
        return passed

    def read_more(self) -> None:
        """Drop what was passed over and append the next block; sets `ended` when there is none."""
        block = next(self.blocks, None)
        self.ended = block is None
        self.text = self.text[self.start :] + (block or "")
        self.start = 0
        if block and not block.isascii() and not self.has_invalid_bytes:
            self.has_invalid_bytes = find_lone_surrogate(block) is not None


class Undecodable(Exception):  # noqa: N818 -- a finding, not an error
    """No record begins here; the argument says why. `at_end`: because the file ends."""

    def __init__(self, reason: str, at_end: bool = False) -> None:
        super().__init__(reason)
        self.at_end = at_end


def stream_json_records(path: str | Path, damage: Damage | None = None) -> Iterator[tuple[str, object]]:
    """Yield `(where, value)` for each element of a JSON array, or each value of a JSONL file (gzip or not).

    `where` is `file:line, record n (id ...)`. Without `damage`, whatever is not whole JSON is a `UserError` with its
    position. With it, only objects are yielded; after damage the stream goes on at the next record (a line that
    begins with a brace in JSONL, `{"key":` in an array, `key` being one that opened a record before), an object that
    holds bytes which are not UTF-8 is lost, a further array in the same file is read too, and each loss is a place
    in `damage`. Either way a file in UTF-16 or UTF-32 is a `UserError`, and with `damage` one without any record.
    """
    path = require_file(path)
    decoder = json.JSONDecoder(object_pairs_hook=unique_keys, parse_constant=refuse_constant)
    window = Window(decoded_blocks(path, damage))
    first_keys = dict.fromkeys(FIRST_KEYS)
    records = 0
    in_array = closed = False
    while True:
        window.advance(SEPARATORS.match(window.text, window.start).end())  # type: ignore[union-attr]  # matches ""
        if window.start == len(window.text):
            if window.ended:
                break
            window.read_more()
            continue
        character = window.text[window.start]
        if character == "[" and not in_array and (not records or (closed and damage is not None)):
            in_array, closed = True, False
            window.advance(window.start + 1)
            continue
        if character == "]" and in_array:
            closed, in_array = True, False
            window.advance(window.start + 1)
            continue
        where = f"{path}:{window.line}, record {records + 1}"
        try:
            if closed:
                raise Undecodable("text after the end of the JSON array; expected one array or JSONL")
            value, end = decode_next(decoder, window)
            if damage is not None and not isinstance(value, dict):
                raise Undecodable("a JSON value that is no object")
        except Undecodable as error:
            if damage is None:
                raise UserError(f"{where}: {describe_strictly(error, records)}") from error
            add_place(damage, skip_to_record(window, str(error), list(first_keys), in_array))
            in_array, closed = in_array or closed, False  # a bracket of the damage may have closed the array
            if window.start == len(window.text):  # nothing follows, and the closing bracket was in what is lost
                damage.cut_off |= error.at_end
                in_array = False
            continue
        line, byte = window.line, window.byte
        passed = window.advance(end)
        if damage is not None and window.has_invalid_bytes and find_lone_surrogate(passed) is not None:
            invalid = LostText(line, byte, len(passed), window.byte - byte, "a record with bytes that are not UTF-8")
            damage.places.append(invalid)
            continue
        records += 1
        if isinstance(value, dict) and value and len(first_keys) < 16 and not (damage and damage.places):
            first_keys[next(iter(value))] = None  # after damage, a piece of a record may pass for one
        identifier = value.get("id") if isinstance(value, dict) else None
        yield (f"{where} (id {identifier!r})" if isinstance(identifier, str) else where), value
    if in_array:
        if damage is None:
            raise UserError(f"{path}:{window.line}: {describe_strictly(Undecodable('', at_end=True), records)}")
        damage.cut_off = True
    if damage is not None and not records:
        raise UserError(f"{path}: {describe_nothing(damage, window.byte)}")


def decode_next(decoder: json.JSONDecoder, window: Window) -> tuple[object, int]:
    """Decode the JSON value at `window.start`, reading on as needed; returns it and its end in `window.text`.

    Raises `Undecodable`.
    """
    wanted = 0  # characters to have before trying again a record that did not fit
    while True:
        size = len(window.text) - window.start
        if size >= wanted or window.ended:
            try:
                return decoder.raw_decode(window.text, window.start)
            except json.JSONDecodeError as error:
                reason = f"not valid JSON: {error.msg} at character {error.pos - window.start} of the record"
                if window.ended:
                    raise Undecodable(reason, at_end=is_incomplete(error, window.text)) from error
                if not is_near_end(error, window.text):
                    raise Undecodable(reason) from error
                if size > MAX_RECORD_CHARACTERS:
                    raise Undecodable(f"no end of the record within {MAX_RECORD_CHARACTERS:,} characters") from error
                wanted = 2 * size
            except (ValueError, RecursionError) as error:
                raise Undecodable(f"not a usable JSON record: {error}") from error
        window.read_more()


def skip_to_record(window: Window, reason: str, keys: list[str], in_array: bool) -> LostText:
    """Move to the next place after `window.start` where a record may begin, or to the end of the file.

    Returns what was lost on the way. Unescaped quotes cannot stand inside a JSON string, so that `{"id":` is always
    structure.
    """
    key_pattern = r'\{\s*"(?:' + "|".join(re.escape(json.dumps(key)[1:-1]) for key in keys) + r')"\s*:'
    pattern = re.compile(key_pattern if in_array else r"(?:(?<=\n)\{)|" + key_pattern)
    place = LostText(window.line, window.byte, 0, 0, reason)
    search_from = window.start + 1
    while True:
        match = pattern.search(window.text, search_from)
        if match:
            end = match.start()
        elif window.ended:
            end = len(window.text)
        else:
            end = max(search_from, len(window.text) - CANDIDATE_CHARACTERS)
        passed = window.advance(end)
        place.characters += len(passed)
        place.bytes = window.byte - place.byte
        if match or window.ended:
            return place
        window.read_more()
        search_from = window.start


def add_place(damage: Damage, place: LostText) -> None:
    """Write a place down, as part of the one before when nothing was read between them."""
    before = damage.places[-1] if damage.places else None
    if before and before.byte + before.bytes == place.byte:
        before.characters += place.characters
        before.bytes += place.bytes
    else:
        damage.places.append(place)


def decoded_blocks(path: Path, damage: Damage | None) -> Iterator[str]:
    """Yield the file's text block by block.

    With `damage`, bytes that are not UTF-8 become lone surrogates and broken gzip data ends the file; without it
    they are a `UserError`, as UTF-16 and UTF-32 are with either.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("strict" if damage is None else "surrogateescape")
    offset = 0
    with open_decompressed(path) as handle:
        reader = cast(BufferedIOBase, handle)
        try:
            # read1 returns what there is: a read of a cut gzip file would drop the bytes before the cut
            while block := reader.read1(BLOCK_BYTES):
                if not offset:
                    refuse_other_encodings(path, block)
                yield decoder.decode(block)
                offset += len(block)
            yield decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: not UTF-8 near byte {offset + error.start:,}; re-encode the file") from error
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            if damage is None:
                raise UserError(f"{path}: a gzip file that is cut or damaged ({error}); fetch it again") from error
            damage.gzip_error, damage.cut_off = str(error), True


def refuse_other_encodings(path: Path, block: bytes) -> None:
    """Raise `UserError` when a file begins with the byte order mark of UTF-16 or UTF-32."""
    for mark, name in OTHER_ENCODINGS:
        if block.startswith(mark):
            raise UserError(
                f"{path}: expected UTF-8, got {name}; re-encode it: iconv -f {name} -t UTF-8 {path} > utf8.json"
            )


def describe_strictly(error: Undecodable, records: int) -> str:
    """The message for a reader that must have the whole file."""
    if error.at_end:
        return f"the file ends in the middle (after {records:,} complete records); fetch it again"
    return f"{error}; mend or remove the record"


def describe_nothing(damage: Damage, size: int) -> str:
    """The message for a file without a single record."""
    if damage.places:
        place = damage.places[0]
        return f"no JSON record in {size:,} bytes; first failure at line {place.line}: {place.reason}"
    if damage.gzip_error:
        return f"no JSON record: the gzip data is cut or damaged ({damage.gzip_error}); fetch it again"
    return "is empty" if not size else "holds no record"


def is_near_end(error: json.JSONDecodeError, buffer: str) -> bool:
    """Whether decoding may have failed only because the text goes on in the next block."""
    literal_or_escape = 16  # an escape such as \\ud83d\\ude00 or the word `false` may straddle the end
    return error.msg.startswith("Unterminated string") or error.pos >= len(buffer) - literal_or_escape


def is_incomplete(error: json.JSONDecodeError, text: str) -> bool:
    """Whether `text`, after which nothing comes, is the beginning of JSON: decoding failed only because it ends."""
    if error.msg.startswith("Unterminated string") or error.pos >= len(text):
        return True
    if "escape" in error.msg:
        return error.pos >= len(text) - 6 and bool(CUT_ESCAPE.search(text))
    tail = text[error.pos :]
    if any(word.startswith(tail) for word in ("true", "false", "null", "-")):
        return True
    number = NUMBER_CHARACTERS.search(text, max(0, error.pos - 400))
    return number is not None and number.end() - len(tail) >= number.start() and bool(CUT_NUMBER.match(number.group()))
