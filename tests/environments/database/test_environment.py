"""The Database environment against AgentBench's own problems and against hostile replies."""

import json
import re
import time
from pathlib import Path

import pytest

from megatron_agent.environments.base import EnvironmentFault
from megatron_agent.environments.database import INSTRUCTIONS, DatabaseEnvironment, DatabaseTask, Table
from megatron_agent.environments.database.replies import find_action, find_answer, find_sql
from megatron_agent.environments.database.task import read_database_tasks
from megatron_agent.errors import UserError
from tests.environments.database.episodes import PEOPLE, answer, operation, question


@pytest.fixture
def environment() -> DatabaseEnvironment:
    return DatabaseEnvironment()


def test_the_instruction_says_in_other_words_what_agentbenchs_says(shared_data: Path) -> None:
    with open(shared_data / "agentinstruct" / "db.jsonl", encoding="utf-8") as handle:
        original = json.loads(handle.readline())["conversations"][0]["value"]
    ours = INSTRUCTIONS["paper"]
    assert 0.7 < len(ours) / len(original) < 1.3
    shared = {line for line in ours.split("\n") if line in original.split("\n")}  # the grammar alone
    assert shared == {"Action: Operation", "```sql", "```", "Action: Answer",
                      'Final Answer: ["ANSWER1", "ANSWER2", ...]'}  # fmt: skip


def test_agentbench_dev_queries(shared_data: Path, environment: DatabaseEnvironment) -> None:
    tasks = [t for t in read_database_tasks(shared_data / "agentbench/db/dev.jsonl") if not t.modifies]
    assert len(tasks) == 20
    for task in tasks:
        for text, reward in ((json.dumps(list(task.label)), 1.0), ('["surely not this"]', 0.0), ("", 0.0)):
            environment.reset(task)
            last = environment.step(answer(text))
            assert (last.done, last.reward, last.status) == (True, reward, "completed"), task.id


def test_agentbench_dev_modifications_reach_the_md5_labels(shared_data: Path, environment: DatabaseEnvironment) -> None:
    """All 40 labels, computed by AgentBench on MySQL, come out of SQLite."""
    path = shared_data / "agentbench/db/dev.jsonl"
    gold = [json.loads(line)["label"][0] for line in path.read_text(encoding="utf-8").splitlines()]
    agreeing = 0
    for task, sql in zip(read_database_tasks(path), gold, strict=True):
        if not task.modifies:
            continue
        environment.reset(task)
        assert environment.step(answer('["done"]')).reward == 0.0, f"{task.id}: right without any change"
        environment.reset(task)
        assert environment.step(operation(sql)).text == "[]"
        agreeing += environment.step(answer('["done"]')).reward == 1.0
    assert agreeing == 40


def test_feedback_is_the_result_list_or_the_error(environment: DatabaseEnvironment) -> None:
    environment.reset(question())
    assert environment.step(operation("SELECT * FROM people WHERE age > 10;")).text == "[('Ada', '36'), ('Cy', '41')]"
    assert environment.step(operation("SELECT color FROM people")).text == (
        "1054 (42S22): Unknown column 'color' in 'field list'"
    )
    assert environment.step(operation("DELETE FROM people WHERE name = 'Bob'")).text == "[]"
    assert environment.step(operation("SELECT COUNT(*)\nFROM people")).text == "[(2,)]"
    assert environment.step(answer("[2]")).reward == 1.0


def test_feedback_is_cut_to_800_characters(environment: DatabaseEnvironment) -> None:
    rows = tuple((f"row number {i}",) for i in range(500))
    environment.reset(DatabaseTask("t", "q", "d", Table("lengthy", ("c",), rows), "other", ("x",)))
    text = environment.step(operation("SELECT * FROM lengthy")).text
    assert text == str(list(rows))[:800] + "[TRUNCATED]"


def test_fifteen_operations_then_an_answer(environment: DatabaseEnvironment) -> None:
    environment.reset(question())
    for i in range(15):
        assert not environment.step(operation(f"SELECT {i}")).done
    assert environment.step(answer('["2"]')).reward == 1.0

    environment.reset(question())
    for i in range(15):
        environment.step(operation(f"SELECT {i}"))
    last = environment.step(operation("SELECT 16"))
    assert (last.done, last.status, last.reward) == (True, "limit reached", 0.0)


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        ("", "invalid format"),
        ("SELECT * FROM people", "invalid format"),
        ("Action: Operation", "invalid format"),  # no newline after it
        ("Action: Operation\nSELECT 1", "invalid format"),
        ("Action: Operation\n```sql\nSELECT 1", "invalid format"),  # block not closed
        ("Action: Answer\nThe answer is 2", "invalid format"),
        ("Action: Think\nabout it", "invalid action"),
        ("Action: Operation \n```sql\nSELECT 1\n```", "invalid action"),  # a blank after the word
        ("Action: Answer\nFinal Answer: 2", "completed"),
        ("two of them\nFinal Answer: [2]", "completed"),  # AgentBench asks for no action here
    ],
)
def test_replies_that_end_the_episode(environment: DatabaseEnvironment, reply: str, status: str) -> None:
    environment.reset(question())
    last = environment.step(reply)
    assert (last.done, last.status, last.text) == (True, status, "")
    assert last.reward == float(status == "completed")


