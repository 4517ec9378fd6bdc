"""The messages before an ALFWorld task: instruction, acknowledgement, one demonstration of the game's type."""

import json
import re
from pathlib import Path

from megatron_agent.environments.alfworld.task import CATEGORIES
from megatron_agent.environments.base import Message
from megatron_agent.environments.demonstrations import alfworld_demonstrations, load_demonstrations
from megatron_agent.environments.prompts import read_prompt
from megatron_agent.errors import UserError

_RULES = """\
You act in a household and have to bring about a given goal, one action at a time. First you get a description of the \
room you are in, and the goal. In every turn you also get the list of actions that are possible, and choose one of \
them. There are two ways to answer. To think first, write what you make of the situation and how you go on, then the \
action:
THOUGHT: your thoughts.
 ACTION: your next action
To act at once, write the action alone:
ACTION: your next action
Keep strictly to one of these two forms. After each turn you are told what your action led to. "Nothing happened" \
means that the action was not possible; try another one.
Mind two things.
1. The action must be one of those offered. Any other is not permitted.
2. Think where it helps; otherwise rather act at once."""

_HOW_LISTED = """
The possible actions stand behind "AVAILABLE ACTIONS:". "go to ..." stands for going to any of the places in the \
description of the room."""

INSTRUCTIONS = {"paper": _RULES, "fixed": _RULES + _HOW_LISTED}
"""By prompt style. As in AgentTuning's evaluator, `paper` promises a list of actions that never comes."""

ACKNOWLEDGEMENT = "OK. I will keep to these rules and do my best to reach the goal."


def load_prompts(style: str, grammar: str, file: Path | None) -> dict[str, list[Message]]:
    """Return the messages before the task, by category (put, clean, heat, cool, examine, puttwo).

    `file` is the user's: demonstrations by category as in AgentBench's `alfworld_multiturn_react.json`, which replace
    ours behind the instruction, or what :func:`read_prompt` takes, which replaces everything before the task.
    Demonstrations are put in the task's grammar.
    """
    opening: list[Message] = [
        {"role": "user", "content": INSTRUCTIONS[style]},
        {"role": "assistant", "content": ACKNOWLEDGEMENT},
    ]
    if file is None:
        demonstrations = load_demonstrations("alfworld")
    elif file.suffix != ".jsonl" and _holds_object(file):
        demonstrations = _read_demonstrations(file)
    else:
        opening, demonstrations = [], dict.fromkeys(CATEGORIES.values(), read_prompt(file))
    return {
        category: [*opening, *(_in_grammar(message, grammar) for message in demonstrations[category])]
        for category in CATEGORIES.values()
    }


def _holds_object(file: Path) -> bool:
    try:
        return file.read_text(encoding="utf-8").lstrip().startswith("{")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--prompt-file {file}: cannot be read: {error}") from error


def _read_demonstrations(file: Path) -> dict[str, list[Message]]:
    where = f"--prompt-file {file}"
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not valid JSON: {error}") from error
    return alfworld_demonstrations(data, where)


def _in_grammar(message: Message, grammar: str) -> Message:
    """Say `move a to b` for `put a in/on b` where the games do."""
    text = message["content"]
    if grammar == "move":
        text = re.sub(r"\bput (\S+ \d+) in/on (\S+ \d+)", r"move \1 to \2", text)
        text = re.sub(r"\bYou put the (\S+ \d+) in/on the (\S+ \d+)", r"You move the \1 to the \2", text)
    return {**message, "content": text}
