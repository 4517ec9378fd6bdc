"""`transcripts.jsonl`: every message of every episode as it comes, so that a killed run loses none."""

import json
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from megatron_agent.evaluation.results import Result
from megatron_agent.files import naming, read_json_lines_tolerating_cut_tail, write_json_lines


class Transcripts:
    """The file, open for appending. Lines are the events of `EpisodeRecord`.

    It is made by the model's first reply, or by an episode that ends without one: a server that is not there leaves
    no folder behind. What an earlier run left of episodes that are not in `finished` then goes: they are played again.
    """

    def __init__(self, path: Path, finished: Collection[str]) -> None:
        self.path = path
        self._finished = set(finished)
        self._handle: IO[bytes] | None = None
        self._waiting: list[dict[str, Any]] = []

    def write(self, event: dict[str, Any]) -> None:
        """Append an event at once, so that a killed program leaves at most its last line cut."""
        self._waiting.append(event)
        if self._handle is None and not _is_reply(event) and event["event"] != "end":
            return
        with naming(self.path):
            if self._handle is None:
                self._handle = self._open()
            lines = "".join(json.dumps(waiting) + "\n" for waiting in self._waiting)
            self._waiting.clear()
            self._handle.write(lines.encode("ascii"))
            self._handle.flush()

    def _open(self) -> IO[bytes]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        events = read_json_lines_tolerating_cut_tail(self.path)
        write_json_lines(self.path, (event for event in events if event.get("task_id") in self._finished))
        return open(self.path, "ab")

    def __enter__(self) -> "Transcripts":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handle is not None:
            with naming(self.path):  # what could not be written is tried again
                self._handle.close()


def read_unfinished(path: Path, finished: Collection[str]) -> list[Result]:
    """Return the episodes of a transcript that are not in `finished`, as far as they were played.

    They have the fields of a result; `reward` is None and `status` "unfinished". Messages before the first reply of
    the model are the context.
    """
    episodes: dict[str, list[dict[str, Any]]] = {}
    for event in read_json_lines_tolerating_cut_tail(path):
        if event.get("task_id") in finished:
            continue
        if event.get("event") == "message":
            episodes.setdefault(str(event["task_id"]), []).append(event)
        elif event.get("event") == "kept":
            episodes[str(event["task_id"])][event["index"]]["kept"] = event["kept"]
    return [_unfinished(identifier, events) for identifier, events in episodes.items()]


def _unfinished(identifier: str, events: list[dict[str, Any]]) -> Result:
    replies = [index for index, event in enumerate(events) if _is_reply(event)]
    return {
        "id": identifier,
        "category": "",
        "reward": None,
        "status": "unfinished",
        "rounds": len(replies),
        "context_messages": replies[0] if replies else len(events),
        "messages": [{name: event[name] for name in ("role", "content", "kept") if name in event} for event in events],
    }


def _is_reply(event: dict[str, Any]) -> bool:
    return event.get("request_seconds") is not None
