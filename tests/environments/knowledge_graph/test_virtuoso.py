"""Virtuoso gives what pyoxigraph gives, for every query that replays and hand-made corner cases issue."""

from pathlib import Path

from megatron_agent.agents.client import ScriptedClient
from megatron_agent.agents.episode import play
from megatron_agent.environments.knowledge_graph import (
    TASK_KIND,
    KnowledgeGraphEnvironment,
    KnowledgeGraphOptions,
    KnowledgeGraphTask,
    read_knowledge_graph_tasks,
)
from megatron_agent.environments.knowledge_graph.endpoint import EndpointStore
from megatron_agent.environments.knowledge_graph.expressions import Expression, QueryBuilder, iri
from megatron_agent.environments.knowledge_graph.functions import Functions, Variable
from megatron_agent.environments.knowledge_graph.graph_builder import build_graphs
from megatron_agent.environments.knowledge_graph.kind import SHIPPED
from megatron_agent.environments.knowledge_graph.ontology import Ontology, read_ontology
from megatron_agent.environments.knowledge_graph.store import OxigraphStore, Store, load_lines

from .conftest import Virtuoso

SCHEMA = "http://www.w3.org/2001/XMLSchema#"
CORNERS = "http://example.org/corners"
VALUES = {
    "t.t.size": [
        ("m.a", f'"9"^^<{SCHEMA}integer>'), ("m.b", f'"10.25"^^<{SCHEMA}double>'), ("m.c", f'"-3"^^<{SCHEMA}decimal>'),
        ("m.d", '"100"'), ("m.e", '"n/a"'), ("m.f", '"100.0"'), ("m.g", '"-3.0e0"'),
    ],
    "t.t.date": [
        ("m.a", f'"1999-01-02"^^<{SCHEMA}date>'), ("m.b", f'"2001"^^<{SCHEMA}gYear>'),
        ("m.c", f'"1999-12"^^<{SCHEMA}gYearMonth>'), ("m.d", f'"2000-05-06T10:00:00"^^<{SCHEMA}dateTime>'),
        ("m.e", f'"-0044"^^<{SCHEMA}gYear>'), ("m.f", f'"-0100-03-02"^^<{SCHEMA}date>'),
    ],
    "t.t.label": [("m.a", '"plain"'), ("m.b", '"english"@en'), ("m.c", '"deutsch"@de')],
}  # fmt: skip


