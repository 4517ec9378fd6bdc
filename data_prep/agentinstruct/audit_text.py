"""Audit rules that look at one text at a time, and duplicates: control codes, missing thoughts, cut-off rows."""

import re
from collections.abc import Iterator, Sequence

from data_prep.agentinstruct.audit_findings import Finding, excerpt
from data_prep.agentinstruct.card import task_of
from data_prep.agentinstruct.replies import GRAMMARS, question_index, thought_of
from megatron_agent.chat.conversation import Conversation

# ECMA-48: OSC and other strings up to BEL or ST (in cut output, at most to the end of the line), CSI sequences,
# two-character escapes, the 8-bit forms.
TERMINAL_CODE = re.compile(
    r"(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\r\n]*(?:\x07|\x1b\\|\x9c)?"
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"
    r"|\x1b[ -/]*[0-~]?"
    r"|\r\n?"
    r"|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"
)
EXCERPT_TAIL = 100
CODE_FENCE = "```"


def strip_terminal_codes(text: str) -> tuple[str, int]:
    """Return `text` without terminal control sequences, and how many were found; carriage returns become newlines."""
    return TERMINAL_CODE.subn(lambda match: "\n" if match[0].startswith("\r") else "", text)


def terminal_codes(conversation: Conversation) -> Iterator[Finding]:
    """Report each turn with terminal control sequences."""
    for number, turn in enumerate(conversation.turns, start=1):
        if first := TERMINAL_CODE.search(turn.value):
            count = strip_terminal_codes(turn.value)[1]
            yield Finding(
                "terminal_codes",
                conversation.id,
                number,
                excerpt(turn.value, first.start()),
                f"{count} control sequences or characters in a {turn.speaker} turn",
            )


def replies_off_grammar(conversation: Conversation) -> Iterator[Finding]:
    """Report trained replies without a thought or without an action."""
    task = task_of(conversation)
    if task not in GRAMMARS:
        return
    for number, turn in enumerate(conversation.turns, start=1):
        if not turn.trained:
            continue
        thought = thought_of(task, turn.value)
        if thought is None:
            yield Finding(
                "no_action", conversation.id, number, excerpt(turn.value), f"no action in the grammar of {task}"
            )
        elif not any(character.isalnum() for character in thought):
            yield Finding(
                "no_thought", conversation.id, number, excerpt(turn.value), "the action stands without a thought"
            )


def truncated(conversation: Conversation) -> Iterator[Finding]:
    """Report rows that stop before a final action, and replies cut in the middle."""
    for number, turn in enumerate(conversation.turns, start=1):
        if turn.speaker != "gpt":
            continue
        if turn.value.count(CODE_FENCE) % 2:
            yield Finding(
                "truncated", conversation.id, number, excerpt(turn.value[-EXCERPT_TAIL:]), "an open code block"
            )
        elif turn.value.rstrip().endswith("[TRUNCATED]"):
            yield Finding(
                "truncated", conversation.id, number, excerpt(turn.value[-EXCERPT_TAIL:]), "ends on [TRUNCATED]"
            )
    task, last = task_of(conversation), conversation.turns[-1]
    if task in GRAMMARS and last.trained and not GRAMMARS[task].final.search("\n" + last.value):
        yield Finding(
            "truncated",
            conversation.id,
            len(conversation.turns),
            excerpt(last.value[-EXCERPT_TAIL:]),
            f"the last reply is no final action of {task}",
        )


def duplicates(conversations: Sequence[Conversation]) -> Iterator[Finding]:
    """Report rows that repeat an earlier row, or its task text."""
    rows: dict[tuple[object, ...], str] = {}
    instructions: dict[tuple[str, str], str] = {}
    for conversation in conversations:
        turns = tuple((turn.speaker, turn.value) for turn in conversation.turns)
        index = question_index(conversation)
        question = " ".join(conversation.turns[index].value.split())
        key = task_of(conversation), question
        if turns in rows:
            yield Finding("duplicate_row", conversation.id, 0, excerpt(question), f"the same turns as {rows[turns]}")
        elif key in instructions:
            yield Finding(
                "duplicate_instruction",
                conversation.id,
                index + 1,
                excerpt(question),
                f"the same task as {instructions[key]}, answered otherwise",
            )
        rows.setdefault(turns, conversation.id)
        instructions.setdefault(key, conversation.id)
