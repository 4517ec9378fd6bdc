"""Expressions: what MySQL converts, written out for SQLite, and of what kind the result is.

SQLite compares a text with a number as texts, or takes any text for greater; MySQL converts the text to a number. The
kind of every operand is found out, and what has to be converted is wrapped.
"""

from collections.abc import Callable
from functools import singledispatch
from typing import Any

from sqlglot import exp

from megatron_agent.environments.database.dialect import collation
from megatron_agent.environments.database.dialect.dates import UNITS, has_time
from megatron_agent.environments.database.dialect.functions import ADDED
from megatron_agent.environments.database.dialect.kinds import (
    DATE,
    DATETIME,
    DOUBLE,
    IN_MYSQL,
    INTEGER,
    NULL,
    TEXT,
    UNKNOWN,
    Kind,
    called,
    computed,
)
from megatron_agent.environments.database.dialect.parsing import NotUnderstood
from megatron_agent.environments.database.dialect.scope import Scope
from megatron_agent.environments.database.dialect.wrapping import call, collate, compare, of_one_kind, show_digits

_COMPARISONS = (exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE, exp.NullSafeEQ)
_OPERATORS: dict[type[exp.Expr], str] = {exp.Add: "+", exp.Sub: "-", exp.Mul: "*", exp.Div: "/"}
_CONSTANTS: dict[type[exp.Expr], Kind] = {
    exp.Null: NULL, exp.CurrentDate: DATE, exp.CurrentTimestamp: DATETIME, exp.Concat: TEXT,
}  # fmt: skip
_RENAMED = {"if": "iif", "mid": "substr", "adddate": "date_add", "subdate": "date_sub", "any_value": "min"}
_OF_TEXT = frozenset({
    "concat", "concat_ws", "lpad", "rpad", "left", "right", "replace", "length", "char_length", "substring_index",
    "upper", "lower", "trim", "substr", "substring", "mid", "reverse", "md5", "mysql_group_concat",
})  # fmt: skip
_CASTS = {
    "BIGINT": ("to_signed", INTEGER), "UBIGINT": ("to_unsigned", INTEGER), "DATE": ("date", DATE),
    "DATETIME": ("timestamp", DATETIME), "CHAR": ("TEXT", TEXT), "NCHAR": ("TEXT", TEXT), "FLOAT": ("REAL", DOUBLE),
    "DOUBLE": ("REAL", DOUBLE),
}  # fmt: skip


class NotACast(ValueError):  # noqa: N818
    """MySQL casts to no such type."""


@singledispatch
def convert(node: exp.Expr, scope: Scope) -> Kind:
    """Rewrite an expression for SQLite, in its place, and return its kind. Raises ValueError with MySQL's message."""
    if isinstance(node, exp.Parameter | exp.Fetch | exp.PropertyEQ | exp.Interval):
        raise NotUnderstood
    for child in list(node.iter_expressions()):
        convert(child, scope)
    if isinstance(node, exp.Connector | exp.Predicate | exp.Not | exp.Boolean | exp.HexString):
        return INTEGER
    return _CONSTANTS.get(type(node), UNKNOWN)


@convert.register
def _literal(node: exp.Literal, scope: Scope) -> Kind:
    if node.is_string:
        return TEXT
    if "e" in node.name.lower():
        return DOUBLE
    return Kind("decimal", len(node.name.partition(".")[2])) if "." in node.name else INTEGER


@convert.register
def _column(node: exp.Column, scope: Scope) -> Kind:
    if node.db.lower() == scope.table.lower():
        node.set("db", None)
    return scope.kind_of(node)


@convert.register
def _paren(node: exp.Paren, scope: Scope) -> Kind:
    return convert(node.this, scope)


@convert.register
def _neg(node: exp.Neg, scope: Scope) -> Kind:
    kind = convert(node.this, scope)
    return kind if kind.is_number else DOUBLE


@convert.register
def _binary(node: exp.Binary, scope: Scope) -> Kind:
    if isinstance(node, exp.ILike):
        raise NotUnderstood
    if isinstance(node.right, exp.Any | exp.All):
        return _quantified(node, scope)
    if isinstance(node.right, exp.Interval):
        return _as(call("date_add" if isinstance(node, exp.Add) else "date_sub", node.left, node.right), node, scope)
    left, right = convert(node.left, scope), convert(node.right, scope)
    if isinstance(node, _COMPARISONS):
        compare(node.left, left, node.right, right)
    elif isinstance(node, exp.Like):
        show_digits(node.left, left)
    elif operator := _OPERATORS.get(type(node)):
        return computed(operator, left, right)
    return INTEGER if isinstance(node, exp.Connector | exp.Predicate) else UNKNOWN


