"""Loading questions, ontologies and graphs: AgentBench's layouts, and what is wrong with others."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from megatron_agent.environments.knowledge_graph import (
    TASK_KIND,
    KnowledgeGraphOptions,
    KnowledgeGraphTask,
    read_knowledge_graph_tasks,
)
from megatron_agent.environments.knowledge_graph.expert import expert_replies
from megatron_agent.environments.knowledge_graph.graph_builder import build_graphs, literal, value_term
from megatron_agent.environments.knowledge_graph.kind import SHIPPED
from megatron_agent.environments.knowledge_graph.ontology import Ontology, read_ontology
from megatron_agent.environments.knowledge_graph.store import QueryRefusedError, load_lines, read_graph
from megatron_agent.environments.knowledge_graph.task import task_to_record
from megatron_agent.errors import UserError

ROW: dict[str, Any] = {
    "question": "q?",
    "qid": "1",
    "source": "cwq",
    "entities": {"A": "m.1"},
    "s_expression": "(JOIN a b)",
    "actions": ["get_relations(m.1)", "get_neighbors(m.1, a.b.c)"],
    "answer": [{"answer_type": "Entity", "answer_argument": "m.2", "entity_name": "B"}],
}


def write(folder: Path, *rows: object, name: str = "dev.json") -> Path:
    (folder / name).write_text(json.dumps(list(rows)))
    return folder / name


def test_agentbench_files(kg_data: Path) -> None:
    dev = read_knowledge_graph_tasks(kg_data / "dev.json")
    train = read_knowledge_graph_tasks(kg_data / "train_sample.json")
    assert (len(dev), len(train)) == (20, 300)
    assert len({task.id for task in dev} & {task.id for task in train}) == 13
    assert dev[4].answer == ("1",)
    assert {task.category for task in dev} == {"grailqa", "graphquestions", "cwq"}
    assert repr(dev) == repr(read_knowledge_graph_tasks(kg_data / "dev.json"))


def test_named_irregularities(tmp_path: Path) -> None:
    bare = {"question": "q?", "entities": {}, "answer": [{"answer_argument": 5}, {"answer_argument": "5"}]}
    path = write(tmp_path, ROW, bare, {**ROW, "qid": 7, "graph": "http://x/g", "spare": 1})
    first, second, third = read_knowledge_graph_tasks(path)
    assert first.entities == (("A", "m.1"),)
    assert (second.id, second.category, second.answer, second.actions) == ("dev_1", "unknown", ("5",), ())
    assert (third.id, third.graph) == ("7", "http://x/g")
    assert read_knowledge_graph_tasks(write(tmp_path, *map(task_to_record, (first, third))))[0] == first
    packed = tmp_path / "packed.json.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert len(read_knowledge_graph_tasks(packed)) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question": ""}, r'item 0 \(qid 1\): expected "question"'),
        ({"qid": ""}, 'expected "qid"'),
        ({"qid": True}, 'expected "qid"'),
        ({"source": 3}, 'expected "source"'),
        ({"entities": ["A"]}, 'expected "entities"'),
        ({"entities": {"A": 1}}, 'expected "entities"'),
        ({"actions": "get_relations(m.1)"}, 'expected "actions" to be a list'),
        ({"actions": ["get relations"]}, 'expected "actions" to list calls'),
        ({"answer": []}, 'expected "answer" to be a non-empty list'),
        ({"answer": ["m.2"]}, "answer_argument"),
        ({"answer": [{"answer_argument": None}]}, "answer_argument"),
        ({"graph": "g> { DROP"}, 'expected "graph"'),
        ({"question": "\ud800"}, "lone surrogate"),
    ],
)
def test_wrong_rows(tmp_path: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_knowledge_graph_tasks(write(tmp_path, {**ROW, **change}))


def test_wrong_files(tmp_path: Path) -> None:
    for text, message in (
        ("{}", "expected a list"),
        ("[", "not valid JSON"),
        ("[]", "at least one"),
        ("[1]", "item 0"),
    ):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(UserError, match=message):
            read_knowledge_graph_tasks(tmp_path / "x.json")
    with pytest.raises(UserError, match="already used"):
        read_knowledge_graph_tasks(write(tmp_path, ROW, ROW))
    (tmp_path / "cut.json.gz").write_bytes(gzip.compress(b"[1, 2, 3, 4]")[:-9])
    with pytest.raises(UserError, match="not valid JSON"):
        read_knowledge_graph_tasks(tmp_path / "cut.json.gz")


def test_agentbench_ontology(kg_data: Path) -> None:
    ontology = read_ontology(kg_data / "ontology")
    assert (len(ontology.relations), len(ontology.attributes)) == (13_100, 3_384)
    assert ontology.is_number("spaceflight.rocket.height_meters")
    assert not ontology.is_number("time.event.end_date")
    assert ontology.common_type("sports.sports_championship_event", "time.event") == "sports.sports_championship_event"
    assert ontology.common_type("time.event", "sports.sports_championship_event") == "sports.sports_championship_event"
    assert ontology.common_type("time.event", "location.country") is None


def test_wrong_ontologies(tmp_path: Path) -> None:
    def attempt(number: int, vocabulary: str, roles: str | None) -> None:
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "vocab.json").write_text(vocabulary)
        if roles is not None:
            (folder / "fb_roles.txt.gz").write_bytes(gzip.compress(roles.encode()))
        read_ontology(folder)

    good = '{"relations": ["a.b.c"], "attributes": []}'
    attempt(0, good, "a.b a.b.c d.e\n\n")
    for number, (vocabulary, roles, message) in enumerate(
        [
            (good, None, "expected a file fb_roles"),
            ("{", "", "not valid JSON"),
            ('{"relations": [1]}', "", 'expected an object with "relations"'),
            (good, "a.b a.b.c", "line 1: expected 'domain relation range'"),
            (good, "a.b a.b.d d.e", "'a.b.c', but fb_roles gives no domain"),
        ],
        start=1,
    ):
        with pytest.raises(UserError, match=message):
            attempt(number, vocabulary, roles)


def test_graph_files(tmp_path: Path) -> None:
    line = "<http://rdf.freebase.com/ns/m.1> <http://rdf.freebase.com/ns/a.b.c> <http://rdf.freebase.com/ns/m.2>"
    (tmp_path / "a.nt").write_text(line + " .\n")
    (tmp_path / "b.nq.gz").write_bytes(gzip.compress((line + " <http://g> .\n").encode()))
    store, digest = read_graph(tmp_path)
    query = "SELECT ?x {}WHERE {{ <http://rdf.freebase.com/ns/m.1> <http://rdf.freebase.com/ns/a.b.c> ?x }}"
    assert store.select(query.format("")) == store.select(query.format("FROM <http://g> ")) == ("m.2",)
    assert digest != read_graph(tmp_path / "a.nt")[1]
    with pytest.raises(QueryRefusedError, match="SyntaxError"):
        store.select("SELECT ?x WHERE { :m.1 :a.b.c ?x }")
    (tmp_path / "a.nt").write_text(line)
    with pytest.raises(UserError, match=r"a\.nt: expected N-TRIPLES"):
        read_graph(tmp_path)
    (tmp_path / "a.nt").write_text("")
    with pytest.raises(UserError, match="found none"):
        read_graph(tmp_path / "a.nt")
    with pytest.raises(UserError, match="or a folder of such files"):
        read_graph(tmp_path / "absent")


def test_without_pyoxigraph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyoxigraph", None)
    with (
        pytest.raises(UserError, match=r"agentlm-megatron\[knowledge-graph\]"),
        TASK_KIND.open(KnowledgeGraphOptions()),
    ):
        pass


def test_a_split_of_agentbenchs_folder(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "knowledgegraph"
    folder.mkdir(parents=True)
    for name, row in (("dev", "1"), ("std", "2"), ("kg_rl_all", "3")):
        write(folder, {**ROW, "qid": row}, name=f"{name}.json")
    for split, identifier in (("dev", "1"), ("std", "2"), ("train", "3")):
        options = KnowledgeGraphOptions(
            tasks=tmp_path,
            split=split,
            knowledge_graph_file=SHIPPED / "graph.nt",
            knowledge_graph_ontology=SHIPPED / "ontology",
        )
        with TASK_KIND.open(options) as world:
            assert [task.id for task in world.tasks] == [identifier]


def make_task(*actions: str, answer: tuple[str, ...] = ("m.2",)) -> KnowledgeGraphTask:
    return KnowledgeGraphTask("x y/z", 'q "quoted"', "c", (('na"me, (1)', "m.1"),), actions, answer)


ONTOLOGY = Ontology(
    frozenset({"a.b.c", "a.b.when"}),
    frozenset({"a.b.size"}),
    {"a.b.c": "a.b", "a.b.size": "a.b", "a.b.when": "a.b"},
    {"a.b.c": "a.b", "a.b.size": "type.int", "a.b.when": "type.datetime"},
    {},
)


@pytest.mark.parametrize(
    ("actions", "answer", "fault"),
    [
        (("get_relations(m.1)", "get_neighbors(m.1,a.b.c)"), ("m.2", "m.3"), None),
        (("get_relations(m.1)", "get_neighbors(m.1,a.b.when)"), ("1999", "2001-05", "2001-05-06"), None),
        (("get_relations(m.1)", "get_neighbors(m.1,a.b.c)", "count(#0)"), ("12",), None),
        (("get_relations(m.1)", "get_neighbors(m.1,a.b.c)", "count(#0)"), ("0",), "cannot be executed"),
        (("get_relations(m.1)", "get_neighbors(m.1,a.b.c)", "count(#0)"), ("m.2",), "not one whole number"),
        (("get_relations(m.1)", "get_neighbors(m.1,a.b.c)", "get_attributes(#0)", "argmin(#0,a.b.size)"),
         ("m.2", "m.3"), None),
        (("get_relations(m.1)", "get_neighbors(m.1,a.b.c)"), ("m.1",), "leaves those out"),
        (("get_relations(m.1)", "get_neighbors(m.1,a.b.c)", "count(#0)", "get_neighbors(m.1,a.b.when)"),
         ("1999",), None),
        (("get_relations(m.1)", "get_neighbors(m. 1>,a.b.c)"), ("m.2",), "is no entity"),
        (("get_relations(m.1)", "get_neighbors(m.1,a.b.d)"), ("m.2",), "makes no sense: KeyError"),
        (("get_relations(m.1)", "count(#0)"), ("1",), "makes no sense: IndexError"),
        (("get_relations(m.1)", "count(m.1)"), ("1",), "m.1 is no variable"),
        (("get_relations(m.1)", "guess(m.1)"), ("1",), "makes no sense"),
        (("get_relations(m.1)",), ("m.2",), "make no variable"),
        ((), ("m.2",), "make no variable"),
        (("get_relations(m.1)", "get_neighbors(m.1,a.b.c)", "get_relations(#0)", "get_neighbors(#0,a.b.c)",
          "union(#0,#1)"), ("m.2", "m.3"), "the calls give"),
    ],
)  # fmt: skip
def test_built_graphs_and_their_faults(actions: tuple[str, ...], answer: tuple[str, ...], fault: str | None) -> None:
    (built,) = build_graphs([make_task(*actions, answer=answer)], ONTOLOGY)
    assert (built.fault is None) if fault is None else (fault in str(built.fault)), built.fault


def test_terms() -> None:
    assert load_lines([f"<http://s> <http://p> {literal(chr(34) + chr(92) + chr(10) + 'é')} <http://g> ."])
    assert value_term("2001-05", "type.datetime") == '"2001-05"^^<http://www.w3.org/2001/XMLSchema#gYearMonth>'
    assert value_term("x", "type.text") == '"x"@en'


def test_expert_of_questions_without_gold_calls() -> None:
    with pytest.raises(UserError, match="carries no gold calls"):
        expert_replies(make_task())
    with pytest.raises(UserError, match="unknown function"):
        expert_replies(make_task("guess(m.1)"))
    with pytest.raises(UserError, match="lacks an argument"):
        expert_replies(make_task("get_neighbors(m.1)"))
    assert "Action: get_relations(m.1)" in expert_replies(make_task("get_relations(m.1)"))[0]  # its name has a bracket
