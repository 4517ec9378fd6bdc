"""The record of an episode under way: its messages, replies and times, told to a listener as they come."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from megatron_agent.agents.reply import Reply
from megatron_agent.agents.trajectory import Trajectory, sum_known
from megatron_agent.environments.base import Message, Observation, Task

OnEvent = Callable[[dict[str, Any]], None]
"""Takes the events of :class:`EpisodeRecord`, in the thread of the episode; what it raises ends the run."""


class EpisodeRecord:
    """What has been said in an episode so far.

    `on_event` gets a dict of JSON values for every message (`event` is "message"; `task_id`, `index`, `role`,
    `content`, `seconds` since the start; on a model's reply also `prompt_tokens`, `completion_tokens`, `cost`,
    `finish_reason` and `request_seconds`, which are None on other messages), for every reply that stays in the
    conversation as something else (`event` is "kept"; `task_id`, `index` of the reply, `kept`, `seconds`) and one at
    the end (`event` is "end"; `task_id`, `reward`, `status`, `scores`, `rounds`, `seconds`, `prompt_tokens`,
    `completion_tokens`, `cost`, `error`). An episode that is broken off has no end.
    """

    def __init__(self, task: Task, on_event: OnEvent | None = None) -> None:
        self.task = task
        self.messages: list[Message] = []
        self.replies: list[Reply] = []
        self.context_messages = 0
        self.error: str | None = None
        self._on_event = on_event
        self._started = time.monotonic()

    def begin(self, context: Sequence[Message]) -> None:
        """Record the messages of the environment's reset."""
        for message in context:
            self.add(message)
        self.context_messages = len(context)

    def add_reply(self, reply: Reply) -> None:
        """Record a reply of the model."""
        self.replies.append(reply)
        self.add({"role": "assistant", "content": reply.text}, reply)

    def keep(self, text: str) -> None:
        """Mark the last message, a reply: what stays of it in the conversation is `text`."""
        self.messages[-1]["kept"] = text
        self._tell(event="kept", index=len(self.messages) - 1, kept=text)

    def add(self, message: Message, reply: Reply | None = None) -> None:
        """Record a message; `reply` is where it came from."""
        self.messages.append(message)
        self._tell(
            event="message",
            index=len(self.messages) - 1,
            **message,
            prompt_tokens=reply and reply.prompt_tokens,
            completion_tokens=reply and reply.completion_tokens,
            cost=reply and reply.cost,
            finish_reason=reply and reply.finish_reason,
            request_seconds=reply and round(reply.seconds, 3),
        )

    def note(self, error: str) -> None:
        """Keep what went wrong, after what is kept already."""
        self.error = error if self.error is None else f"{self.error}; {error}"

    def finish(self, observation: Observation) -> Trajectory:
        """Return the trajectory of the episode, which ended on `observation`."""
        if observation.status is None:
            raise RuntimeError(f"the environment ended task {self.task.id} without a status")
        trajectory = Trajectory(
            task_id=self.task.id,
            category=self.task.category,
            messages=tuple(self.messages),
            context_messages=self.context_messages,
            reward=observation.reward,
            scores=dict(observation.scores),
            status=observation.status,
            rounds=len(self.replies),
            seconds=time.monotonic() - self._started,
            prompt_tokens=sum_known(reply.prompt_tokens for reply in self.replies),
            completion_tokens=sum_known(reply.completion_tokens for reply in self.replies),
            error=self.error,
            cost=sum_known(reply.cost for reply in self.replies),
            finish_reasons=dict(Counter(reply.finish_reason for reply in self.replies if reply.finish_reason)),
            request_seconds=tuple(round(reply.seconds, 3) for reply in self.replies),
        )
        same = ("reward", "status", "rounds", "prompt_tokens", "completion_tokens", "cost", "error")
        self._tell(event="end", scores=trajectory.scores, **{name: getattr(trajectory, name) for name in same})
        return trajectory

    def _tell(self, event: str, **fields: Any) -> None:
        if self._on_event is not None:
            seconds = round(time.monotonic() - self._started, 3)
            self._on_event({"event": event, "task_id": self.task.id, "seconds": seconds, **fields})