def _quantified(node: exp.Binary, scope: Scope) -> Kind:
    """`= ANY (...)` is IN, `<> ALL (...)` is NOT IN; others are not read."""
    if type(node) is not (exp.EQ if isinstance(node.right, exp.Any) else exp.NEQ):
        raise NotUnderstood
    query = node.right.this
    member = exp.In(this=node.left, query=query if isinstance(query, exp.Subquery) else exp.Subquery(this=query))
    node.replace(exp.Not(this=member) if isinstance(node, exp.NEQ) else member)
    return convert(member, scope)


@convert.register
def _between(node: exp.Between, scope: Scope) -> Kind:
    kind, ends = convert(node.this, scope), []
    for key in ("low", "high"):
        ends.append(convert(node.args[key], scope))
        compare(node.args[key], ends[-1], node.this, kind, only_left=True)
    if number := next((end for end in ends if end.is_number), None):
        compare(node.this, kind, node.args["low"], number, only_left=True)
    return INTEGER


@convert.register
def _in(node: exp.In, scope: Scope) -> Kind:
    kind = convert(node.this, scope)
    if query := node.args.get("query"):
        compare(node.this, kind, query, convert(query, scope), only_left=True)
        return INTEGER
    values = list(zip(node.expressions, [convert(value, scope) for value in list(node.expressions)], strict=True))
    number = next((each for _, each in values if each.is_number), None)
    if number:
        compare(node.this, kind, node, number, only_left=True)
    for value, each in values if number or kind.is_number else ():
        compare(value, each, node, number or kind, only_left=True)
    return INTEGER


@convert.register
def _case(node: exp.Case, scope: Scope) -> Kind:
    base = convert(node.this, scope) if node.this else None
    for number, branch in enumerate(node.args["ifs"]):
        when = convert(branch.this, scope)
        if base is not None and number == 0:
            compare(node.this, base, branch.this, when, only_left=True)
    places = [(branch, "true") for branch in node.args["ifs"]]
    return _one_of([*places, (node, "default")] if node.args.get("default") else places, scope)


@convert.register
def _if(node: exp.If, scope: Scope) -> Kind:
    convert(node.this, scope)
    if not node.args.get("false"):
        raise NotUnderstood
    return _one_of([(node, "true"), (node, "false")], scope)


def _one_of(places: list[tuple[exp.Expr, str]], scope: Scope) -> Kind:
    kinds = [convert(holder.args[key], scope) for holder, key in places]
    return of_one_kind([holder.args[key] for holder, key in places], kinds)


@convert.register
def _collated(node: exp.Collate, scope: Scope) -> Kind:
    convert(node.this, scope)
    name = node.expression.name.lower()
    node.set("expression", exp.Var(this="BINARY" if name.endswith("_bin") or name == "binary" else collation.NAME))
    return TEXT


@convert.register
def _cast(node: exp.Cast, scope: Scope) -> Kind:
    kind, to = convert(node.this, scope), node.to
    name = to.this.name
    if name == "BINARY":  # BINARY x
        node.replace(exp.Collate(this=node.this, expression=exp.Var(this="BINARY")))
        return kind
    if name == "DECIMAL":
        digits = int(to.expressions[1].name) if len(to.expressions) == 2 else 0
        node.replace(call("to_decimal", node.this, digits))
        return Kind("decimal", digits)
    if name not in _CASTS:
        if name in ("INT", "VARCHAR", "TEXT", "BOOLEAN"):
            raise NotACast(name)
        raise NotUnderstood
    function, result = _CASTS[name]
    if function.islower():
        node.replace(call(function, node.this))
        return result
    show_digits(node.this, kind)
    new = exp.Cast(this=node.this, to=exp.DataType.build(function, dialect="sqlite"))
    node.replace(new)
    if result == TEXT:
        collate(new)
    return result


def _as(new: exp.Expr, node: exp.Expr, scope: Scope) -> Kind:
    node.replace(new)
    return convert(new, scope)


