"""What every environment looks like from outside: text in, text out, a reward at the end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args

Message = dict[str, str]
"""One chat message in the OpenAI form: `role` (system, user or assistant) and `content`."""

Status = Literal[
    "completed",
    "invalid format",
    "invalid action",
    "limit reached",
    "context limit",
    "repetition",
    "task error",
]
"""How an episode ended: AgentBench's outcomes; `task error` is the machinery's failure, not the model's."""

STATUSES: tuple[str, ...] = get_args(Status)


class EnvironmentFault(Exception):  # noqa: N818
    """The machinery behind an environment failed (a server gone, a sandbox that does not start), not the model."""


@dataclass(frozen=True)
class Observation:
    """The environment's answer to one reply.

    `text` is the next user message (empty when the episode is over). `reward` lies in [0, 1]; it, `status` and
    `scores` (further figures of the benchmark by name, such as exact match beside F1) are set only when `done`.
    With `restart` the conversation begins again: the next request holds the messages of `reset` but the last, and
    `text` in its place (Mind2Web asks each choice of its tournament without memory of the others).
    `reply` is what of the model's reply stays in the conversation, None all of it (Knowledge Graph cuts it at an
    "Observation:" of the model's own); the record keeps both.
    """

    text: str
    done: bool
    reward: float = 0.0
    status: Status | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    restart: bool = False
    reply: str | None = None


class EpisodeOver(Exception):  # noqa: N818
    """Raised by `reset` when there is nothing to ask the model: the episode ends on `observation`, which is `done`.

    `messages` are for the record, such as the task that is not played.
    """

    def __init__(self, observation: Observation, messages: Sequence[Message] = ()) -> None:
        super().__init__(observation.status)
        self.observation = observation
        self.messages = list(messages)


class Task(Protocol):
    """What the harness needs to know of a task; everything else is between the task and its environment."""

    @property
    def id(self) -> str: ...

    @property
    def category(self) -> str: ...


class Environment(Protocol):
    """One episode at a time: `reset`, then `step` until `done` (or `stop`), then `reset` again or `close`.

    An instance is used by one thread; concurrent episodes each get their own.
    """

    def reset(self, task: Any) -> list[Message]:
        """Start an episode: return instruction, acknowledgement, demonstrations if any, and the task.

        Raises EpisodeOver when the episode ends before a first request.
        """

    def step(self, reply: str) -> Observation:
        """Take the model's reply and answer with an observation."""

    def stop(self, status: Status) -> Observation:
        """End the episode from outside (repetition, context limit) and score what was done so far.

        The harness counts a `task error` as 0, whatever was done.
        """

    def close(self) -> None:
        """Release what the episode holds. Safe to call twice."""
