"""What was played, and its form as training data."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from megatron_agent.chat.conversation import Conversation, Turn
from megatron_agent.environments.base import Message, Status

Number = TypeVar("Number", int, float)

_SPEAKERS = {"user": "human", "assistant": "gpt", "system": "system"}


@dataclass(frozen=True)
class Trajectory:
    """One episode: all messages (never the truncated view), the reward and how it ended.

    The first `context_messages` messages came from the environment's reset: assistant messages among them
    (the acknowledgement, demonstrations) are context, not the model's. A reply of which the conversation kept
    something else has that under `kept`, beside `content`. Token counts and cost are sums over the
    episode's requests, None if none is known; `finish_reasons` counts the server's words for why replies ended, and
    `request_seconds` holds the time of each request.
    `scores` are the environment's further figures. `error` explains a `task error`, a context limit, and what failed
    when the environment was closed. An episode whose environment could not be reset has no messages.
    One that was over before a first request has no replies.
    """

    task_id: str
    category: str
    messages: tuple[Message, ...]
    context_messages: int
    reward: float
    status: Status
    rounds: int
    seconds: float
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None
    cost: float | None = None
    finish_reasons: Mapping[str, int] = field(default_factory=dict)
    request_seconds: tuple[float, ...] = ()


def trajectory_to_conversation(trajectory: Trajectory, model: str | None = None) -> Conversation:
    """Return the episode in AgentInstruct's schema: `loss` is true on the model's turns, false on context.

    Of a cut reply the part that was kept is the turn: the rest would teach a model to write observations itself.
    """
    turns: list[Turn] = []
    for index, message in enumerate(trajectory.messages):
        speaker = _SPEAKERS[message["role"]]
        loss = index >= trajectory.context_messages if speaker == "gpt" else None
        turns.append(Turn(speaker, message.get("kept", message["content"]), loss))
    return Conversation(
        id=trajectory.task_id,
        turns=tuple(turns),
        model=model,
        reward=trajectory.reward,
        task=trajectory.category,
    )


def sum_known(amounts: Iterable[Number | None]) -> Number | None:
    """Return the sum of the amounts that are known, None when none is (servers need not report tokens)."""
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if known else None
