"""The rows of AgentInstruct: every record checked, what is bad refused or counted."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from data_prep.agentinstruct.audit_triggers import backdoors
from data_prep.agentinstruct.sources import Source, read_records, split_of
from megatron_agent.chat.conversation import (
    RECORD_KEYS,
    TURN_KEYS,
    Conversation,
    check_structure,
    check_trainable,
    parse_conversation,
)
from megatron_agent.errors import UserError

BAD_RULES = {
    "wrong_schema": "not a record of the schema, or text that is not Unicode",
    "wrong_structure": "turns that do not alternate, empty turns, no answer at the end",
    "nothing_trained": "no gpt turn is trained",
    "duplicate_id": "an id that an earlier row has",
}
"""Why a record is bad: an error, or with --on-bad drop, counted and left out."""


@dataclass(frozen=True)
class BadRecord:
    """A record that cannot be imported."""

    rule: str
    where: str
    reason: str
    triggers: tuple[str, ...] = ()
    """Audit rules for backdoors that it breaks too."""


@dataclass
class RowCounts:
    """What reading found."""

    records: int = 0
    """All that were read, bad ones too."""
    removed_keys: Counter[str] = field(default_factory=Counter)
    """Keys outside the schema, by name."""
    bad: list[BadRecord] = field(default_factory=list)
    """Left out (--on-bad drop)."""


def read_rows(source: Source, counts: RowCounts, drop_bad: bool) -> Iterator[tuple[str | None, Conversation]]:
    """Yield the good rows, each with the split that its file's name names; count all into `counts`.

    Raises `UserError` for a source that cannot be read and, without `drop_bad`, for the first bad record.
    """
    from tqdm import tqdm

    seen: dict[str, str] = {}
    located = ((split_of(file), *found) for file in source.files for found in read_records(file))
    for split, where, record in tqdm(located, desc="importing", unit=" records"):
        counts.records += 1
        conversation = None
        rule = "wrong_schema"
        try:
            conversation = parse_conversation(remove_extra_keys(record, counts.removed_keys), where)
            rule = "wrong_structure"
            check_structure(conversation, where)
            rule = "nothing_trained"
            check_trainable(conversation, where)
            rule = "duplicate_id"
            if conversation.id in seen:
                raise UserError(
                    f"{where}: id {conversation.id!r} was used before, at {seen[conversation.id]}; AgentInstruct's "
                    "ids are unique, so this copy holds added or doubled rows: remove them or fetch another copy"
                )
        except UserError as error:
            triggers = trigger_rules(conversation)
            if not drop_bad:
                planted = f" (the row breaks the audit's {', '.join(triggers)} too)" if triggers else ""
                raise UserError(f"{error}{planted}; --on-bad drop leaves out such rows and counts them") from error
            counts.bad.append(BadRecord(rule, where, str(error).removeprefix(f"{where}: "), triggers))
            continue
        seen[conversation.id] = where
        yield split, conversation


def trigger_rules(conversation: Conversation | None) -> tuple[str, ...]:
    """Return the rules for backdoors that one row breaks by itself; planted rows are often malformed too."""
    return tuple(dict.fromkeys(finding.rule for finding in backdoors([conversation]))) if conversation else ()


def remove_extra_keys(record: object, removed: Counter[str]) -> object:
    """Return a record without keys that the schema does not know, counting them."""
    if not isinstance(record, dict):
        return record
    clean_record = keep_keys(record, RECORD_KEYS, removed)
    turns = clean_record.get("conversations")
    if isinstance(turns, list):
        clean_record["conversations"] = [
            keep_keys(turn, TURN_KEYS, removed) if isinstance(turn, dict) else turn for turn in turns
        ]
    return clean_record


def keep_keys(record: dict[str, Any], known: tuple[str, ...], removed: Counter[str]) -> dict[str, Any]:
    """Return `record` with the `known` keys only; the others are counted into `removed`."""
    removed.update(key for key in record if key not in known)
    return {key: value for key, value in record.items() if key in known}
