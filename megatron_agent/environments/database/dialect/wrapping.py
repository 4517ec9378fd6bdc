"""What is put around an expression of a statement's tree: numbers out of texts, texts out of numbers, a collation."""

from collections.abc import Sequence

from sqlglot import exp

from megatron_agent.environments.database.dialect import collation
from megatron_agent.environments.database.dialect.kinds import AGGREGATES, TEXT, UNKNOWN, Kind, joined


def call(name: str, *arguments: exp.Expr | str | int) -> exp.Anonymous:
    """Return the call of a function of SQLite or of ours; texts and numbers become literals."""
    return exp.Anonymous(this=name, expressions=[exp.convert(each) for each in arguments])


def is_aggregate(node: exp.Expr) -> bool:
    return isinstance(node, exp.GroupConcat) or (isinstance(node, exp.Anonymous) and node.name.lower() in AGGREGATES)


def wrap(node: exp.Expr, name: str, *more: exp.Expr | str | int) -> None:
    """Put the call of a function around an expression, where that stands."""
    place = node.replace(exp.Null())
    place.replace(call(name, node, *more))


def show_digits(node: exp.Expr, kind: Kind) -> None:
    """Write a number that is wanted as a text as MySQL does: `2.50` of a DECIMAL, `5` of a DOUBLE."""
    if kind.name == "decimal":
        wrap(node, "decimal_text", kind.digits)
    elif kind.name == "double":
        wrap(node, "stored_text")


def of_one_kind(nodes: Sequence[exp.Expr], kinds: Sequence[Kind]) -> Kind:
    """Return the kind of a value that is one of these; a number among texts becomes a text."""
    result = joined(kinds)
    for node, kind in zip(nodes, kinds, strict=True):
        if result == TEXT and kind.is_number:
            place = node.replace(exp.Null())
            text = call("concat", node)
            place.replace(text)
            show_digits(node, kind)
    return result


def collate(node: exp.Expr, name: str = collation.NAME) -> None:
    place = node.replace(exp.Null())
    place.replace(exp.Collate(this=node, expression=exp.Var(this=name)))


def store(node: exp.Expr, kind: Kind) -> None:
    """Make what goes into a column the text that MySQL makes of it."""
    literal = node.this if isinstance(node, exp.Neg) else node
    if isinstance(literal, exp.Literal) and literal.is_number:
        text = literal.name
        if "e" in text.lower():
            text = f"{float(text):.15g}".replace("e+", "e")
        elif "." not in text and len(text) < 19:
            return
        else:
            whole, point, fraction = text.partition(".")
            text = (whole.lstrip("0") or "0") + point * bool(fraction) + fraction
        node.replace(exp.Literal.string("-" * (node is not literal) + text))
    elif kind.name == "decimal":
        show_digits(node, kind)
    elif not isinstance(node, exp.Literal | exp.Column | exp.Null | exp.Boolean):
        wrap(node, "stored_text")


def compare(left: exp.Expr, left_kind: Kind, right: exp.Expr, right_kind: Kind, only_left: bool = False) -> None:
    """Convert the text of two that are compared to a number if the other is one."""
    if right_kind.is_number and _may_be_text(left, left_kind):
        _add_zero(left)
    elif not only_left and left_kind.is_number and _may_be_text(right, right_kind):
        _add_zero(right)
    elif left_kind == right_kind == TEXT and isinstance(left, exp.Literal):
        collate(left)


def _may_be_text(node: exp.Expr, kind: Kind) -> bool:
    return kind == TEXT or (kind == UNKNOWN and isinstance(node, exp.Column))


def _add_zero(node: exp.Expr) -> None:
    place = node.replace(exp.Null())
    place.replace(exp.Paren(this=exp.Add(this=node, expression=exp.Literal.number(0))))
