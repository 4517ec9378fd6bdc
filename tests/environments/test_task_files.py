"""Where tasks and prompts are read from: shipped sets, files, AgentBench's data folder, a user's prompt file."""

import json
from pathlib import Path

import pytest

from megatron_agent.environments.prompts import read_prompt
from megatron_agent.environments.task_files import TaskSet
from megatron_agent.environments.task_kind import WorldOptions
from megatron_agent.errors import UserError

TASK_SET = TaskSet(
    Path("shipped.jsonl"), {"dev": ("dbbench/dev.jsonl",), "std": ("dbbench/standard.jsonl", "dbbench/standard.json")}
)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of AgentBench with the dev tasks and the std tasks under their second name."""
    folder = tmp_path / "AgentBench" / "data" / "dbbench"
    folder.mkdir(parents=True)
    for name in ("dev.jsonl", "standard.json"):
        (folder / name).touch()
    return tmp_path / "AgentBench"


def find(tasks: Path | None, split: str | None = None) -> Path:
    return TASK_SET.find(WorldOptions(tasks=tasks, split=split))


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


def conversation(identifier: str, *turns: str) -> str:
    """A line of AgentInstruct; `-` begins an answer of context only, `+` a trained one."""
    flags = {"-": ("gpt", False), "+": ("gpt", True)}
    values = []
    for turn in turns:
        speaker, loss = flags.get(turn[0], ("human", None))
        values.append({"from": speaker, "loss": loss, "value": turn.lstrip("-+")})
    return json.dumps({"id": identifier, "conversations": values}) + "\n"


def test_the_prompt_of_a_split_of_agentinstruct(tmp_path: Path) -> None:
    path = tmp_path / "os.jsonl"
    path.write_text(
        conversation("os_0", "Do, for one:", "-Like so.", "Done?", "-Yes.", "Now a new one.", "+So.", "Well?", "+Yes.")
        + conversation("os_1", "Do, for one:", "-Like so.", "Done?", "-Yes.", "Now another.", "+So.")
    )
    texts = [(message["role"], message["content"]) for message in read_prompt(path)]
    assert texts == [("user", "Do, for one:"), ("assistant", "Like so."), ("user", "Done?"), ("assistant", "Yes.")]
    with path.open("a") as file:
        file.write(conversation("os_2", "Do, for two:", "-Like so.", "Now another.", "+So."))
    with pytest.raises(UserError, match=r"--prompt-file .*os.jsonl: .* all begin alike.* 'os_0' and 'os_2' differ"):
        read_prompt(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (conversation("mind2web_0", "A page, a question.", "+Answer: A."), "'mind2web_0' begins with its task"),
        (conversation("db_0", "Do.", "-Ok."), "got 1 messages"),
        (
            conversation("db_0", "Do.", "A question.", "A second.", "+So."),
            "message 2: expected a text of role assistant",
        ),
        ("", "the file is empty"),
        ("{}\n", "prompt.jsonl:1"),
    ],
)
def test_conversations_without_a_prompt_are_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "prompt.jsonl"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        read_prompt(path)


def test_the_prompt_of_the_released_database_split(shared_data: Path) -> None:
    """Truth: the released rows, whose instruction names the two forms of an action."""
    instruction, acknowledgement = read_prompt(shared_data / "agentinstruct" / "db.jsonl")
    assert "Action: Operation\n```sql\n" in instruction["content"]
    assert acknowledgement == {"role": "assistant", "content": "Ok."}
