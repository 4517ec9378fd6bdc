"""What the model is asked about five candidates, and what its reply says.

The question is AgentBench's word for word (`format_input_multichoice`): the training data of AgentInstruct has it so.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from megatron_agent.environments.mind2web.page import Choice

MAX_PREVIOUS_ACTIONS = 5
NONE_OF_THE_ABOVE = "A"
LETTERS = "ABCDEF"
OPERATIONS = ("CLICK", "SELECT", "TYPE")

GRAMMAR = """
Reply with a thought, the letter of your choice, the action, and for SELECT and TYPE its value, a line each:
Thought: why this element is next
Answer: B.
Action: SELECT
Value: the option to select, or the text to type
With answer A leave Action and Value away. The action is CLICK, SELECT or TYPE.
"""
"""What the style `fixed` adds to every question: `paper` leaves the form of a reply to the demonstrations."""


@dataclass(frozen=True)
class Answer:
    """A reply as read: the letter of a choice, and the action as `CLICK`, `SELECT value` or `TYPE value`."""

    letter: str
    action: str


class AnswerError(Exception):
    """A reply that the style `fixed` does not take; the argument tells the model why."""


def ask(page: str, confirmed_task: str, previous_actions: Sequence[str], choices: Sequence[Choice]) -> str:
    """Return the question about a pruned page."""
    previous = list(previous_actions[-MAX_PREVIOUS_ACTIONS:]) or ["None"]
    options = [f"{letter}. {choice.text}" for letter, choice in zip(LETTERS[1:], choices, strict=False)]
    return (
        f"'''\n{page}\n'''\n\n"
        "Based on the HTML webpage above, try to complete the following task:\n"
        f"Task: {confirmed_task}\n"
        "Previous actions:\n" + "\n".join(previous) + "\n"
        "What should be the next action? Please select from the following choices "
        "(If the correct action is not in the page above, please select A. 'None of the above'):\n\n"
        "A. None of the above\n" + "".join(f"{option}\n" for option in options)
    )


def read_answer(reply: str) -> Answer:
    """Read a reply as AgentBench does: no answer is A, no action or value is empty, the first of several counts."""
    reply = reply.strip()
    letter = re.search(r"Answer: ([A-F])", reply)
    action = re.search(r"Action: (CLICK|SELECT|TYPE)", reply)
    value = re.search(r"Value: (.*)$", reply, re.MULTILINE)
    return Answer(
        letter[1] if letter else NONE_OF_THE_ABOVE,
        f"{action[1] if action else ''} {value[1].strip() if value else ''}",
    )


def read_answer_strictly(reply: str, choices: int) -> Answer:
    """Read a reply in the style `fixed`. Raises AnswerError, which says what is missing.

    Case, markdown and blanks around a line's words do not matter; the value of a CLICK is left away.
    """
    letter = _field("Answer", r"([A-F])(?=[.):,*]|[^\w\n]*$)").search(reply)  # no word: `Answer: a dropdown`
    if not letter:
        raise AnswerError(f"it has no line `Answer:` with one of the letters A to {LETTERS[choices]}")
    chosen = letter[1].upper()
    if chosen == NONE_OF_THE_ABOVE:
        return Answer(chosen, "")
    if LETTERS.index(chosen) > choices:
        raise AnswerError(f"there is no choice {chosen}; the choices are A to {LETTERS[choices]}")
    action = _field("Action", r"(CLICK|SELECT|TYPE)\b").search(reply)
    if not action:
        raise AnswerError(f"with answer {chosen} it needs a line `Action:` with CLICK, SELECT or TYPE")
    operation = action[1].upper()
    if operation == "CLICK":
        return Answer(chosen, operation)
    value = re.search(r"^\W{0,8}Value\W{0,8}?:[ \t*]*(\S.*)$", reply, re.MULTILINE | re.IGNORECASE)
    if not value:
        raise AnswerError(f"with action {operation} it needs a line `Value:`")
    return Answer(chosen, f"{operation} {value[1].strip()}")


def _field(name: str, value: str) -> re.Pattern[str]:
    """Return the pattern of a line `name: value`, in linear time on hostile text for its bounded repeats."""
    return re.compile(rf"^\W{{0,8}}{name}\W{{0,8}}?:\W{{0,8}}{value}", re.MULTILINE | re.IGNORECASE)


def gold_action(operation: str, value: str) -> str:
    """Return the action of a gold operation, in the form of :class:`Answer`.

    AgentBench reads it out of a written answer: only the first line of a value counts, and a CLICK has none.
    """
    lines = value.split("\n") if operation != "CLICK" else []
    return f"{operation} {lines[0].strip()}" if lines else operation
