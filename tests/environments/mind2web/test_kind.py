"""The kind of task: the shipped set, its options, its measures."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data_prep.mind2web_pages.__main__ import write_pages
from megatron_agent.agents.client import ScriptedClient
from megatron_agent.agents.episode import play_many
from megatron_agent.agents.trajectory import Trajectory
from megatron_agent.environments.demonstrations import load_demonstrations
from megatron_agent.environments.mind2web.kind import TASK_KIND, TASK_SET
from megatron_agent.environments.mind2web.scoring import mind2web_metrics, token_f1
from megatron_agent.environments.mind2web.task import Mind2WebTask
from megatron_agent.environments.registry import get_task_kind
from megatron_agent.environments.task_kind import EpisodeScore, Expert
from megatron_agent.errors import UserError
from tests.environments.mind2web.pages import make_action, make_record, natural_ranks, write


def play_shipped(expert: Any, **options: Any) -> tuple[list[Trajectory], dict[str, float]]:
    with TASK_KIND.open(TASK_KIND.options(**options)) as world:
        played = list(
            play_many(world.tasks, world.make_environment, lambda task: ScriptedClient(expert(task)), concurrency=8)
        )
        assert len(played) == len(world.tasks)
    scores = [EpisodeScore(each.category, each.reward, each.status, each.scores) for each in played]
    return played, TASK_KIND.metrics(scores)


@pytest.mark.parametrize("style", TASK_KIND.prompt_styles)
def test_gold_replay_of_the_shipped_set(style: str) -> None:
    assert TASK_KIND.expert is not None
    played, metrics = play_shipped(TASK_KIND.expert, prompt_style=style)
    assert list(metrics)[:3] == ["step_sr", "element_acc", "action_f1"]
    assert set(metrics.values()) == {1.0}
    assert {each.status for each in played} == {"completed"}
    assert {each.reward for each in played} == {1.0}


def test_wrong_elements_and_wrong_values_score_nothing() -> None:
    def wrong_element(task: Mind2WebTask) -> Expert:
        others = [node_id for node_id in task.candidates if node_id not in task.gold]
        return TASK_KIND.expert(replace(task, gold=(others[0],)))  # type: ignore[misc]

    _, metrics = play_shipped(wrong_element)
    assert (metrics["step_sr"], metrics["element_acc"], metrics["action_f1"]) == (0.0, 0.0, 1.0)

    def wrong_value(task: Mind2WebTask) -> Expert:
        return TASK_KIND.expert(replace(task, operation="TYPE", value="nothing"))  # type: ignore[misc]

    _, metrics = play_shipped(wrong_value)
    assert (metrics["step_sr"], metrics["element_acc"]) == (0.0, 1.0)
    assert metrics["action_f1"] < 0.2

    def silent(task: Mind2WebTask) -> Expert:
        return lambda messages: ""

    _, metrics = play_shipped(silent)
    assert metrics["step_sr"] == metrics["element_acc"] == metrics["action_f1"] == 0.0


def test_the_shipped_set() -> None:
    with TASK_KIND.open(TASK_KIND.options()) as world:
        tasks = world.tasks
    assert len(tasks) >= 30
    assert len({task.confirmed_task for task in tasks}) >= 8
    assert len({task.website for task in tasks}) == 6
    assert {task.operation for task in tasks} == {"CLICK", "SELECT", "TYPE"}
    assert all(len(task.candidates) == 10 for task in tasks)
    assert sum(file.stat().st_size for file in TASK_SET.shipped.parent.iterdir()) < 500_000


def test_the_shipped_files_are_what_is_made(tmp_path: Path) -> None:
    write_pages(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(
        file.name for file in TASK_SET.shipped.parent.iterdir()
    )
    for file in tmp_path.iterdir():
        assert file.read_bytes() == (TASK_SET.shipped.parent / file.name).read_bytes()


def test_document_order_is_a_choice(tmp_path: Path) -> None:
    record = make_record([make_action("u0"), make_action("u1", gold="11")])
    path = write(tmp_path / "deep" / "er" / "test.json", [record])
    with (
        pytest.raises(UserError, match=r"found no scores_all_data.pkl or scores_all_data.json"),
        TASK_KIND.open(TASK_KIND.options(tasks=path)),
    ):
        pass
    with TASK_KIND.open(TASK_KIND.options(tasks=path, mind2web_candidates="document")) as world:
        assert [task.gold for task in world.tasks] == [("3",), ()]
        assert world.facts == {"candidates": "document"}
    scores = write(tmp_path / "elsewhere.json", {"scores": {}, "ranks": natural_ranks([record])})
    with TASK_KIND.open(TASK_KIND.options(tasks=path, mind2web_scores=scores)) as world:
        assert world.facts == {"candidates": "ranked"}
    for options, words in (
        ({"mind2web_candidates": "document", "mind2web_scores": scores}, "leave one of them away"),
        ({"mind2web_candidates": "first"}, "--mind2web-candidates: expected one of ranked, document, got 'first'"),
        ({"mind2web_scores": scores, "prompt_style": "own"}, "--prompt-style"),
        ({"mind2web_scores": scores, "split": "dev"}, "is a file, which has no splits"),
    ):
        with pytest.raises(UserError, match=words), TASK_KIND.open(TASK_KIND.options(tasks=path, **options)):
            pass


def test_folders_of_agentbench_and_mind2web(tmp_path: Path) -> None:
    record = make_record([make_action()])
    write(tmp_path / "data" / "data_std" / "std_0.json", [record])
    write(tmp_path / "data" / "scores_all_data.json", {"ranks": natural_ranks([record])})
    for options in (
        {"tasks": tmp_path / "data", "split": "std"},
        {"tasks": tmp_path, "split": "std"},
        {"tasks": tmp_path / "data" / "data_std"},
    ):
        with TASK_KIND.open(TASK_KIND.options(**options)) as world:
            assert [task.id for task in world.tasks] == ["task_u0"]
    with (
        pytest.raises(UserError, match="expected data_dev or mind2web/data_dev there"),
        TASK_KIND.open(TASK_KIND.options(tasks=tmp_path / "data", split="dev")),
    ):
        pass


def test_demonstrations_come_first(shared_data: Path) -> None:
    original = shared_data / "agentbench" / "mind2web" / "llm_prompt.json"
    with TASK_KIND.open(TASK_KIND.options()) as world:
        own = world.make_environment().reset(world.tasks[0])
    with TASK_KIND.open(TASK_KIND.options(prompt_file=original)) as world:
        theirs = world.make_environment().reset(world.tasks[0])
    assert own[:-1] == load_demonstrations("mind2web")[""]
    assert [message["content"] for message in theirs[:-1]] == [
        m["content"] for m in json.loads(original.read_text())[:6]
    ]
    assert own[-1] == theirs[-1]


def test_measures() -> None:
    def episode(category: str, step_sr: float, element_acc: float, action_f1: float, gold: float = 1.0) -> EpisodeScore:
        scores = {"step_sr": step_sr, "element_acc": element_acc, "action_f1": action_f1, "gold_in_top10": gold}
        return EpisodeScore(category, step_sr, "completed", scores)

    metrics = mind2web_metrics(
        [
            episode("Travel/rail", 1, 1, 1),
            episode("Travel/rail", 0, 1, 0.5),
            episode("Travel/bus", 0, 0, 1),
            episode("Info/library", 0, 0, 0, gold=0),
        ]
    )
    assert metrics == pytest.approx(
        {
            "step_sr": 1 / 4,
            "element_acc": 2 / 4,
            "action_f1": 2.5 / 4,
            "gold_in_top10": 3 / 4,
            "step_sr_of_gold_in_top10": 1 / 3,
            "element_acc_of_gold_in_top10": 2 / 3,
            "action_f1_of_gold_in_top10": 2.5 / 3,
            "step_sr/Info": 0,
            "step_sr/Info/library": 0,
            "step_sr/Travel": 1 / 3,
            "step_sr/Travel/bus": 0,
            "step_sr/Travel/rail": 1 / 2,
        }
    )
    failed = mind2web_metrics([EpisodeScore("Travel/rail", 0.0, "task error")])
    assert (failed["step_sr"], failed["gold_in_top10"]) == (0.0, 1.0)
    assert mind2web_metrics([])["step_sr"] == 0.0


@pytest.mark.parametrize(
    ("prediction", "label", "f1"),
    [
        ("CLICK", "CLICK ", 1),
        ("TYPE new york", "TYPE york new", 1),
        ("TYPE new", "TYPE new york", 0.8),
        ("SELECT new york", "TYPE new york", 2 / 3),
        ("", "CLICK", 0),
        ("", "", 1),
        ("a a a b", "a b", 1),  # sets
        ("TYPE New", "TYPE new", 0.5),
    ],
)
def test_token_f1(prediction: str, label: str, f1: float) -> None:
    assert token_f1(prediction, label) == pytest.approx(f1)
    assert token_f1(label, prediction) == pytest.approx(f1)


def test_the_registry_knows_it() -> None:
    assert get_task_kind("mind2web") is TASK_KIND
    assert (TASK_KIND.main_metric, TASK_KIND.weight, TASK_KIND.repetition_limit) == ("step_sr", 9.0, 0)
