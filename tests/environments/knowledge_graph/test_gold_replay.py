"""Gold calls reach F1 = 1 on the shipped graph and on the graphs built for AgentBench's questions."""

from collections import Counter
from pathlib import Path

import pytest

from data_prep.build_knowledge_graph import main
from megatron_agent.agents.client import ScriptedClient
from megatron_agent.agents.episode import play, play_many
from megatron_agent.environments.knowledge_graph import (
    TASK_KIND,
    KnowledgeGraphEnvironment,
    KnowledgeGraphOptions,
    KnowledgeGraphTask,
    read_knowledge_graph_tasks,
)
from megatron_agent.environments.knowledge_graph.functions import NAMES
from megatron_agent.environments.knowledge_graph.graph_builder import BuiltGraph, build_graphs
from megatron_agent.environments.knowledge_graph.ontology import Ontology, read_ontology
from megatron_agent.environments.knowledge_graph.store import CachedStore, load_lines
from megatron_agent.environments.task_kind import EpisodeScore
from megatron_agent.errors import UserError

REASONS = {
    "not of the same type": "types",
    "common.topic is neither": "class as entity",
    "g.121r_b9t is neither": "g. id",
    "g.122wbmv4 is neither": "g. id",
    "attribute is not among": "attribute unknown to vocab.json",
    "relation is not among": "relation unknown to vocab.json",
    "is an entity that the calls name": "answer named in the calls",
}


def classes(built: list[BuiltGraph]) -> Counter[str]:
    faults = [graph.fault for graph in built if graph.fault]
    return Counter(next(name for text, name in REASONS.items() if text in fault) for fault in faults)


def replayed(built: list[BuiltGraph], ontology: Ontology, style: str) -> dict[str, float]:
    """Play every question in one store that holds all graphs, several at a time."""
    store = CachedStore(load_lines(line for graph in built for line in graph.lines))
    episodes = play_many(
        [graph.task for graph in built],
        lambda: KnowledgeGraphEnvironment(store, ontology, style),
        lambda task: ScriptedClient(TASK_KIND.expert(task)),
        concurrency=8,
    )
    return {episode.task_id: episode.reward for episode in episodes}


@pytest.mark.parametrize(
    ("file", "style", "playable", "reasons"),
    [
        ("dev.json", "paper", 18, {"types": 1, "class as entity": 1}),
        ("dev.json", "fixed", 19, {"class as entity": 1}),
        (
            "train_sample.json",
            "paper",
            274,
            {
                "types": 13, "class as entity": 3, "g. id": 2, "attribute unknown to vocab.json": 4,
                "relation unknown to vocab.json": 1, "answer named in the calls": 3,
            },
        ),
        (
            "train_sample.json",
            "fixed",
            286,
            {
                "types": 3, "class as entity": 3, "attribute unknown to vocab.json": 4,
                "relation unknown to vocab.json": 1, "answer named in the calls": 3,
            },
        ),
    ],
)  # fmt: skip
def test_agentbench_questions(kg_data: Path, file: str, style: str, playable: int, reasons: dict[str, int]) -> None:
    ontology = read_ontology(kg_data / "ontology")
    built = build_graphs(read_knowledge_graph_tasks(kg_data / file), ontology, style)
    assert classes(built) == reasons
    rewards = replayed(built, ontology, style)
    assert [graph.task.id for graph in built if (rewards[graph.task.id] == 1.0) != (graph.fault is None)] == []
    assert sum(reward == 1.0 for reward in rewards.values()) == playable


def test_graphs_are_the_same_every_time_and_have_distractors(kg_data: Path) -> None:
    ontology = read_ontology(kg_data / "ontology")
    tasks = read_knowledge_graph_tasks(kg_data / "dev.json")
    built = build_graphs(tasks, ontology)
    assert build_graphs(tasks, ontology) == built
    bare = build_graphs(tasks, ontology, distractors=0)
    assert [graph.fault for graph in bare] == [graph.fault for graph in built]
    for graph, without in zip(built, bare, strict=True):
        assert len(graph.lines) > len(without.lines) + 5
        assert all(line.endswith(f"<{graph.task.graph}> .") for line in graph.lines)


def test_a_wrong_answer_scores_less(kg_data: Path) -> None:
    """A distractor relation of the first entity, instead of the gold one, never gives the gold answer."""
    ontology = read_ontology(kg_data / "ontology")
    built = [g for g in build_graphs(read_knowledge_graph_tasks(kg_data / "dev.json"), ontology) if not g.fault]
    store = load_lines(line for graph in built for line in graph.lines)
    for graph in built:
        environment = KnowledgeGraphEnvironment(store, ontology)
        environment.reset(graph.task)
        entity, gold = graph.task.actions[1][len("get_neighbors(") : -1].split(",")
        listed = environment.step(f"Action: get_relations({entity})").text[len("Observation: [") : -1].split(", ")
        assert gold in listed
        assert len(listed) > 1
        assert listed == sorted(listed)
        other = next(relation for relation in listed if relation != gold)
        environment.step(f"Action: get_neighbors({entity}, {other})")
        assert environment.step("Final Answer: #0").reward == 0.0


def test_shipped_questions(shipped_tasks: list[KnowledgeGraphTask]) -> None:
    assert len(shipped_tasks) >= 20
    called = {action.split("(")[0] for task in shipped_tasks for action in task.actions}
    assert called == set(NAMES)
    for style in ("paper", "fixed"):
        with TASK_KIND.open(KnowledgeGraphOptions(prompt_style=style)) as world:
            episodes = [
                play(world.make_environment(), task, ScriptedClient(TASK_KIND.expert(task))) for task in world.tasks
            ]
        scores = TASK_KIND.metrics([EpisodeScore(e.category, e.reward, e.status, e.scores) for e in episodes])
        assert set(scores.values()) == {1.0}
        assert {episode.status for episode in episodes} == {"completed"}


def test_the_builder_command(kg_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What it writes is a world of its own, with nothing of AgentBench's folder needed any more."""
    output = tmp_path / "world"
    arguments = ["--tasks", str(kg_data / "dev.json"), "--ontology", str(kg_data / "ontology"), "--output", str(output)]
    main(arguments)
    printed = capsys.readouterr().out
    assert "questions 20  playable 18" in printed
    assert (
        "WebQTrn-1215_20ae9a3ac5a1d4d40671f15de04edb15_cwq: get_relations(common.topic) cannot be executed" in printed
    )
    options = KnowledgeGraphOptions(
        tasks=output / "tasks.json",
        knowledge_graph_file=output / "graph.nq",
        knowledge_graph_ontology=output / "ontology",
    )
    with TASK_KIND.open(options) as world:
        assert len(world.tasks) == 18
        for task in world.tasks:
            assert play(world.make_environment(), task, ScriptedClient(TASK_KIND.expert(task))).reward == 1.0
    for wrong, message in (("--prompt-style", "expected one of paper, fixed"), ("--distractors", "expected 0 or more")):
        with pytest.raises(UserError, match=message):
            main([*arguments, wrong, "-1"])
