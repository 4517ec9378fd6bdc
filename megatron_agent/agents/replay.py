"""Clients without a model: the recorded replies of an earlier run, and the experts of the tasks."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_agent.agents.client import ChatClient, ContextLimitError, Reply, RequestError, ScriptedClient
from megatron_agent.environments.base import Message, Task
from megatron_agent.environments.task_kind import TaskKind
from megatron_agent.errors import UserError
from megatron_agent.files import read_json_lines_tolerating_cut_tail

_MEND = "give a results.jsonl that python -m megatron_agent.evaluate wrote"


@dataclass(frozen=True)
class RecordedEpisode:
    """One line of `results.jsonl`: `source` is where it stands, `replies` are the indices of the model's messages."""

    source: str
    messages: Sequence[Message]
    replies: Sequence[int]
    status: str
    error: str


class ReplayClient:
    """Plays recorded episodes again: `for_task` gives the client of a task's next episode.

    An episode that ended in `context limit` or `task error` ends so again. With `strict`, every request must end on
    the message that was recorded before its reply; the first that does not, or that comes after the last reply,
    raises UserError. Without it, replies are given whatever is asked, and a request after the last is a
    RequestError.
    """

    def __init__(self, episodes: dict[str, RecordedEpisode], source: str, strict: bool = False) -> None:
        self.episodes = episodes
        self.source = source
        self.strict = strict

    @classmethod
    def from_results(cls, path: str | Path, strict: bool = False) -> "ReplayClient":
        """Read `results.jsonl`; of a task that was played again after a task error, the last line counts.

        Raises UserError naming the line that is no result.
        """
        if not Path(path).is_file():
            raise UserError(f"{path}: no such file; {_MEND}")
        lines = read_json_lines_tolerating_cut_tail(path)
        episodes = {}
        for number, line in enumerate(lines, start=1):
            identifier, episode = _read_line(line, f"{path}:{number}")
            episodes[identifier] = episode
        return cls(episodes, str(path), strict)

    def for_task(self, task: Task) -> ChatClient:
        """Return the client of one episode. Raises UserError when the task was not recorded."""
        if task.id not in self.episodes:
            raise UserError(
                f"{self.source}: holds no episode of task {task.id}; {_MEND} for these tasks, or its --limit"
            )
        return _EpisodeReplay(self.episodes[task.id], self.strict)


class _EpisodeReplay:
    """The replies of one recorded episode, in order."""

    def __init__(self, episode: RecordedEpisode, strict: bool) -> None:
        self.episode = episode
        self.strict = strict
        self.given = 0

    def complete(self, messages: Sequence[Message]) -> Reply:
        episode = self.episode
        if self.given == len(episode.replies):
            return self._end()
        index = episode.replies[self.given]
        if self.strict:
            self._compare(messages, index)
        self.given += 1
        return Reply(episode.messages[index]["content"])

    def _compare(self, messages: Sequence[Message], index: int) -> None:
        recorded, asked = self.episode.messages[index - 1]["content"], messages[-1]["content"]
        cut_to_instruction = "messages are omitted." in asked and asked.startswith(self.episode.messages[0]["content"])
        if asked != recorded and not cut_to_instruction:
            raise UserError(
                f"{self.episode.source}: replay differs before reply {self.given + 1}: recorded {recorded[:200]!r}, "
                f"now {asked[:200]!r}; the task, its world or its rules have changed"
            )

    def _end(self) -> Reply:
        episode = self.episode
        if episode.status == "context limit":
            raise ContextLimitError(episode.error)
        if episode.status == "task error":
            raise RequestError(episode.error)
        message = f"{episode.source}: the episode ended after {len(episode.replies)} replies when it was recorded"
        if self.strict:
            raise UserError(f"{message}, now it goes on; the task, its world or its rules have changed")
        raise RequestError(message)


class ExpertClients:
    """The experts of a kind of task: `for_task` gives the client that plays a task's gold solution."""

    def __init__(self, kind: TaskKind) -> None:
        if kind.expert is None:
            raise UserError(f"--expert: the tasks of {kind.name} carry no gold solution to play")
        self.expert = kind.expert

    def for_task(self, task: Any) -> ChatClient:
        """Return the client of one episode. Raises UserError when the task has no gold solution."""
        return ScriptedClient(self.expert(task))


def _read_line(line: dict[str, Any], where: str) -> tuple[str, RecordedEpisode]:
    fields = {"id": str, "status": str, "messages": list, "context_messages": int}
    for name, kind in fields.items():
        if not isinstance(line.get(name), kind):
            raise UserError(f"{where}: expected {kind.__name__} under {name!r}, got {line.get(name)!r:.60}; {_MEND}")
    messages = line["messages"]
    for number, message in enumerate(messages):
        texts = (message.get("role"), message.get("content")) if isinstance(message, dict) else (None,)
        if not all(isinstance(text, str) for text in texts):
            raise UserError(f"{where}: message {number}: expected role and content, got {message!r:.60}; {_MEND}")
    roles = [message["role"] for message in messages]
    replies = [i for i in range(line["context_messages"], len(messages)) if roles[i] == "assistant"]
    if replies and replies[0] == 0:
        raise UserError(f"{where}: expected a user message first, got the model's; {_MEND}")
    return line["id"], RecordedEpisode(where, messages, replies, line["status"], str(line.get("error")))
