"""Small graphs in which AgentBench's gold calls give AgentBench's answers, for questions whose Freebase is not at hand.

Every question gets a named graph of its own, so that none disturbs another: two questions may name the same entity and
need different neighbours of it. A graph is made backwards from the answer: what the last call must give says what the
calls before it must give, down to the question's entities; entities on the way are invented. Then come distractors:
members of one side of an intersection only, lesser values beside a greatest one, and further relations and attributes
of the same domains, taken from the ontology. Each graph is checked by replaying the gold calls on it.
"""

import random
import re
import string
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from megatron_agent.environments.knowledge_graph.expressions import Expression, entities, iri, operands_of
from megatron_agent.environments.knowledge_graph.functions import CallError, Functions, Variable
from megatron_agent.environments.knowledge_graph.ontology import Ontology
from megatron_agent.environments.knowledge_graph.scoring import f1
from megatron_agent.environments.knowledge_graph.store import QueryRefusedError, Store, load_lines
from megatron_agent.environments.knowledge_graph.task import KnowledgeGraphTask, split_call

GRAPHS = "http://agentlm-megatron.invalid/knowledge_graph/"
SCHEMA = "http://www.w3.org/2001/XMLSchema#"
MID_LETTERS = string.digits + "bcdfghjklmnpqrstvwxyz_"
DISTRACTORS = 6
MID = re.compile(r"[mfg]\.\w+")


@dataclass(frozen=True)
class BuiltGraph:
    """The N-Quads lines of one question, and why its gold calls do not reach F1 = 1 there (None: they do)."""

    task: KnowledgeGraphTask
    lines: tuple[str, ...]
    fault: str | None


def build_graphs(
    tasks: Sequence[KnowledgeGraphTask], ontology: Ontology, style: str = "paper", distractors: int = DISTRACTORS
) -> list[BuiltGraph]:
    """Build the graph of every question; the same questions, ontology and `distractors` give the same lines.

    `distractors` is about how many relations are added to each entity or variable that the gold calls look at. Where
    a distractor spoils the answer, that graph is built again without. A question no graph can serve comes back with
    its `fault`: what a call, or the answer, shows to be wrong with it under `style`.
    """
    built = _build_and_replay(tasks, ontology, style, distractors)
    spoilt = [graph.task for graph in built if graph.fault is not None]
    bare = {graph.task.id: graph for graph in _build_and_replay(spoilt, ontology, style, 0)}
    return [
        bare[graph.task.id] if graph.fault is not None and bare[graph.task.id].fault is None else graph
        for graph in built
    ]


def _build_and_replay(
    tasks: Sequence[KnowledgeGraphTask], ontology: Ontology, style: str, distractors: int
) -> list[BuiltGraph]:
    built = []
    for task in tasks:
        placed = replace(task, graph=GRAPHS + re.sub(r"[^\w.-]", "_", task.id))
        try:
            built.append(BuiltGraph(placed, _GraphBuilder(placed, ontology, distractors).build(), None))
        except CallError as error:
            built.append(BuiltGraph(placed, (), str(error)))
    store = load_lines(line for graph in built for line in graph.lines)
    return [
        graph if graph.fault else replace(graph, fault=replay_fault(graph.task, store, ontology, style))
        for graph in built
    ]


def replay_fault(task: KnowledgeGraphTask, store: Store, ontology: Ontology, style: str) -> str | None:
    """Replay the gold calls and return why they do not give exactly the answer, None when they do."""
    functions, variables = Functions(store, ontology, task.graph, style), list[Variable]()
    for action in task.actions:
        try:
            name, arguments = split_call(action)
            outcome = functions.call(name, [variables[int(a[1:])] if a.startswith("#") else a for a in arguments])
        except (CallError, QueryRefusedError, ValueError, IndexError, KeyError) as error:
            return f"{action} cannot be executed: {error}"
        if outcome.variable is not None:
            variables.append(outcome.variable)
    if not variables:
        return "the gold calls make no variable"
    found = functions.members(variables[-1])
    if f1(found, task.answer) == 1.0:
        return None
    named = sorted(set(task.answer) & set(entities(variables[-1].expression)))
    if named:
        return (
            f"{', '.join(named)} of the answer is an entity that the calls name; the evaluator's query leaves those out"
        )
    return f"the calls give {sorted(found)[:4]} instead of {sorted(task.answer)[:4]}"


