"""The file of messages as they come, and what is read of episodes that were cut off."""

import json
from pathlib import Path
from typing import Any

import pytest

from megatron_agent.errors import UserError
from megatron_agent.evaluation.transcripts import Transcripts, read_unfinished


def event(task: str, index: int, role: str, reply: bool = False) -> dict[str, Any]:
    message = {"role": role, "content": f"{role} {index} \ud800\n"}
    return {"event": "message", "task_id": task, "index": index, **message, "request_seconds": 0.25 if reply else None}


EPISODE = [("user", False), ("assistant", False), ("user", False), ("assistant", True), ("user", False)]


def play(transcripts: Transcripts, task: str, messages: int) -> None:
    for index, (role, reply) in enumerate(EPISODE[:messages]):
        transcripts.write(event(task, index, role, reply))


def tasks_in(path: Path) -> list[str]:
    return [json.loads(line)["task_id"] for line in path.read_text().splitlines()]


def test_lines_are_there_at_once_from_the_first_reply_on(tmp_path: Path) -> None:
    path = tmp_path / "new" / "transcripts.jsonl"
    with Transcripts(path, []) as transcripts:
        play(transcripts, "a", 3)
        assert not path.parent.exists(), "a server that is not there leaves no folder"
        transcripts.write(event("a", 3, "assistant", True))
        assert tasks_in(path) == ["a"] * 4
        transcripts.write(event("b", 0, "user"))
        assert tasks_in(path) == ["a"] * 4 + ["b"]


def test_a_later_run_drops_what_is_played_again(tmp_path: Path) -> None:
    path = tmp_path / "transcripts.jsonl"
    with Transcripts(path, []) as transcripts:
        play(transcripts, "done", 5)
        play(transcripts, "cut", 4)
    with path.open("a") as handle:
        handle.write('{"event": "mess')
    with Transcripts(path, ["done"]):
        pass
    assert path.read_text().endswith("mess"), "without a new reply the file stays as it is"
    with Transcripts(path, ["done"]) as transcripts:
        play(transcripts, "cut", 5)
    assert tasks_in(path) == ["done"] * 5 + ["cut"] * 5


def test_unfinished_episodes(tmp_path: Path) -> None:
    path = tmp_path / "transcripts.jsonl"
    assert read_unfinished(path, []) == []
    with Transcripts(path, []) as transcripts:
        play(transcripts, "done", 5)
        play(transcripts, "begun", 2)
        play(transcripts, "cut", 5)
    begun, cut = read_unfinished(path, ["done"])
    assert (begun["id"], begun["context_messages"], begun["rounds"], begun["status"]) == ("begun", 2, 0, "unfinished")
    assert (cut["id"], cut["context_messages"], cut["rounds"], cut["reward"]) == ("cut", 3, 1, None)
    assert cut["messages"][3] == {"role": "assistant", "content": "assistant 3 \ud800\n"}


def test_what_was_kept_of_a_reply(tmp_path: Path) -> None:
    path = tmp_path / "transcripts.jsonl"
    with Transcripts(path, []) as transcripts:
        play(transcripts, "cut", 4)
        play(transcripts, "other", 5)
        transcripts.write({"event": "kept", "task_id": "cut", "index": 3, "kept": "assistant"})
    cut, other = read_unfinished(path, [])
    assert cut["messages"][3] == {"role": "assistant", "content": "assistant 3 \ud800\n", "kept": "assistant"}
    assert all("kept" not in message for message in other["messages"])


def test_episodes_that_end_without_a_reply_are_written(tmp_path: Path) -> None:
    path = tmp_path / "transcripts.jsonl"
    with Transcripts(path, []) as transcripts:
        play(transcripts, "a", 1)
        play(transcripts, "b", 1)
        transcripts.write({"event": "end", "task_id": "a", "index": 1})
        assert tasks_in(path) == ["a", "b", "a"]


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "transcripts.jsonl"
    path.write_text("rubbish\n")
    with Transcripts(path, []) as transcripts, pytest.raises(UserError, match=r"transcripts.jsonl:1: expected a line"):
        play(transcripts, "a", 4)


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "transcripts.jsonl"

    def fill_the_disk() -> None:
        with Transcripts(path, []) as transcripts:
            play(transcripts, "a", 4)
            assert transcripts._handle is not None
            transcripts._handle.close()
            transcripts._handle = open("/dev/full", "wb")  # noqa: SIM115
            play(transcripts, "b", 4)

    with pytest.raises(OSError, match="No space left") as full:
        fill_the_disk()
    assert full.value.filename == str(path)
