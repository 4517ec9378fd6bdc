"""Generated tasks: both splits apart, labels true, expert trajectories right."""

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from data_prep.database_tasks.families import TEST_FAMILIES, TRAIN_FAMILIES, Family
from data_prep.database_tasks.generator import generate_tasks
from data_prep.generate_database_tasks import main
from megatron_agent.chat.conversation import check_trainable, read_conversations
from megatron_agent.environments.database import DatabaseEnvironment
from megatron_agent.environments.database.task import read_database_tasks
from megatron_agent.errors import UserError


def names(families: tuple[Family, ...]) -> set[str]:
    return {
        name.lower()
        for family in families
        for name in (*family.tables, family.noun, family.nouns, family.key, *family.texts, *family.numbers)
    }


def values(families: tuple[Family, ...]) -> set[str]:
    texts = (column for family in families for column in (family.key_values, *family.texts.values()))
    return {value for column in texts for value in column}


def test_families_of_both_splits_are_apart() -> None:
    assert len(TRAIN_FAMILIES) >= 10
    assert len(TEST_FAMILIES) >= 6
    assert not names(TRAIN_FAMILIES) & names(TEST_FAMILIES)
    assert not values(TRAIN_FAMILIES) & values(TEST_FAMILIES)


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generated")
    for split in ("train", "test"):
        main(["--split", split, "--count", "120", "--seed", "5", "--output", str(folder / f"{split}.jsonl"),
              "--trajectories", str(folder / f"{split}_trajectories.jsonl")])  # fmt: skip
    return folder


@pytest.mark.parametrize("split", ["train", "test"])
def test_files(generated: Path, split: str) -> None:
    tasks = read_database_tasks(generated / f"{split}.jsonl")
    assert len(tasks) == 120
    assert len({task.question for task in tasks}) == 120
    assert {task.category for task in tasks} == {
        "other", "counting", "comparison", "ranking", "INSERT", "UPDATE", "DELETE",
        "aggregation-MAX", "aggregation-MIN", "aggregation-SUM", "aggregation-AVG",
    }  # fmt: skip
    conversations = list(read_conversations(generated / f"{split}_trajectories.jsonl"))
    assert len(conversations) == 120, "the expert solves every task"
    for task, conversation in zip(tasks, conversations, strict=True):
        check_trainable(conversation, conversation.id)
        assert conversation.id == task.id
        assert conversation.reward == 1
        assert [turn.loss for turn in conversation.turns] == [None, False, None, True, None, True]
        thought, action = conversation.turns[3].value.split("\nAction: Operation\n```sql\n")
        assert thought
        assert len(thought) < 120
        assert action.endswith("\n```")


def test_no_table_name_of_a_test_task_is_in_training(generated: Path) -> None:
    seen = {}
    for split in ("train", "test"):
        tasks = read_database_tasks(generated / f"{split}.jsonl")
        seen[split] = {name for task in tasks for name in (task.table.name, *task.table.columns)}
    assert not seen["train"] & seen["test"]


def test_labels_are_those_of_plain_sqlite(generated: Path) -> None:
    """The gold SQL of the trajectories, run on Python's own sqlite3 without our surface."""
    conversations = read_conversations(generated / "test_trajectories.jsonl")
    for task, conversation in zip(read_database_tasks(generated / "test.jsonl"), conversations, strict=True):
        sql = conversation.turns[3].value.split("```sql\n")[1].removesuffix("\n```")
        connection = sqlite3.connect(":memory:")
        connection.execute(f"CREATE TABLE {task.table.name} ({', '.join(task.table.columns)})")
        marks = ", ".join("?" * len(task.table.columns))
        cells = [[int(cell) if cell.isdigit() else cell for cell in row] for row in task.table.rows]
        connection.executemany(f"INSERT INTO {task.table.name} VALUES ({marks})", cells)
        cursor = connection.execute(sql)
        got = [value for row in cursor.fetchall() for value in row]
        if task.modifies:
            assert cursor.rowcount >= 1
            continue
        environment = DatabaseEnvironment()
        environment.reset(task)
        assert environment.step(f"Action: Answer\nFinal Answer: {json.dumps(got)}").reward == 1 or (
            {str(value) for value in got} == set(task.label)
        )


def test_same_seed_same_files_other_seed_other_files(tmp_path: Path) -> None:
    """In separate processes with different hash seeds: nothing hangs on set order."""
    for name, seed, hash_seed in (("a", "1", "1"), ("b", "1", "2"), ("c", "2", "1")):
        subprocess.run(
            [sys.executable, "-m", "data_prep.generate_database_tasks", "--split", "train", "--count", "40",
             "--seed", seed, "--output", str(tmp_path / f"{name}.jsonl"),
             "--trajectories", str(tmp_path / f"{name}_t.jsonl")],
            cwd=Path(__file__).resolve().parents[2], env={"PYTHONHASHSEED": hash_seed}, check=True,
            capture_output=True,
        )  # fmt: skip
    for suffix in (".jsonl", "_t.jsonl"):
        first, again, other = ((tmp_path / f"{name}{suffix}").read_bytes() for name in "abc")
        assert first == again
        assert first != other


def test_a_larger_count_extends_a_smaller_one() -> None:
    few = [generated.task for generated in generate_tasks("train", 20, 1)]
    many = [generated.task for generated in generate_tasks("train", 50, 1)]
    assert many[:20] == few


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--count", "0"], "--count: expected at least 1"),
        (["--prompt-style", "long"], "--prompt-style: expected one of paper, fixed, short"),
    ],
)
def test_bad_arguments(tmp_path: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        main(["--split", "train", "--count", "3", "--output", str(tmp_path / "x.jsonl"), *arguments])
    assert not list(tmp_path.iterdir())
