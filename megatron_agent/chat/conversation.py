"""The conversation record: AgentInstruct's own schema, read, checked and written.

One conversation a line (JSONL), as `THUDM/AgentInstruct` ships it:
`{"conversations": [{"from": "human"|"gpt"|"system", "loss": null|true|false, "value": str}, ...], "id": str}`
and, optionally, `source`, `model`, `reward` and `task`.
"""

import gzip
import json
import math
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from megatron_agent.errors import UserError
from megatron_agent.files import atomic_write, open_decompressed

SPEAKERS = ("human", "gpt", "system")
TURN_KEYS = ("from", "loss", "value")
TEXT_KEYS = ("source", "model", "task")
RECORD_KEYS = ("conversations", "id", *TEXT_KEYS, "reward")


@dataclass(frozen=True)
class Turn:
    """One message. `loss` is AgentInstruct's flag: False marks an answer that is context only."""

    speaker: str
    value: str
    loss: bool | None = None

    @property
    def trained(self) -> bool:
        """Whether the model learns this turn: an answer whose flag is true, null or missing."""
        return self.speaker == "gpt" and self.loss is not False


@dataclass(frozen=True)
class Conversation:
    """A record: its turns and where they come from."""

    id: str
    turns: tuple[Turn, ...]
    source: str | None = None
    model: str | None = None
    reward: float | None = None
    task: str | None = None


def parse_conversation(record: object, where: str) -> Conversation:
    """Turn a decoded JSON value into a :class:`Conversation`.

    `where` names the record in messages, e.g. `data.jsonl:3 (id 'db_2')`. Raises `UserError` for anything that
    is not the schema: unknown keys too, since a misspelt `loss` would silently train the wrong turns.
    """
    if not isinstance(record, dict):
        raise UserError(f'{where}: expected a JSON object {{"id": ..., "conversations": [...]}}, got {kind(record)}')
    refuse_unknown_keys(record, RECORD_KEYS, where)
    identifier = record.get("id")
    if not isinstance(identifier, str) or not identifier:
        raise UserError(f'{where}: expected a non-empty string under "id", got {kind(identifier)}')
    refuse_lone_surrogates(identifier, f"{where}: id")
    turns = record.get("conversations")
    if not isinstance(turns, list) or not turns:
        raise UserError(f'{where}: expected a non-empty list of turns under "conversations", got {kind(turns)}')
    texts: dict[str, str | None] = {}
    for key in TEXT_KEYS:
        texts[key] = record.get(key)
        if texts[key] is not None and not isinstance(texts[key], str):
            raise UserError(f'{where}: expected a string or null under "{key}", got {kind(texts[key])}')
        refuse_lone_surrogates(texts[key] or "", f'{where}: "{key}"')
    reward = record.get("reward")
    if reward is not None:
        reward = parse_reward(reward, where)
    return Conversation(
        id=identifier,
        turns=tuple(parse_turn(turn, f"{where}: turn {number}") for number, turn in enumerate(turns, start=1)),
        reward=reward,
        **texts,
    )


def parse_reward(value: object, where: str) -> float:
    """Turn the `reward` of a record into a float; raises `UserError` naming `where`."""
    try:
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    except OverflowError:  # an integer of hundreds of digits
        pass
    raise UserError(f'{where}: expected a finite number or null under "reward", got {str(value)[:40]}')


def parse_turn(turn: object, where: str) -> Turn:
    """Turn one element of `conversations` into a :class:`Turn`; raises `UserError` naming `where`."""
    if not isinstance(turn, dict):
        raise UserError(f'{where}: expected an object {{"from": ..., "value": ...}}, got {kind(turn)}')
    refuse_unknown_keys(turn, TURN_KEYS, where)
    speaker, value, loss = turn.get("from"), turn.get("value"), turn.get("loss")
    if speaker not in SPEAKERS:
        raise UserError(
            f'{where}: expected "from" to be one of {", ".join(SPEAKERS)}, got {speaker!r}; '
            "data_prep.clean_sharegpt maps the role names of ShareGPT dumps"
        )
    if not isinstance(value, str):
        raise UserError(f'{where}: expected a string under "value", got {kind(value)}')
    if loss is not None and not isinstance(loss, bool):
        raise UserError(f'{where}: expected true, false or null under "loss", got {loss!r}')
    if loss and speaker != "gpt":
        raise UserError(f'{where}: "loss": true on a {speaker} turn; only gpt turns can be trained')
    refuse_lone_surrogates(value, where)
    return Turn(speaker, value, loss)


