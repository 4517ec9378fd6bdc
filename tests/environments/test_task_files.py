"""Where tasks and prompts are read from: shipped sets, files, AgentBench's data folder, a user's prompt file."""

import json
from pathlib import Path

import pytest

from megatron_agent.environments.prompts import read_prompt
from megatron_agent.environments.task_files import find_tasks
from megatron_agent.environments.task_kind import WorldOptions
from megatron_agent.errors import UserError

SPLITS = {"dev": ("dbbench/dev.jsonl",), "std": ("dbbench/standard.jsonl", "dbbench/standard.json")}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of AgentBench with the dev tasks and the std tasks under their second name."""
    folder = tmp_path / "AgentBench" / "data" / "dbbench"
    folder.mkdir(parents=True)
    for name in ("dev.jsonl", "standard.json"):
        (folder / name).touch()
    return tmp_path / "AgentBench"


def find(tasks: Path | None, split: str | None = None) -> Path:
    return find_tasks(WorldOptions(tasks=tasks, split=split), Path("shipped.jsonl"), SPLITS)


def test_shipped_files_and_folders(checkout: Path) -> None:
    data = checkout / "data"
    assert find(None) == Path("shipped.jsonl")
    assert find(data / "dbbench" / "dev.jsonl") == data / "dbbench" / "dev.jsonl"
    assert find(data, "dev") == find(checkout, "dev") == data / "dbbench" / "dev.jsonl"
    assert find(data, "std") == data / "dbbench" / "standard.json"


def test_what_does_not_fit_is_refused(checkout: Path) -> None:
    for tasks, split, message in (
        (None, "dev", "--split dev: needs --tasks"),
        (checkout / "data/dbbench/dev.jsonl", "dev", "is a file, which has no splits"),
        (checkout / "nowhere", None, "nowhere: no such file or folder"),
        (checkout, None, "a folder needs --split with one of dev, std"),
        (checkout, "train", "--split: expected one of dev, std, got 'train'"),
        (checkout / "data" / "dbbench", "std", r"expected dbbench/standard.jsonl or dbbench/standard.json there"),
    ):
        with pytest.raises(UserError, match=message):
            find(tasks, split)


def test_prompt_files(tmp_path: Path) -> None:
    path = tmp_path / "prompt.json"
    path.write_text(json.dumps([{"role": "user", "content": "Do."}, {"role": "agent", "content": "Ok."}]))
    assert read_prompt(path) == [{"role": "user", "content": "Do."}, {"role": "assistant", "content": "Ok."}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not valid JSON"),
        (b"\xff", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b'[{"role": "robot", "content": "x"}]', "prompt.json"),
        (b'[{"role": "user"}]', "prompt.json"),
        (b'{"role": "user"}', "prompt.json"),
        (None, "cannot be read"),
    ],
)
def test_damaged_prompt_files_are_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "prompt.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as refused:
        read_prompt(path)
    assert "--prompt-file" in str(refused.value)
