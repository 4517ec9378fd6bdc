"""The task as the harness opens it: options and their faults, scores of a run."""

from pathlib import Path

import pytest

from megatron_agent.environments.knowledge_graph import TASK_KIND, KnowledgeGraphOptions
from megatron_agent.environments.knowledge_graph.scoring import f1, knowledge_graph_scores
from megatron_agent.environments.knowledge_graph.store import OxigraphStore
from megatron_agent.environments.task_kind import EpisodeScore
from megatron_agent.errors import UserError


def test_scores() -> None:
    assert f1({"a", "b"}, {"b", "c", "d"}) == pytest.approx(0.4)
    assert f1((), {"a"}) == 0.0
    whole = {"F1": 1.0, "exact_match": 1.0, "executability": 1.0}
    part = {"F1": 0.5, "exact_match": 0.0, "executability": 1.0}
    scores = knowledge_graph_scores([
        EpisodeScore("cwq", 1.0, "completed", whole),
        EpisodeScore("grailqa", 0.5, "completed", part),
        EpisodeScore("grailqa", 0.0, "limit reached", {}),
        EpisodeScore("grailqa", 0.0, "task error", {}),
    ])  # fmt: skip
    assert scores == {
        "F1": 0.5, "exact_match": pytest.approx(1 / 3), "executability": pytest.approx(2 / 3), "F1_of_all": 0.375,
        "F1_cwq": 1.0, "F1_grailqa": 0.25,
    }  # fmt: skip
    assert knowledge_graph_scores([])["F1"] == 0.0


def test_worlds_and_their_options(tmp_path: Path, shipped_store: OxigraphStore) -> None:
    tasks = tmp_path / "tasks.json"
    tasks.write_text('[{"question": "q", "entities": {}, "answer": [{"answer_argument": 1}]}]')
    prompt = tmp_path / "prompt.json"
    prompt.write_text('[{"role": "user", "content": "Hello"}, {"role": "agent", "content": "Ok."}]')
    with TASK_KIND.open(KnowledgeGraphOptions(prompt_file=prompt)) as world:
        assert world.make_environment().reset(world.tasks[0])[:2] == [
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": "Ok."},
        ]
    ontology = Path(str(tmp_path / "ontology"))
    for options, message in (
        (KnowledgeGraphOptions(tasks=tasks), "--knowledge-graph-ontology: needed with --tasks"),
        (KnowledgeGraphOptions(tasks=tasks, knowledge_graph_ontology=ontology), "no such folder"),
        (KnowledgeGraphOptions(knowledge_graph_file=tmp_path / "x.nt"), "expected a file of N-Triples"),
        (KnowledgeGraphOptions(knowledge_graph_endpoint="127.0.0.1:1/sparql"), "expected an http"),
        (KnowledgeGraphOptions(knowledge_graph_endpoint="http://x/", knowledge_graph_timeout=0), "seconds above 0"),
        (KnowledgeGraphOptions(knowledge_graph_endpoint="http://x/", knowledge_graph_file=tasks), "choose one"),
        (KnowledgeGraphOptions(split="dev"), "--split dev"),
    ):
        with pytest.raises(UserError, match=message), TASK_KIND.open(options):
            pass
    with pytest.raises(UserError, match="--prompt-style"), TASK_KIND.open(KnowledgeGraphOptions(prompt_style="x")) as w:
        w.make_environment()