def _trim(node: exp.Trim) -> exp.Expr:
    letters = node.expression or exp.Literal.string(" ")
    if not letters.is_string or len(letters.name) != 1:
        raise NotUnderstood  # SQLite takes a set of characters
    name = {"LEADING": "ltrim", "TRAILING": "rtrim"}.get(str(node.args.get("position") or "").upper(), "trim")
    return call(name, node.this, letters)


_AS_CALLS: dict[type[exp.Expr], Callable[[Any], exp.Expr]] = {
    exp.Mod: lambda node: call("mod", node.left, node.right),
    exp.IntDiv: lambda node: call("div", node.left, node.right),
    exp.Xor: lambda node: call("xor", node.left, node.right),
    exp.Extract: lambda node: call("extract", node.name.upper(), node.expression),
    exp.StrPosition: lambda node: call("locate", node.args["substr"], node.this),
    exp.Substring: lambda node: call("substr", *filter(None, map(node.args.get, ("this", "start", "length")))),
    exp.Trim: _trim,
}
for _type, _make in _AS_CALLS.items():
    convert.register(_type, lambda node, scope: _as(_AS_CALLS[type(node)](node), node, scope))


@convert.register
def _group_concat(node: exp.GroupConcat, scope: Scope) -> Kind:
    order = node.this if isinstance(node.this, exp.Order) else None
    text = order.this if order else node.this
    distinct = isinstance(text, exp.Distinct)
    if distinct:
        text = text.expressions[0] if text.expressions else None
    if text is None:
        raise NotUnderstood
    keys = order.expressions if order else []
    separator = node.args.get("separator")
    descending = int(bool(keys and keys[-1].args.get("desc")))
    new = call("mysql_group_concat", separator.name if separator else ",", int(distinct), descending, text)
    for key in keys:
        new.append("expressions", key.this)
    return _as(new, node, scope)


@convert.register
def _window(node: exp.Window, scope: Scope) -> Kind:
    kind = convert(node.this, scope)
    for part in [*(node.args.get("partition_by") or []), node.args.get("order")]:
        if part:
            convert(part, scope)
    return kind


@convert.register
def _call(node: exp.Anonymous, scope: Scope) -> Kind:
    name = node.name.lower()
    if name not in IN_MYSQL and name not in ADDED:
        raise ValueError(f"1305 (42000): FUNCTION {scope.table}.{node.name} does not exist")
    if name == "timestampdiff" and node.expressions:
        node.expressions[0].replace(exp.Literal.string(node.expressions[0].name.upper()))
    kinds = [_argument(each, scope) for each in list(node.expressions)]
    arguments = node.expressions
    if name in _OF_TEXT:
        for argument, each in zip(arguments, kinds, strict=True):
            show_digits(argument, each)
    if name in ("ifnull", "coalesce"):
        of_one_kind(list(arguments), kinds)
    places = arguments[1].sql() if len(arguments) > 1 and name in ("round", "truncate") else ""
    kind = called(name, kinds, int(places) if places.removeprefix("-").isdigit() and len(places) < 5 else None)
    if name == "str_to_date" and len(arguments) == 2 and arguments[1].is_string:
        kind = DATETIME if has_time(arguments[1].name) else DATE
    if name == "round" and kinds:
        name = "round_double" if kinds[0] in (TEXT, DOUBLE) else "round_decimal"
    node.set("this", _RENAMED.get(name, name if name in ADDED else node.name))
    if kind == TEXT and not isinstance(node.parent, exp.Window):
        collate(node)
    return kind


def _argument(node: exp.Expr, scope: Scope) -> Kind:
    if isinstance(node, exp.Interval):  # becomes two arguments, `1, 'DAY'`
        unit = node.unit.name.upper() if node.unit else ""
        if unit not in UNITS or not isinstance(node.parent, exp.Anonymous):
            raise NotUnderstood
        node.parent.append("expressions", exp.Literal.string(unit))
        return convert(node.replace(node.this), scope)
    if isinstance(node, exp.Distinct):
        kinds = [convert(each, scope) for each in list(node.expressions)]
        if len(kinds) > 1:
            node.set("expressions", [call("distinct_key", *node.expressions)])
        return kinds[0]
    return INTEGER if isinstance(node, exp.Star) else convert(node, scope)
