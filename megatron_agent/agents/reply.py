"""What a request to a model gives: a reply with its counts and cost, or one of two errors."""

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Prices:
    """What a served model costs, in any one currency, per million tokens."""

    prompt: float
    completion: float


@dataclass(frozen=True)
class Reply:
    """A model's reply.

    Token counts are None if the server reports none; `cost` is None without them or without prices. `seconds` is the
    whole request with its further tries; `finish_reason` is the server's word (`stop`, `length`, ...). Tries that
    failed are in no count: their tokens are not reported.
    """

    text: str
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost: float | None = None
    seconds: float = 0.0
    finish_reason: str | None = None


class ContextLimitError(Exception):
    """The conversation is longer than the model's context."""


class RequestError(Exception):
    """The server answered a single request with an error that trying again did not mend."""


def read_completion(body: bytes, prices: Prices | None, seconds: float) -> Reply:
    """Return the reply in the JSON of a chat completion.

    `content: null`, or none in a message with a role, is an empty reply: servers send it when the model wrote nothing
    that can be shown (all tokens went into reasoning or a tool call, or a filter took them). Lone surrogates become
    U+FFFD, since no encoder takes them. Raises RequestError for anything that is no chat completion.
    """
    try:
        completion = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"expected a chat completion, got no JSON ({error}): {body[:200]!r}") from error
    try:
        choice = completion["choices"][0]
        message = choice["message"]
        text = message.get("content") if "role" in message else message["content"]
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise RequestError(f"expected a chat completion, got {body[:200]!r}") from error
    if not isinstance(text, str | None):
        raise RequestError(f"expected a text under choices[0].message.content, got {str(text)[:200]!r}")
    finish_reason, usage = choice.get("finish_reason"), completion.get("usage")
    prompt_tokens, completion_tokens = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    cost = None
    if prices is not None and prompt_tokens is not None and completion_tokens is not None:
        cost = (prices.prompt * prompt_tokens + prices.completion * completion_tokens) / 1e6
    return Reply(
        text=encodable(text or ""),
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        cost=cost,
        seconds=seconds,
        finish_reason=finish_reason if isinstance(finish_reason, str) else None,
    )


def encodable(text: str) -> str:
    """Return a text with U+FFFD in place of lone surrogates, and pairs of them as the characters they stand for."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _count(usage: Any, name: str) -> int | None:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53 else None