class Recorder:
    """Remembers queries and answers."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.answers: dict[str, tuple[str, ...]] = {}

    def select(self, query: str) -> tuple[str, ...]:
        self.answers[query] = self.store.select(query)
        return self.answers[query]


def replay(task: KnowledgeGraphTask, store: Store, ontology: Ontology, style: str = "paper") -> float:
    environment = KnowledgeGraphEnvironment(store, ontology, style)
    return play(environment, task, ScriptedClient(TASK_KIND.expert(task))).reward


def corner_lines() -> list[str]:
    lines = []
    for relation, values in VALUES.items():
        for entity, value in values:
            lines.append(f"{iri('m.root')} {iri('t.t.all')} {iri(entity)} <{CORNERS}> .")
            lines.append(f"{iri(entity)} {iri(relation)} {value} <{CORNERS}> .")
    return sorted(set(lines))


def corner_queries() -> dict[str, set[str]]:
    """Queries over the corner cases, and what they must give."""
    queries = QueryBuilder(lambda attribute: attribute == "t.t.size", CORNERS)
    all_of = Expression("JOIN", ("m.root",), "t.t.all")
    best = {
        (function, attribute): Expression(function, (all_of,), attribute)
        for function in ("ARGMAX", "ARGMIN")
        for attribute in ("t.t.size", "t.t.date")
    }
    largest, oldest = best["ARGMAX", "t.t.size"], best["ARGMIN", "t.t.date"]
    label = Expression("JOIN", (all_of,), "t.t.label")
    expected = {
        queries.members(all_of): {f"m.{letter}" for letter in "abcdefg"},
        queries.members(largest): {"m.d", "m.f"},  # 100 and 100.0 are one number, n/a is none
        queries.members(best["ARGMIN", "t.t.size"]): {"m.c", "m.g"},
        queries.members(best["ARGMAX", "t.t.date"]): {"m.b"},
        queries.members(oldest): {"m.f"},
        queries.members(Expression("COUNT", (Expression("OR", (largest, oldest)),))): {"2"},
        queries.members(Expression("AND", (largest, oldest))): {"m.f"},
        queries.members(Expression("AND", (Expression("COUNT", (largest,)), all_of))): {"2"},
        queries.members(Expression("COUNT", (Expression("COUNT", (all_of,)),))): {"7"},
        queries.members(label): {"plain", "english"},  # AgentBench leaves out other languages
        queries.relations("m.root"): {"t.t.all"},
        queries.relations(oldest): {"t.t.date", "t.t.size"},
        queries.relations(Expression("ARGMAX", (largest,), "t.t.date")): {"t.t.date", "t.t.size"},
        queries.members(Expression("JOIN", (largest,), "t.t.date")): {"2000-05-06T10:00:00", "-0100-03-02"},
    }
    return {query: set(values) for query, values in expected.items()}


def test_corner_cases_on_pyoxigraph() -> None:
    store = load_lines(corner_lines())
    for query, expected in corner_queries().items():
        assert set(store.select(query)) == expected, query


def test_virtuoso_answers_every_query_alike(
    virtuoso: Virtuoso,
    tmp_path: Path,
    kg_data: Path,
    shipped_tasks: list[KnowledgeGraphTask],
    shipped_ontology: Ontology,
    shipped_store: OxigraphStore,
) -> None:
    ontology = read_ontology(kg_data / "ontology")
    built = build_graphs(read_knowledge_graph_tasks(kg_data / "dev.json"), ontology, "fixed")
    lines = [line for graph in built for line in graph.lines]
    recorder = Recorder(load_lines([*lines, *corner_lines()]))
    for graph in built:
        assert replay(graph.task, recorder, ontology, "fixed") == (graph.fault is None)
    shipped = Recorder(shipped_store)
    for task in shipped_tasks:
        assert replay(task, shipped, shipped_ontology) == 1.0
    for query in corner_queries():
        recorder.select(query)
    (tmp_path / "dev.nq").write_text("\n".join([*lines, *corner_lines()]) + "\n", encoding="utf-8")
    virtuoso.load(tmp_path / "dev.nq", "http://example.org/unused")
    virtuoso.load(SHIPPED / "graph.nt", "http://example.org/shipped")
    endpoint = EndpointStore(virtuoso.url)
    queries = {**recorder.answers, **shipped.answers}
    assert len(queries) > 150
    for query, answer in queries.items():
        found = endpoint.select(query)
        assert len(found) == len(set(found)), query
        # Virtuoso writes the years before Christ without their leading zero
        assert {value.replace("-100-", "-0100-") for value in found} == set(answer), query
    assert read_union(endpoint, shipped_ontology) == read_union(shipped_store, shipped_ontology)
    endpoint.close()


def read_union(store: Store, ontology: Ontology) -> list[str]:
    """What `union` makes of two rivers' countries."""
    functions = Functions(store, ontology)
    rivers = sorted(store.select(QueryBuilder(ontology.is_number).members(
        Expression("JOIN", (EUROPE_SEA,), "geography.body_of_water.rivers_flowing_in"))))[:2]  # fmt: skip
    sides: list[Variable | str] = []
    for river in rivers:
        functions.call("get_relations", [river])
        side = functions.call("get_neighbors", [river, "geography.river.basin_countries"]).variable
        assert side is not None
        sides.append(side)
    both = functions.call("union", sides).variable
    assert both is not None
    return sorted(functions.members(both))


EUROPE_SEA = dict(read_knowledge_graph_tasks(SHIPPED / "tasks.json")[18].entities)["North Sea"]


def test_a_world_over_virtuoso(virtuoso: Virtuoso, tmp_path: Path, shipped_tasks: list[KnowledgeGraphTask]) -> None:
    virtuoso.load(SHIPPED / "graph.nt", "http://example.org/shipped")
    options = KnowledgeGraphOptions(knowledge_graph_endpoint=virtuoso.url, prompt_style="fixed")
    with TASK_KIND.open(options) as world:
        assert world.facts["engine"] == "endpoint"
        for task in world.tasks[:3]:
            assert play(world.make_environment(), task, ScriptedClient(TASK_KIND.expert(task))).reward == 1.0
