"""AgentBench's history truncation: instruction plus newest messages under 3,500 segments.

Source: `filter_messages` in AgentBench.old/src/agent.py of THUDM/AgentTuning.
"""

import re
from collections.abc import Sequence

from megatron_agent.environments.base import Message

MAX_SEGMENTS = 3500
_LETTERS_PER_SEGMENT = 7
_ASCII_SEGMENT = re.compile(r"[A-Za-z]{1,7}|[^A-Za-z \n]")


def count_segments(text: str) -> int:
    """Count segments: a run of n letters is ceil(n/7), any other character but blank and newline is 1."""
    if text.isascii():  # half the time of the loop; every request counts its history anew
        return len(_ASCII_SEGMENT.findall(text))
    segments = letters = 0
    for character in text:
        if character.isalpha():
            if letters % _LETTERS_PER_SEGMENT == 0:
                segments += 1
            letters += 1
        else:
            letters = 0
            segments += character not in " \n"
    return segments


def truncate_history(messages: Sequence[Message], max_segments: int = MAX_SEGMENTS) -> list[Message]:
    """Keep the instruction and the newest messages whose segments stay under `max_segments`.

    `messages` alternate user, assistant, ..., user, the first being the instruction, which is counted and
    always kept. The kept tail starts with an assistant message; if n messages are left out, the instruction
    ends with `[NOTICE] n messages are omitted.`.
    """
    roles = [message["role"] for message in messages]
    if len(roles) % 2 == 0 or roles != (["user", "assistant"] * len(roles))[: len(roles)]:
        raise ValueError(f"expected user, assistant, ..., user; got {roles}")
    instruction, rest = messages[0], messages[1:]
    segments = count_segments(instruction["content"])
    first_kept = len(rest)
    for index in range(len(rest) - 1, -1, -1):
        segments += count_segments(rest[index]["content"])
        if segments >= max_segments:
            break
        first_kept = index
    kept = list(rest[first_kept:])
    if kept and kept[0]["role"] == "user":
        del kept[0]
    omitted = len(rest) - len(kept)
    if omitted:
        notice = f"{instruction['content']}\n\n[NOTICE] {omitted} messages are omitted."
        return [{"role": "user", "content": notice}, *kept]
    return [instruction, *kept]
