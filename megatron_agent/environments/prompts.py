"""Prompts from a user's file: the messages before the task, such as the original benchmark's."""

import json
from pathlib import Path

from megatron_agent.environments.base import Message
from megatron_agent.environments.demonstrations import checked
from megatron_agent.errors import UserError


def read_prompt(path: str | Path) -> list[Message]:
    """Return the messages of `--prompt-file`: a JSON list of `{"role": "user" | "agent", "content": ...}`.

    They stand before the task: instruction, acknowledgement, demonstrations. Raises UserError for a missing or
    malformed file, naming the first bad message.
    """
    path = Path(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"--prompt-file {path}: cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"--prompt-file {path}: not valid JSON: {error}") from error
    return checked(data, f"--prompt-file {path}")
