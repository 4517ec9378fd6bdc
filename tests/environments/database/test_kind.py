"""The Database task as the harness opens it: shipped tasks, gold replay, options, prompt files, AgentBench's folder."""

import json
from pathlib import Path

import pytest

from megatron_agent.environments.database import TASK_KIND, DatabaseEnvironment, DatabaseTask
from megatron_agent.environments.database.kind import DatabaseOptions
from megatron_agent.errors import UserError
from tests.environments.database.episodes import PEOPLE, operation, question


def test_agentbenchs_own_prompt_is_taken_from_a_file(shared_data: Path, tmp_path: Path) -> None:
    """AgentInstruct's rows begin with it; the command of docs/environments.md writes it into a file."""
    with open(shared_data / "agentinstruct" / "db.jsonl", encoding="utf-8") as handle:
        turns = json.loads(handle.readline())["conversations"]
    roles = {"human": "user", "gpt": "agent"}
    prompt = [{"role": roles[turn["from"]], "content": turn["value"]} for turn in turns[:2]]
    (tmp_path / "prompt.json").write_text(json.dumps(prompt))
    with TASK_KIND.open(DatabaseOptions(prompt_file=tmp_path / "prompt.json")) as world:
        messages = world.make_environment().reset(question())
    assert [message["content"] for message in messages[:2]] == [turn["value"] for turn in turns[:2]]
    assert messages[0]["content"].startswith("I will ask you a question, then you should help me operate a MySQL")
    assert [message["role"] for message in messages] == ["user", "assistant", "user"]
    assert messages[2]["content"] == "How many are over 30?\nThe name of this table is people."


def play_gold(task: DatabaseTask, style: str) -> float:
    assert TASK_KIND.expert is not None
    expert, environment = TASK_KIND.expert(task), DatabaseEnvironment(style)
    messages = environment.reset(task)
    while not (observation := environment.step(expert(messages))).done:
        assert observation.text.startswith("["), observation.text
        messages.append({"role": "user", "content": observation.text})
    return observation.reward


@pytest.mark.parametrize("style", TASK_KIND.prompt_styles)
def test_shipped_tasks_are_won_by_their_gold_statements(style: str) -> None:
    with TASK_KIND.open(DatabaseOptions(prompt_style=style)) as world:
        assert len(world.tasks) == 30
        assert world.facts["engine"] == "sqlite"
        assert all(task.gold_sql for task in world.tasks)
        assert [play_gold(task, style) for task in world.tasks] == [1.0] * 30


def test_shipped_labels_are_what_their_gold_queries_show() -> None:
    with TASK_KIND.open(DatabaseOptions()) as world:
        for task in world.tasks:
            environment = world.make_environment()
            environment.reset(task)
            text = environment.step(operation(task.gold_sql)).text
            values = [str(value) for row in eval(text) for value in row]
            assert values == [] if task.modifies else values == list(task.label)
            environment.close()


def test_no_replay_of_a_modification_without_gold_sql() -> None:
    assert TASK_KIND.expert is not None
    assert TASK_KIND.expert(question())([]) == "I know the answer.\nAction: Answer\nFinal Answer: ['2']"
    with pytest.raises(UserError, match='task t: needs "gold_sql" for a replay'):
        TASK_KIND.expert(DatabaseTask("t", "q", "d", PEOPLE, "DELETE", (), "[('0',)]"))


def test_a_prompt_file_replaces_the_messages_before_the_task(tmp_path: Path) -> None:
    path = tmp_path / "prompt.json"
    path.write_text('[{"role": "user", "content": "Use SQL."}, {"role": "agent", "content": "Yes."}]')
    with TASK_KIND.open(DatabaseOptions(prompt_file=path)) as world:
        messages = world.make_environment().reset(world.tasks[0])
        assert [message["content"] for message in messages[:2]] == ["Use SQL.", "Yes."]
        messages[0]["content"] = "changed"
        assert world.make_environment().reset(world.tasks[1])[0]["content"] == "Use SQL."


@pytest.mark.parametrize("split", ["dev", "std", "train"])
def test_agentbenchs_folder(tmp_path: Path, split: str) -> None:
    (tmp_path / "data" / "dbbench").mkdir(parents=True)
    names = {"dev": "dev.jsonl", "std": "standard.jsonl", "train": "db_out_new.jsonl"}
    record = {"description": "q", "type": ["other"], "label": [split], "table": {
        "table_name": "t", "table_info": {"columns": ["a"], "rows": []}}}  # fmt: skip
    for name, file in names.items():
        (tmp_path / "data/dbbench" / file).write_text(json.dumps({**record, "label": [name]}) + "\n")
    with TASK_KIND.open(DatabaseOptions(tasks=tmp_path, split=split)) as world:
        assert [task.label for task in world.tasks] == [(split,)]


def test_bad_options() -> None:
    for options, message in (
        (DatabaseOptions(database_url="oracle://x:secret@h"), "--database-url: expected sqlite or mysql://"),
        (DatabaseOptions(database_connections=0), "--database-connections: expected at least 1, got 0"),
    ):
        world = TASK_KIND.open(options)
        with pytest.raises(UserError, match=message):
            world.__enter__()
