"""The functions a model calls: AgentBench's src/server/tasks/knowledgegraph/api.py, over any store."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from megatron_agent.environments.knowledge_graph.expressions import Expression, QueryBuilder, without_counts
from megatron_agent.environments.knowledge_graph.ontology import Ontology
from megatron_agent.environments.knowledge_graph.store import Store

NAMES = ("get_relations", "get_neighbors", "intersection", "union", "get_attributes", "argmax", "argmin", "count")
"""The seven of the instruction, and `union`, which AgentBench's code has and its instruction does not name."""

ENTITY = {"paper": re.compile(r"[mf]\.\w+"), "fixed": re.compile(r"[mfg]\.\w+")}
"""What is taken for the id of an entity. The released pattern leaves out Freebase's newer ids, `g....`."""


class CallError(Exception):
    """A call that cannot be executed; the text says why (the released evaluator does not tell the model)."""


@dataclass(frozen=True)
class Variable:
    """A set of entities or values of one type, not computed yet."""

    type: str
    expression: Expression


@dataclass(frozen=True)
class Outcome:
    """The feedback of a call, `##` standing for the number of the new variable, if one was made."""

    text: str
    variable: Variable | None = None


class Functions:
    """The functions over one graph, for one episode: it remembers which relations were listed for what.

    `style` paper takes what the released code takes; fixed also takes entities `g....` and intersections of a type
    with one that includes it. Calls raise :class:`CallError`, or what the store raises.
    """

    def __init__(self, store: Store, ontology: Ontology, graph: str | None = None, style: str = "paper") -> None:
        self._store = store
        self._ontology = ontology
        self._style = style
        self._queries = QueryBuilder(ontology.is_number, graph)
        self._relations: dict[Expression | str, list[str]] = {}
        self._attributes: dict[Expression, list[str]] = {}
        self._functions: dict[str, Callable[..., Outcome]] = {
            "get_relations": self._get_relations,
            "get_neighbors": self._get_neighbors,
            "intersection": lambda left, right: self._combine("AND", left, right),
            "union": lambda left, right: self._combine("OR", left, right),
            "get_attributes": self._get_attributes,
            "argmax": lambda variable, attribute: self._superlative("ARGMAX", variable, attribute),
            "argmin": lambda variable, attribute: self._superlative("ARGMIN", variable, attribute),
            "count": self._count,
        }

    def call(self, name: str, arguments: list["Variable | str"]) -> Outcome:
        """Call one of `NAMES` with variables and texts."""
        expected = 1 if name in ("get_relations", "get_attributes", "count") else 2
        if len(arguments) != expected:
            raise CallError(f"{name} takes {expected} argument{'s'[: expected - 1]}, not {len(arguments)}.")
        return self._functions[name](*arguments)

    def members(self, variable: Variable) -> tuple[str, ...]:
        """Return what a variable stands for."""
        return self._store.select(self._queries.members(variable.expression))

    def _get_relations(self, subject: Variable | str) -> Outcome:
        key = self._subject(subject)
        listed = self._leading_from(key, self._ontology.relations)
        self._relations[key] = listed
        return Outcome(_listing(listed))

    def _get_neighbors(self, subject: Variable | str, relation: Variable | str) -> Outcome:
        key = self._subject(subject)
        if key not in self._relations:
            raise CallError("Its relations were not listed; call get_relations on it first.")
        if not isinstance(relation, str) or relation not in self._relations[key]:
            raise CallError("The relation is not among those that get_relations listed for it.")
        return _made(self._ontology.ranges[relation], Expression("JOIN", (key,), relation))

    def _combine(self, function: str, left: Variable | str, right: Variable | str) -> Outcome:
        if not isinstance(left, Variable) or not isinstance(right, Variable):
            raise CallError("Both arguments must be variables such as #0.")
        kind: str | None = left.type if left.type == right.type else None
        if self._style == "fixed":
            kind = self._ontology.common_type(left.type, right.type)
        if kind is None:
            raise CallError(f"The two variables are not of the same type: {left.type} and {right.type}.")
        return _made(kind, Expression(function, (left.expression, right.expression)))

    def _get_attributes(self, variable: Variable | str) -> Outcome:
        if not isinstance(variable, Variable):
            raise CallError("The argument must be a variable such as #0.")
        listed = self._leading_from(variable.expression, self._ontology.attributes)
        self._attributes[variable.expression] = listed
        return Outcome(_listing(listed))

    def _superlative(self, function: str, variable: Variable | str, attribute: Variable | str) -> Outcome:
        if not isinstance(variable, Variable):
            raise CallError("The first argument must be a variable such as #0.")
        if variable.expression not in self._attributes:
            raise CallError("Its attributes were not listed; call get_attributes on it first.")
        if not isinstance(attribute, str) or attribute not in self._attributes[variable.expression]:
            raise CallError("The attribute is not among those that get_attributes listed for it.")
        return _made(variable.type, Expression(function, (variable.expression,), attribute))

    def _count(self, variable: Variable | str) -> Outcome:
        if not isinstance(variable, Variable):
            raise CallError("The argument must be a variable such as #0.")
        made = Variable("type.int", Expression("COUNT", (variable.expression,)))
        return Outcome("Observation: variable ##, which is a number", made)

    def _subject(self, argument: Variable | str) -> Expression | str:
        if isinstance(argument, Variable):
            return argument.expression
        if not ENTITY[self._style].fullmatch(argument):
            raise CallError(f"{argument} is neither an entity of the question nor a variable such as #0.")
        return argument

    def _leading_from(self, subject: Expression | str, known: frozenset[str]) -> list[str]:
        """Return the known relations (or attributes) of a subject, sorted: a store's own order is no order.

        A number has none.
        """
        if isinstance(subject, Expression) and without_counts(subject) != subject:
            return []
        return sorted(known.intersection(self._store.select(self._queries.relations(subject))))


def _listing(names: list[str]) -> str:
    return f"Observation: [{', '.join(names)}]"


def _made(kind: str, expression: Expression) -> Outcome:
    return Outcome(f"Observation: variable ##, which are instances of {kind}", Variable(kind, expression))
