"""Prompts from a user's file: the messages before the task, such as the original benchmark's."""

import json
from pathlib import Path

from megatron_agent.chat.conversation import Conversation, read_conversations
from megatron_agent.environments.base import Message
from megatron_agent.environments.demonstrations import checked
from megatron_agent.errors import UserError

_ROLES = {"human": "user", "gpt": "assistant"}


def read_prompt(path: str | Path) -> list[Message]:
    """Return the messages of `--prompt-file`: instruction, acknowledgement, demonstrations.

    Two kinds of file: a JSON list of `{"role": "user" | "agent", "content": ...}`, as AgentBench ships them; or a
    split of AgentInstruct (`.jsonl`), whose conversations all begin with the prompt that they were made with: what
    stands before the question to the first trained answer. Raises UserError for a missing or malformed file, naming
    the first bad message, and for conversations that do not begin alike.
    """
    path = Path(path)
    where = f"--prompt-file {path}"
    if path.suffix == ".jsonl":
        return checked(_common_beginning(path, where), where)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{where}: cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not valid JSON: {error}") from error
    return checked(data, where)


def _common_beginning(path: Path, where: str) -> list[Message]:
    first: Conversation | None = None
    for conversation in read_conversations(path):
        if first is None:
            first = conversation
            prompt = _before_task(conversation)
        elif _before_task(conversation) != prompt:
            raise UserError(
                f"{where}: expected conversations of one task that all begin alike; before their first trained answer "
                f"{first.id!r} and {conversation.id!r} differ"
            )
    if first is None or not prompt:
        raise UserError(
            f"{where}: expected conversations that begin with instruction and acknowledgement (loss false); "
            + ("the file is empty" if first is None else f"{first.id!r} begins with its task")
        )
    return prompt


def _before_task(conversation: Conversation) -> list[Message]:
    """Return the turns before the question to the first trained answer (all but the last turn when there is none)."""
    trained = (number for number, turn in enumerate(conversation.turns) if turn.trained)
    end = next(trained, len(conversation.turns)) - 1
    return [
        {"role": _ROLES.get(turn.speaker, turn.speaker), "content": turn.value} for turn in conversation.turns[:end]
    ]
