"""Recorded episodes played again, and experts."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from megatron_agent.agents.client import ScriptedClient
from megatron_agent.agents.episode import play, play_many
from megatron_agent.agents.replay import ExpertClients, ReplayClient
from megatron_agent.environments.base import Message
from megatron_agent.environments.task_kind import TaskKind, WorldOptions
from megatron_agent.errors import UserError
from megatron_agent.evaluation.results import result_of
from tests.agents.walking import ON, Walk, Walking


def record(path: Path, *trajectories: Any) -> Path:
    path.write_text("".join(json.dumps(result_of(trajectory)) + "\n" for trajectory in trajectories))
    return path


def walk_kind(expert: Any) -> TaskKind:
    def no_world(options: WorldOptions) -> Any:
        raise AssertionError("a replay opens no world")

    return TaskKind("walk", "Walk", WorldOptions, no_world, lambda episodes: {}, "score", expert=expert)


def go_on(messages: Sequence[Message]) -> str:
    return f"Thought: After {len(messages)} messages.\nAction: on"


def walk(task: Walk, client: Any) -> Any:
    return play(Walking(), task, client)


def test_a_run_of_the_experts_replays_to_the_same_results(tmp_path: Path) -> None:
    tasks = [Walk(f"walk {number}", rooms=1 + number % 5) for number in range(12)]
    gold = list(play_many(tasks, Walking, ExpertClients(walk_kind(expert=lambda task: go_on)).for_task, 4))
    assert all(trajectory.reward == 1 for trajectory in gold)
    replay = ReplayClient.from_results(record(tmp_path / "results.jsonl", *gold), strict=True)
    again = list(play_many(tasks, Walking, replay.for_task, 4))
    first, second = (
        {t.task_id: (t.messages, t.reward, t.status, t.scores) for t in played} for played in (gold, again)
    )
    assert first == second


def test_a_changed_world_is_noticed_when_asked(tmp_path: Path) -> None:
    played = walk(Walk("w"), ScriptedClient(lambda messages: ON))
    replay = ReplayClient.from_results(record(tmp_path / "r.jsonl", played), strict=True)
    longer = Walk("w", rooms=5)
    with pytest.raises(UserError, match=r"r\.jsonl:1: the episode ended after 3 replies when it was recorded"):
        walk(longer, replay.for_task(longer))

    class OtherWalking(Walking):
        def reset(self, task: Walk) -> Any:
            return [*super().reset(task)[:-1], {"role": "user", "content": "w: room zero"}]

    with pytest.raises(UserError, match="differs before reply 1: recorded 'w: room 0', now 'w: room zero'"):
        play(OtherWalking(), Walk("w"), replay.for_task(Walk("w")))
    loose = ReplayClient.from_results(tmp_path / "r.jsonl")
    assert play(OtherWalking(), Walk("w"), loose.for_task(Walk("w"))).reward == 1
    assert walk(longer, loose.for_task(longer)).status == "task error"


def test_strict_replay_sees_through_truncation(tmp_path: Path) -> None:
    class LongWalking(Walking):
        def step(self, reply: str) -> Any:
            observation = super().step(reply)
            return replace(observation, text=observation.text * 2000)

    played = play(LongWalking(), Walk("w"), ScriptedClient(lambda messages: ON))
    replay = ReplayClient.from_results(record(tmp_path / "r.jsonl", played), strict=True)
    assert play(LongWalking(), Walk("w"), replay.for_task(Walk("w"))).messages == played.messages


def test_replies_are_replayed_as_they_were_before_they_were_cut(tmp_path: Path) -> None:
    class Cutting(Walking):
        def step(self, reply: str) -> Any:
            return replace(super().step(reply), reply=reply.split("Observation:")[0])

    played = play(Cutting(), Walk("w"), ScriptedClient(lambda messages: f"on {len(messages)} Observation: a palace"))
    replay = ReplayClient.from_results(record(tmp_path / "r.jsonl", played), strict=True)
    again = play(Cutting(), Walk("w"), replay.for_task(Walk("w")))
    assert again.messages == played.messages
    assert again.messages[3]["kept"] == "on 3 "


@pytest.mark.parametrize("status", ["context limit", "task error"])
def test_endings_of_the_machinery_are_replayed(tmp_path: Path, status: str) -> None:
    played = walk(Walk("w"), ScriptedClient(lambda messages: ON))
    line = result_of(played)
    line.update(status=status, error="as it was", messages=line["messages"][:5])
    (tmp_path / "r.jsonl").write_text(json.dumps(line) + "\n")
    again = walk(Walk("w"), ReplayClient.from_results(tmp_path / "r.jsonl", strict=True).for_task(Walk("w")))
    assert (again.status, again.error, again.rounds) == (status, "as it was", 1)


def test_the_last_line_of_a_task_counts(tmp_path: Path) -> None:
    failed = walk(Walk("w", rooms=9), ScriptedClient(lambda messages: "old"))
    played = walk(Walk("w"), ScriptedClient(lambda messages: ON))
    replay = ReplayClient.from_results(record(tmp_path / "r.jsonl", failed, played))
    assert walk(Walk("w"), replay.for_task(Walk("w"))).messages == played.messages


def test_bad_recordings_are_named(tmp_path: Path) -> None:
    good = result_of(walk(Walk("w"), ScriptedClient(lambda messages: ON)))
    with pytest.raises(UserError, match="no such file"):
        ReplayClient.from_results(tmp_path / "none.jsonl")
    bad: list[tuple[dict[str, Any], str]] = [
        ({"messages": None}, "'messages'"),
        ({"context_messages": "3"}, "'context_messages'"),
        ({"id": 3}, "'id'"),
        ({"messages": [{"role": "user"}]}, "message 0"),
        ({"messages": ["hi"]}, "message 0"),
        ({"context_messages": 0, "messages": good["messages"][1:]}, "a user message first"),
    ]
    for change, text in bad:
        (tmp_path / "r.jsonl").write_text(json.dumps(good) + "\n" + json.dumps({**good, **change}) + "\n")
        with pytest.raises(UserError, match=rf"r\.jsonl:2: .*{text}"):
            ReplayClient.from_results(tmp_path / "r.jsonl")


def test_tasks_that_cannot_be_played(tmp_path: Path) -> None:
    played = walk(Walk("w"), ScriptedClient(lambda messages: ON))
    replay = ReplayClient.from_results(record(tmp_path / "r.jsonl", played))
    with pytest.raises(UserError, match="holds no episode of task other"):
        replay.for_task(Walk("other"))
    with pytest.raises(UserError, match="the tasks of walk carry no gold solution"):
        ExpertClients(walk_kind(expert=None))