def test_modification_counts_however_the_episode_ends(environment: DatabaseEnvironment) -> None:
    environment.backend.create(PEOPLE)
    environment.backend.execute("DELETE FROM people WHERE age < 10")
    task = DatabaseTask("t", "q", "d", PEOPLE, "DELETE", (), environment.backend.table_hash(PEOPLE))
    environment.reset(task)
    environment.step(operation("DELETE FROM people WHERE age < 10"))
    assert environment.step("good bye").reward == 1.0
    environment.reset(task)
    environment.step(operation("DELETE FROM people WHERE age < 10"))
    last = environment.stop("repetition")
    assert (last.reward, last.status) == (1.0, "repetition")
    environment.reset(task)
    environment.step(operation("DROP TABLE people"))
    assert environment.step(answer("[]")).reward == 0.0


def test_finders_are_agentbenchs_patterns() -> None:
    """The finders give what AgentBench's regular expressions give."""
    pieces = ["Action: ", "Operation", "\n", "```sql\n", "\n```", "SELECT 1", "Final Answer:", " [1]", "\r", "```"]
    import random

    rng = random.Random(5)
    for _ in range(20_000):
        reply = "".join(rng.choices(pieces, k=rng.randint(0, 12)))
        action = re.search(r"Action: (.*?)\n", reply)
        sql = re.search(r"```sql\n([\s\S]*?)\n```", reply)
        final = re.search(r"\nFinal Answer:(.*)", reply)
        assert find_action(reply) == (action.group(1) if action else None), repr(reply)
        assert find_sql(reply) == (sql.group(1).strip().replace("\n", " ") if sql else None), repr(reply)
        assert find_answer(reply) == (final.group(1) if final else None), repr(reply)


@pytest.mark.parametrize(
    "reply",
    [
        "Action: " * 200_000,
        "```sql\n" * 200_000,
        "Action: Operation\n```sql\n" + "'" * 1_000_001 + "\n```",
        "Action: Operation\n```sql\n" + "/*" * 500_000 + "\n```",
        "Action: Operation\n```sql\n" + "(" * 1_000_000 + "\n```",
        "Action: Operation\n```sql\nSELECT '\ud800\0'\n```",
        "Action: Answer\nFinal Answer: " + "[" * 1_000_000,
        "Action: Answer\nFinal Answer: [" + "9" * 1_000_000 + "]",
        "Action: Answer\nFinal Answer: " + "-" * 100_000 + "1",
        "Action: Answer\nFinal Answer: [{}, []]",
        "Action: Answer\nFinal Answer: \ud800\0",
        "Action: Answer\nFinal Answer: [exit()]",
        'Action: Answer\nFinal Answer: __import__("os").abort()',
    ],
    ids=lambda reply: repr(reply[:30]),
)
@pytest.mark.parametrize("style", ["paper", "fixed"])
def test_hostile_replies_neither_crash_nor_hang(style: str, reply: str) -> None:
    environment = DatabaseEnvironment(style)
    environment.reset(question())
    started = time.monotonic()
    observation = environment.step(reply)
    assert time.monotonic() - started < 5
    assert len(observation.text) <= 811
    assert observation.reward == 0.0


def test_instructions_share_the_grammar() -> None:
    for text in INSTRUCTIONS.values():
        assert "Action: Operation\n```sql\n" in text
        assert 'Action: Answer\nFinal Answer: ["' in text
    with pytest.raises(UserError, match="--prompt-style: expected one of paper, fixed, short, got 'long'"):
        DatabaseEnvironment("long")


def test_a_finished_episode_takes_no_steps(environment: DatabaseEnvironment) -> None:
    environment.reset(question())
    environment.step(answer("[2]"))
    for reply in (answer("[2]"), operation("SELECT 1"), ""):
        with pytest.raises(RuntimeError, match="reset"):
            environment.step(reply)
    with pytest.raises(RuntimeError, match="reset"):
        environment.stop("repetition")
    environment.close()
    environment.close()


def test_a_modification_without_a_hash_is_compared_with_its_gold_sql(environment: DatabaseEnvironment) -> None:
    gold = "UPDATE people SET age = '37' WHERE name = 'Ada';\nDELETE FROM people WHERE name = 'Bob';"
    task = DatabaseTask("t", "q", "d", PEOPLE, "UPDATE", (), None, gold)
    environment.reset(task)
    environment.step(operation("DELETE FROM people WHERE age < 10"))
    environment.step(operation("UPDATE people SET age = 37 WHERE age = 36"))
    assert environment.step(answer("[]")).reward == 1.0
    environment.reset(task)
    assert environment.step(answer("[]")).reward == 0.0
    environment.reset(DatabaseTask("t", "q", "d", PEOPLE, "UPDATE", (), None, "UPDATE gone SET x = 1"))
    with pytest.raises(EnvironmentFault, match=r"task t: its gold SQL fails: 1146 .*'people.gone' doesn't exist"):
        environment.step(answer("[]"))
