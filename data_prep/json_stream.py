"""JSON records out of an array or out of JSONL, as a stream, also when the file was cut off.

ShareGPT dumps are arrays of up to a gigabyte, and the copy on PyPI stops in the middle of a string: `json.load`
can do nothing with it. Here one record is decoded at a time, so that memory stays small and every complete
record is saved.
"""

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from megatron_agent.chat.conversation import refuse_constant, require_file, unique_keys
from megatron_agent.errors import UserError

BLOCK_BYTES = 1 << 20
SEPARATORS = " \t\r\n,"
CUT_ESCAPE = re.compile(r"\\u[0-9a-fA-F]{0,4}\Z")
CUT_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.|(\.[0-9]+)?[eE][-+]?)\Z")
NUMBER_CHARACTERS = re.compile(r"[-+.eE0-9]+\Z")


@dataclass
class CutOff:
    """Whether a file ended in the middle, and how many characters of its last record were lost."""

    found: bool = False
    lost_characters: int = 0


def stream_json_records(path: str | Path, cut_off: CutOff | None = None) -> Iterator[tuple[str, object]]:
    """Yield `(where, value)` for each element of a JSON array, or each value of a JSONL file.

    `where` is `file:line, record n (id ...)`. A file that ends early is a `UserError`, unless `cut_off` is given:
    then the complete records are yielded and `cut_off` is filled in. Anything else that is not JSON is a
    `UserError` with its position, whichever mode.
    """
    path = require_file(path)
    decoder = json.JSONDecoder(object_pairs_hook=unique_keys, parse_constant=refuse_constant)
    blocks = decoded_blocks(path, allow_cut=cut_off is not None)
    buffer, position = "", 0
    line, records = 1, 0
    in_array = closed = at_end = False
    wanted = 0  # characters to have before trying a record that did not fit again
    while True:
        start = position
        while position < len(buffer) and buffer[position] in SEPARATORS:
            position += 1
        if not records and not in_array and buffer[position : position + 1] in ("[", "\ufeff"):
            in_array = buffer[position] == "["
            position += 1
            continue
        line += buffer.count("\n", start, position)
        if in_array and buffer[position : position + 1] == "]":
            closed, in_array = True, False
            position += 1
            continue
        where = f"{path}:{line}, record {records + 1}"
        if position < len(buffer):
            if closed:
                raise UserError(f"{where}: text after the end of the JSON array; expected one array or JSONL")
            if len(buffer) - position >= wanted or at_end:
                try:
                    value, end = decoder.raw_decode(buffer, position)
                except json.JSONDecodeError as error:
                    if not (is_incomplete(error, buffer) if at_end else is_near_end(error, buffer)):
                        raise UserError(
                            f"{where}: not valid JSON: {error.msg} at character {error.pos - position} of the "
                            "record; mend or remove the record"
                        ) from error
                    wanted = 2 * (len(buffer) - position)
                except (ValueError, RecursionError) as error:
                    raise UserError(f"{where}: not a usable JSON record: {error}") from error
                else:
                    identifier = value.get("id") if isinstance(value, dict) else None
                    yield (f"{where} (id {identifier!r})" if isinstance(identifier, str) else where), value
                    records += 1
                    wanted = 0
                    line += buffer.count("\n", position, end)
                    position = end
                    continue
        if at_end:
            break
        block = next(blocks, None)
        at_end = block is None
        buffer, position = buffer[position:] + (block or ""), 0
    lost = len(buffer) - position
    if lost or in_array:
        if cut_off is None:
            raise UserError(
                f"{where}: the file ends in the middle (after {records:,} complete records); fetch it again"
            )
        cut_off.found, cut_off.lost_characters = True, lost


def decoded_blocks(path: Path, allow_cut: bool) -> Iterator[str]:
    """Yield the file's text block by block; `UserError` for bytes that are not UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset = 0
    with path.open("rb") as handle:
        try:
            while block := handle.read(BLOCK_BYTES):
                yield decoder.decode(block)
                offset += len(block)
            if not allow_cut:
                decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: not UTF-8 near byte {offset + error.start:,}; re-encode the file") from error


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