def gold_variables(task: KnowledgeGraphTask, ontology: Ontology) -> list[Variable]:
    """Return the variables that the gold calls make; CallError names a call that makes no sense."""
    variables: list[Variable] = []
    for action in task.actions:
        try:
            name, arguments = split_call(action)
            if name in ("get_relations", "get_attributes"):
                continue
            subjects = [variables[int(a[1:])] if a.startswith("#") else a for a in arguments]
            variables.append(_variable(name, subjects, ontology))
        except (ValueError, IndexError, KeyError, AttributeError) as error:
            raise CallError(f"{action} makes no sense: {type(error).__name__}: {error}") from error
    if not variables:
        raise CallError("the gold calls make no variable")
    return variables


def _variable(name: str, subjects: Sequence["Variable | str"], ontology: Ontology) -> Variable:
    first = subjects[0]
    if name == "get_neighbors":
        relation = str(subjects[1])
        of = first.expression if isinstance(first, Variable) else first
        if isinstance(of, str) and not re.fullmatch(r"[\w.]+", of):
            raise ValueError(f"{of!r} is no entity")
        return Variable(ontology.ranges[relation], Expression("JOIN", (of,), relation))
    if not isinstance(first, Variable):
        raise ValueError(f"{first} is no variable")
    if name == "count":
        return Variable("type.int", Expression("COUNT", (first.expression,)))
    if name in ("argmax", "argmin"):
        return Variable(first.type, Expression(name.upper(), (first.expression,), str(subjects[1])))
    second = subjects[1]
    if not isinstance(second, Variable):
        raise ValueError(f"{second} is no variable")
    function = {"intersection": "AND", "union": "OR"}[name]
    return Variable(first.type, Expression(function, (first.expression, second.expression)))


