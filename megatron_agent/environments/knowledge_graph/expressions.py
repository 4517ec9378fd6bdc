"""S-expressions of the knowledge graph functions, and the SPARQL they stand for.

A variable `#k` is never computed when it is made: it holds an expression, which becomes one query when its relations,
its attributes or its members are asked for. The queries give full IRIs (a prefixed name with two dots, as every
Freebase relation has, is refused by some parsers) and run the same on pyoxigraph and on Virtuoso. What they ask is
what AgentBench's `lisp_to_sparql` asks (src/server/tasks/knowledgegraph/utils/logic_form_util.py).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

NAMESPACE = "http://rdf.freebase.com/ns/"
NUMBER = r"^[-+]?[0-9]*[.]?[0-9]+([eE][-+]?[0-9]+)?$"
DOUBLE = "<http://www.w3.org/2001/XMLSchema#double>"


@dataclass(frozen=True)
class Expression:
    """`(JOIN (R relation) of)`, `(AND a b)`, `(OR a b)`, `(COUNT a)`, `(ARGMAX a attribute)`, `(ARGMIN a attribute)`.

    `operands` are expressions, or the id of an entity as the only operand of a JOIN.
    """

    function: str
    operands: tuple["Expression | str", ...]
    relation: str = ""

    def __str__(self) -> str:
        inner = " ".join(str(operand) for operand in self.operands)
        if self.function == "JOIN":
            return f"(JOIN (R {self.relation}) {inner})"
        return f"({self.function} {inner} {self.relation})" if self.relation else f"({self.function} {inner})"


def entities(expression: Expression) -> list[str]:
    """Return the entities an expression names, sorted, each once."""
    found: set[str] = set()
    waiting: list[Expression | str] = [expression]
    while waiting:
        node = waiting.pop()
        if isinstance(node, str):
            found.add(node)
        else:
            waiting.extend(node.operands)
    return sorted(found)


def operands_of(expression: Expression) -> list[Expression]:
    """Return the distinct operands of nested ANDs (or ORs) as one list: `(AND a (AND b a))` gives a, b."""
    found: dict[Expression, None] = {}
    waiting: list[Expression | str] = [expression]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Expression):
            if node.function == expression.function:
                waiting.extend(reversed(node.operands))
            else:
                found[node] = None
    return list(found)


def without_counts(expression: Expression) -> Expression:
    """Return an expression without the COUNTs at its top and in the ANDs and ORs there."""
    while expression.function == "COUNT":
        expression = _only(expression)
    if expression.function not in ("AND", "OR"):
        return expression
    operands = tuple(without_counts(operand) for operand in expression.operands if isinstance(operand, Expression))
    return Expression(expression.function, operands)


def iri(name: str) -> str:
    """Return the IRI of an entity, relation or type of Freebase."""
    return f"<{NAMESPACE}{name}>"


class QueryBuilder:
    """Writes queries over one graph.

    `graph` is the IRI of a named graph (None: the store's default graph). `is_number` tells whether an attribute's
    values are compared as numbers; the others (dates) are compared as text, negative years in their own order.
    """

    def __init__(self, is_number: Callable[[str], bool], graph: str | None = None) -> None:
        self._is_number = is_number
        self._from = f"FROM <{graph}>\n" if graph else ""

    def members(self, expression: Expression) -> str:
        """Return the query of what an expression stands for: entities, values, or one number.

        As in AgentBench, a COUNT inside others counts them all: `(AND (COUNT a) b)` is `(COUNT (AND a b))`.
        """
        stripped = without_counts(expression)
        if stripped != expression:
            expression = Expression("COUNT", (stripped,))
        return self._select(expression, "x", count(), self._from)

    def relations(self, subject: Expression | str) -> str:
        """Return the query of the relations that lead away from an entity, or from any member of an expression."""
        if isinstance(subject, str):
            lines = f"{iri(subject)} ?relation ?object ."
        else:
            lines = f"{{\n{self._select(subject, 'x', count())}\n}}\n?x ?relation ?object ."
        return (
            f"SELECT DISTINCT ?relation\n{self._from}WHERE {{\n{lines}\n"
            f'FILTER(STRSTARTS(STR(?relation), "{NAMESPACE}"))\n}}'
        )

    def _select(self, expression: Expression, name: str, numbers: Iterator[int], source: str = "") -> str:
        if expression.function == "COUNT":
            inner = f"y{next(numbers)}"
            lines = self._where(_only(expression), inner, numbers) + _filters(expression, inner)
            return f"SELECT (COUNT(DISTINCT ?{inner}) AS ?{name})\n{source}WHERE {{\n{lines}\n}}"
        lines = self._where(expression, name, numbers)
        if expression.function not in ("ARGMAX", "ARGMIN"):  # a superlative filters before it takes the best
            lines += _filters(expression, name)
        return f"SELECT DISTINCT ?{name}\n{source}WHERE {{\n{lines}\n}}"

    def _where(self, expression: Expression, name: str, numbers: Iterator[int]) -> str:
        """Return the graph pattern that binds `?name` to each member."""
        if expression.function == "JOIN":
            of = expression.operands[0]
            if isinstance(of, str):
                return f"{iri(of)} {iri(expression.relation)} ?{name} ."
            inner = f"y{next(numbers)}"
            return f"{self._where(of, inner, numbers)}\n?{inner} {iri(expression.relation)} ?{name} ."
        if expression.function == "AND":
            return "\n".join(self._where(operand, name, numbers) for operand in operands_of(expression))
        if expression.function == "OR":
            sides = [f"{{\n{self._where(operand, name, numbers)}\n}}" for operand in operands_of(expression)]
            return "\nUNION\n".join(sides)
        return self._superlative(expression, name, numbers)

    def _superlative(self, expression: Expression, name: str, numbers: Iterator[int]) -> str:
        """All members that share the best value of the attribute."""
        inner, number = f"y{next(numbers)}", next(numbers)
        key, attribute = f"?key{number}", iri(expression.relation)
        is_number = self._is_number(expression.relation)

        def keyed(variable: str, value: str) -> str:
            """Members with a value, in a group of their own: a join with the best key must not fill in a key."""
            lines = f"{self._where(_only(expression), variable, numbers)}\n?{variable} {attribute} {value} ."
            if is_number:
                lines += f'\nFILTER(REGEX(STR({value}), "{NUMBER}"))\nBIND({DOUBLE}(STR({value})) AS {key})'
            else:
                lines += f"\nBIND(STR({value}) AS {key})"
            return f"{{\n{lines}\n}}"

        best, worst = ("DESC", "ASC") if expression.function == "ARGMAX" else ("ASC", "DESC")
        if is_number:
            order = f"{best}({key})"
        else:  # -0044 comes after -0100, and both before 1999
            before_christ = f'STRSTARTS({key}, "-")'
            order = f'{best}(IF({before_christ}, 0, 1)) {worst}(IF({before_christ}, {key}, "")) {best}({key})'
        return (
            f"{keyed(name, f'?value{number}')}\n{{\nSELECT {key}\nWHERE {{\n"
            f"{keyed(inner, f'?value{number}b')}{_filters(expression, inner)}\n}}\nORDER BY {order}\nLIMIT 1\n}}"
        )


def _only(expression: Expression) -> Expression:
    operand = expression.operands[0]
    assert isinstance(operand, Expression)
    return operand


def _filters(expression: Expression, name: str) -> str:
    """AgentBench's: no answer is an entity the program names, and no text in another language than English."""
    lines = [f"\nFILTER(?{name} != {iri(entity)})" for entity in entities(expression)]
    variable = f"?{name}"
    language = f'LANG({variable}) = "" || LANGMATCHES(LANG({variable}), "en")'
    return "".join(lines) + f"\nFILTER(!isLiteral({variable}) || {language})"
