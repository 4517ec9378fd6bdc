"""The cleaned copy of imported rows: what the audit flagged left out, terminal codes removed, all of it counted."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from data_prep.agentinstruct.audit import Audit
from data_prep.agentinstruct.audit_text import strip_terminal_codes
from megatron_agent.chat.conversation import Conversation


@dataclass
class Cleaned:
    """What the cleaned copy left out and changed."""

    rows: int = 0
    """In the copy; with the dropped ones, as many as in the output."""
    dropped: dict[str, list[str]] = field(default_factory=dict)
    """Rule to the ids it dropped; a row counts for the first of its rules."""
    stripped_sequences: int = 0
    stripped_rows: int = 0
    stripped_to_nothing: list[str] = field(default_factory=list)
    """`id: turn n` of turns that are nothing but control codes: left as they are, a blank turn is no turn."""


def clean_rows(
    conversations: Sequence[Conversation], findings: Audit, drop_flagged: Sequence[str], strip: bool
) -> tuple[list[Conversation], Cleaned]:
    """Return the rows that none of the rules in `drop_flagged` flagged, without terminal codes if `strip`."""
    cleaned = Cleaned()
    reason: dict[str, str] = {}
    for rule in drop_flagged:
        for name in findings.flagged(rule):
            reason.setdefault(name, rule)
    cleaned.dropped = {rule: [] for rule in drop_flagged}
    kept = []
    for conversation in conversations:
        if conversation.id in reason:
            cleaned.dropped[reason[conversation.id]].append(conversation.id)
        else:
            kept.append(without_terminal_codes(conversation, cleaned) if strip else conversation)
    cleaned.rows = len(kept)
    return kept, cleaned


def without_terminal_codes(conversation: Conversation, cleaned: Cleaned) -> Conversation:
    """Return a row without terminal control sequences; count them into `cleaned`."""
    turns, removed = [], 0
    for number, turn in enumerate(conversation.turns, start=1):
        text, count = strip_terminal_codes(turn.value)
        if count and not text.strip():
            cleaned.stripped_to_nothing.append(f"{conversation.id}: turn {number}")
            text, count = turn.value, 0
        removed += count
        turns.append(replace(turn, value=text))
    if not removed:
        return conversation
    cleaned.stripped_sequences += removed
    cleaned.stripped_rows += 1
    return replace(conversation, turns=tuple(turns))