class _GraphBuilder:
    """Collects the triples of one question's graph."""

    def __init__(self, task: KnowledgeGraphTask, ontology: Ontology, distractors: int) -> None:
        self.task = task
        self.ontology = ontology
        self.distractors = distractors
        self.variables = gold_variables(task, ontology)
        self.random = random.Random(task.id)
        self.used = {mid for _, mid in task.entities} | set(task.answer)
        for variable in self.variables:
            self.used.update(entities(variable.expression))
        self.triples: dict[tuple[str, str, str], None] = {}
        self.members: dict[Expression | str, list[str]] = {}
        self.best: dict[Expression, int] = {}

    def build(self) -> tuple[str, ...]:
        goal = self.variables[-1]
        if goal.expression.function == "COUNT":
            wanted = list(self.task.answer)
        else:
            wanted = [value_term(answer, goal.type) for answer in self.task.answer]
        self.need(goal.expression, wanted)
        for variable in self.variables:  # made on the way, and no part of the answer
            if variable.expression not in self.members and variable.expression.function != "COUNT":
                self.need(variable.expression, [self.entity()])
        if self.distractors:
            for variable in self.variables:
                self.one_sided(variable.expression)
            for subject, relation, names in self.looked_at():
                self.add_relations(subject, relation, names)
        self.add_names()
        graph = f"<{self.task.graph}>"
        return tuple(f"{s} {p} {o} {graph} ." for s, p, o in self.triples)

    def need(self, expression: Expression, wanted: list[str]) -> None:
        """Add what makes the wanted terms members of an expression."""
        self.members.setdefault(expression, []).extend(wanted)
        if expression.function == "JOIN":
            of = expression.operands[0]
            if isinstance(of, str):
                subjects = [iri(of)]
            else:
                subjects = [self.entity() for _ in range(min(len(wanted), self.random.randint(1, 3)))]
                self.need(of, subjects)
            for number, term in enumerate(wanted):
                self.add(subjects[number % len(subjects)], expression.relation, term)
        elif expression.function == "AND":
            for operand in operands_of(expression):
                self.need(operand, wanted)
        elif expression.function == "OR":
            sides = operands_of(expression)
            for number, side in enumerate(sides):
                if wanted[number :: len(sides)]:
                    self.need(side, wanted[number :: len(sides)])
        elif expression.function == "COUNT":
            self.need(_operand(expression), [self.entity() for _ in range(_whole_number(wanted))])
        else:
            self.superlative(expression, wanted)

    def superlative(self, expression: Expression, wanted: list[str]) -> None:
        """Give the wanted ones one value, and some others, who lose, values on the far side of it."""
        lesser = [self.entity() for _ in range(3 if self.distractors else 1)] if expression not in self.best else []
        best = self.best.setdefault(expression, self.random.randint(1900, 1990))
        self.need(_operand(expression), wanted + lesser)
        towards = -1 if expression.function == "ARGMAX" else 1
        for term in wanted:
            self.add(term, expression.relation, self.value(expression.relation, best))
        for place, term in enumerate(lesser, start=1):
            self.add(term, expression.relation, self.value(expression.relation, best + towards * 7 * place))

    def one_sided(self, expression: Expression) -> None:
        """Add members of one side of an intersection that the others lack."""
        if expression.function == "AND":
            for operand in operands_of(expression):
                self.need(operand, [self.entity() for _ in range(self.random.randint(1, 2))])

    def looked_at(self) -> Iterator[tuple[Expression | str, str, frozenset[str]]]:
        """Yield what gold calls list names of, the name then taken from the list, and the vocabulary it is of."""
        made = 0
        for action in self.task.actions:
            name, arguments = split_call(action)
            if name in ("get_neighbors", "argmax", "argmin"):
                expression = self.variables[made].expression
                known = self.ontology.relations if name == "get_neighbors" else self.ontology.attributes
                yield expression.operands[0], arguments[1], known
            made += name not in ("get_relations", "get_attributes")

    def add_relations(self, subject: Expression | str, relation: str, known: frozenset[str]) -> None:
        """Give an entity, or some members of a variable, further relations (attributes) of the same domain."""
        subjects = [iri(subject)] if isinstance(subject, str) else self.members[subject]
        used = {variable.expression.relation for variable in self.variables}
        domain = self.ontology.domains.get(relation, "")
        area = names_by_area(self.ontology).get(domain.split(".")[0], [])
        near = [name for name in area if name in known and name not in used]
        same = [name for name in near if self.ontology.domains[name] == domain]
        for names in (same, near):
            for name in self.random.sample(names, min(len(names), self.distractors // 2)):
                for term in self.random.sample(subjects, min(len(subjects), 2)):
                    self.add(term, name, self.object_of(name))

    def add_names(self) -> None:
        """Name the question's entities, as Freebase does."""
        for name, mid in self.task.entities:
            if MID.fullmatch(mid):
                self.add(iri(mid), "type.object.name", f"{literal(name)}@en")

    def add(self, subject: str, relation: str, term: str) -> None:
        self.triples[subject, iri(relation), term] = None

    def object_of(self, relation: str) -> str:
        kind = self.ontology.ranges[relation]
        if kind in ("type.int", "type.float", "type.datetime"):
            return self.value(relation, self.random.randint(1900, 1990))
        return self.entity()

    def value(self, attribute: str, size: int) -> str:
        """Return a literal of the attribute's range that grows with `size`."""
        kind = self.ontology.ranges.get(attribute, "")
        if kind == "type.datetime":
            return f'"{size}-05-14"^^<{SCHEMA}date>'
        return f'"{size / 10}"^^<{SCHEMA}float>' if kind == "type.float" else f'"{size}"^^<{SCHEMA}integer>'

    def entity(self) -> str:
        """Invent an entity with an id as Freebase's are."""
        while True:
            mid = "m.0" + "".join(self.random.choices(MID_LETTERS, k=6))
            if mid not in self.used:
                self.used.add(mid)
                return iri(mid)


@lru_cache(maxsize=4)
def names_by_area(ontology: Ontology) -> dict[str, list[str]]:
    """Return relations and attributes by the first part of their domain (`music`), sorted."""
    names: dict[str, list[str]] = defaultdict(list)
    for name in sorted(ontology.relations | ontology.attributes):
        names[ontology.domains[name].split(".")[0]].append(name)
    return names


def used_names(built: Iterable[BuiltGraph], ontology: Ontology) -> set[str]:
    """Return the relations and attributes that graphs use, of those the ontology knows."""
    start = len(iri("")) - 1
    names = {line.split(" ", 2)[1][start:-1] for graph in built for line in graph.lines}
    return names & (ontology.relations | ontology.attributes)


def value_term(value: str, kind: str) -> str:
    """Return an answer as an RDF term: an entity, or a literal of the type its variable has."""
    if MID.fullmatch(value):
        return iri(value)
    types = {"type.int": "integer", "type.float": "float", "type.boolean": "boolean"}
    if kind in types:
        return f"{literal(value)}^^<{SCHEMA}{types[kind]}>"
    if kind == "type.datetime":
        name = {4: "gYear", 7: "gYearMonth", 10: "date"}.get(len(value), "dateTime")
        return f"{literal(value)}^^<{SCHEMA}{name}>"
    return f"{literal(value)}@en"


def literal(text: str) -> str:
    """Return a quoted literal, escaped as N-Triples asks."""
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r"}
    return '"' + "".join(escapes.get(character, character) for character in text) + '"'


def _operand(expression: Expression) -> Expression:
    operand = expression.operands[0]
    assert isinstance(operand, Expression)
    return operand


def _whole_number(answers: Iterable[str]) -> int:
    answers = list(answers)
    if len(answers) != 1 or not re.fullmatch(r"\d{1,6}", answers[0]):
        raise CallError(f"the last call counts, but the answer is {answers[:3]}, not one whole number")
    return int(answers[0])