def conversation_to_record(conversation: Conversation) -> dict[str, Any]:
    """Return the AgentInstruct record of a conversation; `parse_conversation` of it gives the same back."""
    record: dict[str, Any] = {
        "conversations": [
            {"from": turn.speaker, "loss": turn.loss, "value": turn.value} for turn in conversation.turns
        ],
        "id": conversation.id,
    }
    for key in (*TEXT_KEYS, "reward"):
        if getattr(conversation, key) is not None:
            record[key] = getattr(conversation, key)
    return record


def read_conversations(path: str | Path) -> Iterator[Conversation]:
    """Yield the conversations of a JSONL file; `UserError` names file, line and id of the first bad one."""
    for _, conversation in read_located_conversations(path):
        yield conversation


def read_located_conversations(path: str | Path) -> Iterator[tuple[str, Conversation]]:
    """Yield `(where, conversation)`, `where` being `file:line (id ...)` for messages about it."""
    for where, record in read_records(path):
        yield where, parse_conversation(record, where)


def read_records(path: str | Path) -> Iterator[tuple[str, object]]:
    """Yield `(where, decoded value)` for every non-blank line of a JSONL file.

    The file may be compressed with gzip. Refused with a `UserError`: a missing file, gzip data that is cut, bytes
    that are not UTF-8, bad JSON, NaN or Infinity, a key given twice in one object, nesting too deep to decode.
    """
    path = require_file(path)
    with open_decompressed(path) as handle:
        yield from decode_lines(decompressed_lines(handle, path), path)


def decode_lines(lines: Iterable[bytes], path: Path, first: int = 1) -> Iterator[tuple[str, object]]:
    """Yield `(where, decoded value)` for the non-blank ones of some lines of a JSONL file; `first` is their number."""
    for number, line in enumerate(lines, start=first):
        if line.isspace():
            continue
        where = f"{path}:{number}"
        if number == 1 and line.lstrip().startswith(b"["):
            raise UserError(
                f"{where}: expected one JSON object a line (JSONL), got a JSON array; convert it with "
                "data_prep.import_agentinstruct or data_prep.clean_sharegpt"
            )
        record = decode_json(line, where)
        identifier = record.get("id") if isinstance(record, dict) else None
        yield (f"{where} (id {identifier!r})" if isinstance(identifier, str) else where), record


def decompressed_lines(handle: IO[bytes], path: Path) -> Iterator[bytes]:
    """Yield the lines of `handle`; `UserError` where a gzip file is cut or damaged."""
    try:
        yield from handle
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path}: a gzip file that is cut or damaged ({error}); fetch it again") from error


def write_conversations(path: str | Path, conversations: Iterable[Conversation]) -> int:
    """Write JSONL, whole or not at all; returns the number of conversations."""
    count = 0
    with atomic_write(path) as handle:
        for conversation in conversations:
            handle.write(json.dumps(conversation_to_record(conversation), ensure_ascii=False) + "\n")
            count += 1
    return count


