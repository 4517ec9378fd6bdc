"""The rules that turn a raw ShareGPT record into a conversation, each with the name it is counted under.

A `Repair` changes the turns, a `Drop` refuses the conversation; `STEPS` is their order. A further rule is one
more entry there: a function from turns to turns, or from turns to a verdict.
"""

from collections.abc import Callable
from dataclasses import dataclass

from megatron_agent.chat.conversation import Turn, find_lone_surrogate

ROLES = {
    "human": "human",
    "user": "human",
    "gpt": "gpt",
    "chatgpt": "gpt",
    "assistant": "gpt",
    "bing": "gpt",
    "bard": "gpt",
    "system": "system",
}

Turns = list[Turn]


@dataclass(frozen=True)
class Repair:
    """Counted when it changes the turns."""

    name: str
    apply: Callable[[Turns], Turns]


@dataclass(frozen=True)
class Drop:
    """Counted, and the conversation left out, when `applies` holds."""

    name: str
    applies: Callable[[Turns], bool]


class Dropped(Exception):  # noqa: N818 -- a verdict, not an error
    """Raised to leave a conversation out; its argument is the name of the rule."""


def turns_from_record(record: object) -> tuple[Turns, list[str]]:
    """Read the turns of a raw record with the project's role names; also return the raw role names.

    Raises :class:`Dropped` with `wrong_schema`, `unknown_role` or `lone_surrogate`.
    """
    messages = record.get("conversations") if isinstance(record, dict) else None
    if not isinstance(messages, list):
        raise Dropped("wrong_schema")
    turns: Turns = []
    raw_roles: list[str] = []
    for message in messages:
        role = message.get("from") if isinstance(message, dict) else None
        value = message.get("value") if isinstance(message, dict) else None
        if not isinstance(role, str) or not isinstance(value, str):
            raise Dropped("wrong_schema")
        if role.lower() not in ROLES:
            raise Dropped("unknown_role")
        if find_lone_surrogate(value) is not None:
            raise Dropped("lone_surrogate")
        speaker = ROLES[role.lower()]
        turns.append(Turn(speaker, value, loss=True if speaker == "gpt" else None))
        raw_roles.append(role)
    return turns, raw_roles


def without_leading_non_human(turns: Turns) -> Turns:
    """Remove turns before the first human one: later parts of split conversations, banners of sharing sites."""
    first = next((i for i, turn in enumerate(turns) if turn.speaker == "human"), len(turns))
    return turns[first:]


def without_trailing_human(turns: Turns) -> Turns:
    """Remove questions at the end that nobody answered."""
    end = len(turns)
    while end and turns[end - 1].speaker == "human":
        end -= 1
    return turns[:end]


def roles_alternate(turns: Turns) -> bool:
    """Whether turns are human, gpt, human, gpt, ..."""
    return all(turn.speaker == ("gpt" if i % 2 else "human") for i, turn in enumerate(turns))


STEPS: tuple[Repair | Drop, ...] = (
    Drop("no_messages", lambda turns: not turns),
    Drop("single_message", lambda turns: len(turns) == 1),
    Repair("leading_non_human_turns_removed", without_leading_non_human),
    Repair("trailing_human_turns_removed", without_trailing_human),
    Drop("no_exchange_left", lambda turns: len(turns) < 2),
    Drop("empty_message", lambda turns: any(not turn.value.strip() for turn in turns)),
    Drop("roles_not_alternating", lambda turns: not roles_alternate(turns)),
)


def apply_steps(turns: Turns) -> tuple[Turns, list[str]]:
    """Run `STEPS`; return the turns and the names of the repairs made. Raises :class:`Dropped`."""
    repairs: list[str] = []
    for step in STEPS:
        if isinstance(step, Drop):
            if step.applies(turns):
                raise Dropped(step.name)
            continue
        repaired = step.apply(turns)
        if repaired != turns:
            repairs.append(step.name)
        turns = repaired
    return turns, repairs
