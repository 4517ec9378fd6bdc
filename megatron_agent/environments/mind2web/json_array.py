"""The objects of a large JSON array, one at a time: Mind2Web's test files have hundreds of megabytes."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from megatron_agent.errors import UserError

BLOCK_CHARACTERS = 1 << 20
_BLANKS = re.compile(r"[ \t\r\n]*")


def read_json_array(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield `(where, item)` for every item of a JSON array of objects; `where` is `file item n`, n from 0.

    Memory holds one item and what was read with it. Raises UserError for a file that cannot be read, that is no
    such array, or that is damaged, naming the item.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield from _items(path, file)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: expected UTF-8: {error}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error}") from error


def _items(path: Path, file: IO[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    window = _Window(file)
    if window.next_character() != "[":
        raise UserError(f"{path}: expected a JSON array of Mind2Web tasks, found {window.text[:40]!r}")
    window.position += 1
    number = 0
    while (character := window.next_character()) != "]":
        if number:
            if character != ",":
                raise UserError(f"{path} item {number}: expected a comma or the end of the array, got {character!r}")
            window.position += 1
            character = window.next_character()
        if character != "{":
            raise UserError(f"{path} item {number}: expected a JSON object, got {character!r}")
        try:
            item = window.decode()
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path} item {number}: not valid JSON: {error}") from error
        yield f"{path} item {number}", item
        number += 1
    window.position += 1
    if window.next_character():
        raise UserError(
            f"{path}: expected nothing behind the array's end, found {window.text[window.position :][:40]!r}"
        )


class _Window:
    """The part of the file that is held: its text, and how much of it is read."""

    def __init__(self, file: IO[str]) -> None:
        self.file = file
        self.text = ""
        self.position = 0
        self.decoder = json.JSONDecoder()

    def read(self, characters: int) -> bool:
        """Drop what was passed and append so many characters; return whether there were any."""
        block = self.file.read(characters)
        self.text = self.text[self.position :] + block
        self.position = 0
        return bool(block)

    def next_character(self) -> str:
        """Move to the next character that is not blank and return it; empty at the end of the file."""
        while True:
            match = _BLANKS.match(self.text, self.position)
            self.position = match.end() if match else self.position
            if self.position < len(self.text):
                return self.text[self.position]
            if not self.read(BLOCK_CHARACTERS):
                return ""

    def decode(self) -> Any:
        """Decode the value at the position, reading twice as much after every time it was cut off.

        Raises what JSONDecoder raises for the value when there is no more to read.
        """
        while True:
            try:
                item, end = self.decoder.raw_decode(self.text, self.position)
            except json.JSONDecodeError:
                if not self.read(max(BLOCK_CHARACTERS, len(self.text) - self.position)):
                    raise
                continue
            self.position = end
            return item