def check_structure(conversation: Conversation, where: str) -> None:
    """Check what a chat template needs; `UserError` names the rule that is broken.

    An optional system turn comes first; then human and gpt turns alternate strictly, human first, gpt last;
    no value is blank.
    """
    first = 1 if conversation.turns and conversation.turns[0].speaker == "system" else 0
    dialogue = conversation.turns[first:]
    for number, turn in enumerate(conversation.turns, start=1):
        if not turn.value.strip():
            raise UserError(f"{where}: turn {number} ({turn.speaker}) is empty; give it a text or drop the record")
    if not dialogue:
        raise UserError(f"{where}: no human and gpt turns; drop the record")
    for index, turn in enumerate(dialogue):
        expected = "gpt" if index % 2 else "human"
        if turn.speaker != expected:
            rule = "a system turn may only come first" if turn.speaker == "system" else "turns must alternate"
            if index == 0:
                rule = "the first turn after an optional system turn must be human"
            raise UserError(
                f"{where}: {rule}: turn {first + index + 1} is {turn.speaker}, expected {expected}; "
                "mend or drop the record (data_prep.clean_sharegpt repairs ShareGPT dumps)"
            )
    if len(dialogue) % 2:
        raise UserError(f"{where}: the last turn is human, expected gpt; drop the unanswered turn")


def check_trainable(conversation: Conversation, where: str) -> None:
    """Check that a conversation can be trained on: `check_structure`, and at least one trained turn."""
    check_structure(conversation, where)
    if not any(turn.trained for turn in conversation.turns):
        raise UserError(
            f'{where}: nothing to train on: every gpt turn has "loss": false; set one to true or drop the record'
        )


def split_turns(conversation: Conversation) -> tuple[str | None, list[tuple[Turn, Turn]]]:
    """Return the system prompt (None without one) and the (human, gpt) exchanges of a checked conversation."""
    turns: Sequence[Turn] = conversation.turns
    system = turns[0].value if turns and turns[0].speaker == "system" else None
    dialogue = turns[1:] if system is not None else turns
    return system, list(zip(dialogue[::2], dialogue[1::2], strict=True))


def require_file(path: str | Path) -> Path:
    """Return `path` as a `Path`; `UserError` when it is not a readable file."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such file; check the path")
    if not path.is_file():
        raise UserError(f"{path}: expected a file, got a folder or device")
    return path


def decode_json(line: bytes, where: str) -> object:
    """Decode one JSON value from UTF-8 bytes, strictly (see `read_records`)."""
    try:
        return json.loads(line.decode("utf-8"), object_pairs_hook=unique_keys, parse_constant=refuse_constant)
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not UTF-8 (byte {error.start} of the line); re-encode the file") from error
    except RecursionError as error:
        raise UserError(f"{where}: JSON nested too deeply for a conversation record") from error
    except ValueError as error:  # JSONDecodeError, our own two hooks, integers of thousands of digits
        raise UserError(f"{where}: not valid JSON: {error}; expected one JSON object a line (JSONL)") from error


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """`object_pairs_hook` that refuses an object naming a key twice."""
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"key {twice!r} is given twice in one object")
    return result


def refuse_constant(name: str) -> None:
    """`parse_constant` hook: NaN and the infinities are no JSON."""
    raise ValueError(f"{name} is not a JSON number")


def refuse_unknown_keys(record: dict[str, Any], known: Sequence[str], where: str) -> None:
    """Raise `UserError` when `record` holds a key outside `known`."""
    unknown = [key for key in record if key not in known]
    if unknown:
        raise UserError(
            f"{where}: unknown key {unknown[0]!r}; the schema knows {', '.join(known)}. "
            "data_prep.import_agentinstruct removes extra keys and counts them"
        )


def refuse_lone_surrogates(text: str, where: str) -> None:
    """Raise `UserError` when `text` holds a lone surrogate."""
    position = find_lone_surrogate(text)
    if position is not None:
        raise UserError(
            f"{where}: lone surrogate {text[position]!r} at character {position} is not Unicode text; "
            "remove or replace it"
        )


def find_lone_surrogate(text: str) -> int | None:
    """Return where `text` cannot be written as UTF-8 (a JSON escape such as \\ud800 alone), None if nowhere."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return error.start
    return None


def kind(value: object) -> str:
    """Describe a JSON value for a message: its type, and whether it is empty."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null or nothing"}
    name = names.get(type(value), "a number")
    return f"{name} that is empty" if value in ({}, [], "") else name
