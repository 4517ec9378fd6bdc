"""Mind2Web rows taken apart: page, task, previous actions, choices; thought, letter, action, value of the reply.

Forms: the released rows (THUDM/AgentInstruct, mind2web split) and the evaluator's parser (`mind2web/task.py`).
"""

import re
from dataclasses import dataclass

MARKS = (
    "'''\n\nBased on the HTML webpage above",
    "\nTask: ",
    "\nPrevious actions:\n",
    "\nWhat should be the next action?",
    "\n\nA. ",
)
"""What stands after page, preface, task, previous actions and the last question; the choices follow."""
CHOICE = re.compile(r"^(?P<letter>[A-Z])\. (?P<text>.*)$", re.MULTILINE)
THOUGHT = re.compile(r"\A\s*(?:Thought:)?\s*(?P<thought>.*?)\s*(?=^Answer:|\Z)", re.DOTALL | re.MULTILINE)
TAG = re.compile(r"<\s*([\w-]+)")
NONE_OF_THE_ABOVE = "A"


@dataclass(frozen=True)
class Mind2WebQuestion:
    """The human turn of a row."""

    page: str
    task: str
    previous: str
    choices: dict[str, str]
    """Letter to the first tokens of the element; `A` is none of them."""


@dataclass(frozen=True)
class Mind2WebReply:
    """The gpt turn of a row; empty strings for missing lines."""

    thought: str
    letter: str
    action: str
    value: str


def parse_question(text: str) -> Mind2WebQuestion | None:
    """Take a human turn apart; None when it has another form."""
    parts = []
    for mark in MARKS:
        part, found, text = text.partition(mark)
        if not found:
            return None
        parts.append(part)
    page, _, task, previous, _ = parts
    choices = {choice["letter"]: choice["text"] for choice in CHOICE.finditer("A. " + text)}
    return Mind2WebQuestion(page, task, previous, choices)


def parse_reply(text: str) -> Mind2WebReply:
    """Take a gpt turn apart."""

    def line(name: str) -> str:
        match = re.search(rf"^{name}:[ \t]*(.*?)[ \t]*$", text, re.MULTILINE)
        return match[1] if match else ""

    thought = THOUGHT.match(text)
    return Mind2WebReply(
        thought=thought["thought"] if thought else "",
        letter=line("Answer").rstrip(".")[:1],
        action=line("Action"),
        value=line("Value"),
    )


def element_of(choice: str) -> str:
    """Return the tag of a choice such as `<select id=1 type> ...`, an empty string without one."""
    match = TAG.match(choice.strip())
    return match[1].lower() if match else ""
