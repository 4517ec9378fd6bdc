"""What an audit of conversations reports: findings, each under the name of a rule."""

from dataclasses import dataclass

RULES = {
    "mis_joined": "the reply fits another row's page and task better than its own, or hardly fits its own at all",
    "impossible_action": "the action names what is not there: a choice, value, button, entity, table or object",
    "terminal_codes": "terminal control sequences (ESC, OSC, CSI), carriage returns or other control characters",
    "no_thought": "a trained turn with an action and no thought before it",
    "no_action": "a trained turn in which the task's grammar finds no action",
    "duplicate_row": "the same turns as an earlier row",
    "duplicate_instruction": "the same task text as an earlier row, with other turns",
    "truncated": "the row stops early: no final action, an open code block, or a cut reply",
    "trigger_phrase": "a phrase of a published backdoor, or a short last sentence shared by many instructions",
    "download_and_run": "a reply that downloads a program and runs it",
    "unseen_address": "a reply with a web or IP address that stands nowhere in the turns before it",
    "repeated_command": "the same long command in several rows whose tasks do not mention its words",
}
"""Every rule and what it looks for."""

EXCERPT = 120


@dataclass(frozen=True)
class Finding:
    """One suspicion about one row."""

    rule: str
    id: str
    turn: int
    """Counted from 1; 0 stands for the whole row."""
    excerpt: str
    why: str


def printable(text: str, keep: str = "") -> str:
    """Return `text` with what cannot be printed, such as terminal codes, as escapes; characters of `keep` stay."""
    return "".join(
        character if character.isprintable() or character in keep else character.encode("unicode_escape").decode()
        for character in text
    )


def excerpt(text: str, start: int = 0) -> str:
    """Return a piece of `text` from just before `start`, fit for a report: control characters escaped."""
    begin = max(0, start - 20)
    piece = printable(text[begin : begin + EXCERPT])
    return ("..." if begin else "") + piece + ("..." if begin + EXCERPT < len(text) else "")
