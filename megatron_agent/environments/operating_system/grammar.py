"""What a reply asks for, and how a command's output is told."""

import re
from dataclasses import dataclass
from typing import Literal

MAX_OUTPUT_CHARACTERS = 800
KEPT_CHARACTERS = 780
TRUNCATION = "\n[truncated because the output is too long]"
EMPTY_OUTPUT = "The output of the OS is empty."

_ACT = re.compile(r"Act:\s*(.+)")
_LOOSE_BLOCK = re.compile(r"```(?:bash|sh|shell)?[ \t]*\n(.*?)(?:\n?```|\Z)", re.DOTALL)
# Control sequences of a terminal: CSI, OSC and other strings, two-character escapes (ECMA-48)
_CONTROL_SEQUENCE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]|\x9b[0-?]*[ -/]*[@-~]"
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class Action:
    """One action: bash with its code, or the end (`commit`) with an answer, None after `finish`."""

    kind: Literal["bash", "commit"]
    content: str | None


def find_action(reply: str, style: str = "paper") -> Action | None:
    """Return the action of the last valid `Act:` in a reply, or None.

    All bash blocks of the reply are joined by an empty line (no block: no code, an empty command). With style
    `fixed` a block may also be fenced as sh or not named, or not closed, and bash without a block is no action.
    """
    for action in reversed(_ACT.findall(reply)):
        word = action.lower()
        if word.startswith("bash"):
            blocks = _bash_blocks(reply) if style == "paper" else _LOOSE_BLOCK.findall(reply)
            code = "\n\n".join(blocks)
            return Action("bash", code) if code.strip() or style == "paper" else None
        if word.startswith("finish"):
            return Action("commit", None)
        if word.startswith("answer"):
            content = action[len("answer") :].strip()
            left, right = content.find("("), content.rfind(")")
            if left != -1 and right != -1:
                return Action("commit", content[left + 1 : right])
    return None


def _bash_blocks(reply: str) -> list[str]:
    """Return what the pattern "```bash\\n(.*?)\\n```" finds, in time linear in the reply."""
    blocks = []
    start = reply.find("```bash\n")
    while start >= 0 and (end := reply.find("\n```", start + 8)) >= 0:
        blocks.append(reply[start + 8 : end])
        start = reply.find("```bash\n", end + 4)
    return blocks


def clean_output(raw: str) -> str:
    """Return output as text: without control sequences and characters, with plain line ends, none at the end."""
    text = _CONTROL.sub("", _CONTROL_SEQUENCE.sub("", raw.replace("\r\n", "\n").replace("\r", "\n")))
    return text.rstrip("\n")


def feedback(raw: str) -> str:
    """Return the user message for a command's output; more than 800 characters are cut to 780 and a notice."""
    text = clean_output(raw)
    if not text:
        return EMPTY_OUTPUT
    if len(text) > MAX_OUTPUT_CHARACTERS:
        text = text[:KEPT_CHARACTERS] + TRUNCATION
    return f"The output of the OS:\n\n{text}"
