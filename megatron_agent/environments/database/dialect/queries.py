"""SELECT: its tables, its columns' kinds, and what MySQL refuses and SQLite takes.

That is a table's name in other case, an alias in WHERE, and columns beside aggregates that are not grouped by.
"""

from dataclasses import replace
from typing import NamedTuple

from sqlglot import exp

from megatron_agent.environments.database.dialect.conversions import convert
from megatron_agent.environments.database.dialect.kinds import UNKNOWN, Kind, joined
from megatron_agent.environments.database.dialect.parsing import NotUnderstood
from megatron_agent.environments.database.dialect.scope import Columns, Scope
from megatron_agent.environments.database.dialect.wrapping import is_aggregate, store

_NO_GROUP = "1111 (HY000): Invalid use of group function"


class TargetInSubquery(ValueError):  # noqa: N818
    """MySQL, not MariaDB, refuses to change a table that a subquery of the same statement reads."""

    def __init__(self, table: str) -> None:
        super().__init__(f"1093 (HY000): You can't specify target table '{table}' for update in FROM clause")


class _Item(NamedTuple):
    """One expression of a select list: its alias, the columns outside of aggregates, itself, its place from 0."""

    alias: str
    bare: list[str]
    node: exp.Expr
    number: int


@convert.register(exp.Query)
def _subquery(node: exp.Query, scope: Scope) -> Kind:
    columns = convert_query(node, replace(scope, depth=scope.depth + 1))
    return columns[0][1] if len(columns) == 1 else UNKNOWN


def convert_query(query: exp.Expr, scope: Scope, stored: bool = False) -> Columns:
    """Rewrite a SELECT, UNION or one in brackets, in its place; returns names and kinds of its columns."""
    if with_ := query.args.get("with_"):
        _convert_with(with_, scope)
    if isinstance(query, exp.Subquery):
        return convert_query(query.this, scope, stored)
    if isinstance(query, exp.SetOperation):
        sides = [convert_query(_without_brackets(query.args[key]), scope, stored) for key in ("this", "expression")]
        for key in ("order", "limit", "offset"):
            if query.args.get(key):
                convert(query.args[key], scope)
        pairs = zip(*sides, strict=False)  # SQLite tells when there are not as many
        return [(name, joined([kind, other])) for (name, kind), (_, other) in pairs]
    if not isinstance(query, exp.Select) or not query.expressions or query.args.get("windows"):
        raise NotUnderstood
    return _convert_select(query, replace(scope, tables=dict(scope.tables), aliases={}, others=False), stored)


def _without_brackets(side: exp.Expr) -> exp.Expr:
    """SQLite has no brackets around the sides of a UNION."""
    if not isinstance(side, exp.Subquery):
        return side
    place = side.replace(exp.Null())
    new = exp.select("*").from_(side, copy=False)
    place.replace(new)
    return new


def _convert_with(with_: exp.With, scope: Scope) -> None:
    for table in with_.expressions:
        names = [name.name.lower() for name in table.args["alias"].columns]
        scope.named[table.alias.lower()] = [(name, UNKNOWN) for name in names]  # as it may name itself
        columns = convert_query(table.this, scope)
        renamed = [(new, kind) for new, (_, kind) in zip(names, columns, strict=False)]
        scope.named[table.alias.lower()] = renamed or columns


def _convert_select(select: exp.Select, scope: Scope, stored: bool) -> Columns:
    select.set("operation_modifiers", None)
    if (from_ := select.args.get("from_")) and from_.name.upper() == "DUAL":
        select.set("from_", None)
    elif from_:
        add_tables(from_.this, select.args.get("joins") or [], scope)
    where, group, having = (select.args.get(key) for key in ("where", "group", "having"))
    aggregated = any(map(_has_aggregate, (*select.expressions, *([having] if having else []))))
    if where and _has_aggregate(where):
        raise ValueError(_NO_GROUP)
    items = [_item(node, number, scope) for number, node in enumerate(select.expressions)]
    aliases = {item.alias for item in items}
    if where and not scope.others:
        for column in _bare_columns(where):
            if not column.table and column.name.lower() in aliases - scope.columns.keys() - _tables_columns(scope):
                raise ValueError(f"1054 (42S22): Unknown column '{column.name}' in 'where clause'")
    if not scope.others and not scope.depth and (group or aggregated):
        _refuse_ungrouped(items, group, where, scope)
    columns = []
    for item, node in zip(items, list(select.expressions), strict=True):
        inner = node.this if isinstance(node, exp.Alias) else node
        kind = UNKNOWN if node.is_star else convert(inner, scope)
        if stored and not node.is_star:
            inner = select.expressions[item.number]
            store(inner.this if isinstance(inner, exp.Alias) else inner, kind)
        columns.append(("" if node.is_star else item.alias, kind))
    scope.aliases.update({name: kind for name, kind in columns if name})
    for key in ("where", "group", "having", "order", "limit", "offset"):
        if part := select.args.get(key):
            convert(part, scope)
    if having and not (group or aggregated or where):  # MySQL filters rows with it too
        select.set("where", exp.Where(this=having.this))
        select.set("having", None)
    return columns


def _tables_columns(scope: Scope) -> set[str]:
    return {name for columns in scope.tables.values() for name in columns or ()}


def _item(node: exp.Expr, number: int, scope: Scope) -> _Item:
    if node.is_star:
        return _Item("*", list(scope.columns), node, number)
    inner = node.this if isinstance(node, exp.Alias) else node
    alias = node.alias_or_name.lower() if isinstance(node, exp.Alias | exp.Column) else ""
    return _Item(alias, [column.name.lower() for column in _bare_columns(inner)], inner, number)


def _spelling(node: exp.Expr) -> str:
    return str(node.sql()).lower().replace('"', "")


def _bare_columns(node: exp.Expr) -> list[exp.Column]:
    """Return the columns outside of aggregates and subqueries."""
    found = node.walk(prune=lambda each: is_aggregate(each) or isinstance(each, exp.Query))
    return [each for each in found if isinstance(each, exp.Column)]


def _has_aggregate(node: exp.Expr) -> bool:
    found = node.walk(prune=lambda each: isinstance(each, exp.Query))
    return any(is_aggregate(each) and not isinstance(each.parent, exp.Window) for each in found)


def _refuse_ungrouped(items: list[_Item], group: exp.Group | None, where: exp.Where | None, scope: Scope) -> None:
    """Refuse a column that is neither grouped by nor in an aggregate (ONLY_FULL_GROUP_BY)."""
    grouped = group.expressions if group else []
    plain = {each.name.lower() for each in grouped if isinstance(each, exp.Column | exp.Literal)}
    known = {*scope.columns, *(item.alias for item in items)}
    if any(not name.isdigit() and name not in known for name in plain) or (group and not grouped):
        return  # SQLite knows better what is wrong with it
    spelled = {_spelling(each) for each in grouped}
    equal = {each.this.name.lower() for each in where.find_all(exp.EQ)} if where else set[str]()
    for item in items:
        if (
            (spelled and _spelling(item.node) in spelled)
            or str(item.number + 1) in plain
            or (item.alias and item.alias in plain)
        ):
            continue
        for column in item.bare:
            if column not in scope.columns or column in plain or column in equal:
                continue
            place = item.number + 1 + (list(scope.columns).index(column) if item.alias == "*" else 0)
            where_, full = f"expression #{place}", f"'{scope.table}.{scope.table}.{scope.columns[column]}'"
            if group is None:
                raise ValueError(
                    f"1140 (42000): In aggregated query without GROUP BY, {where_} of SELECT list contains "
                    f"nonaggregated column {full}; this is incompatible with sql_mode=only_full_group_by"
                )
            raise ValueError(
                f"1055 (42000): E{where_[1:]} of SELECT list is not in GROUP BY clause and contains "
                f"nonaggregated column {full} which is not functionally dependent on columns in GROUP BY "
                "clause; this is incompatible with sql_mode=only_full_group_by"
            )


def add_tables(table: exp.Expr, joins: list[exp.Join], scope: Scope) -> None:
    """Rewrite the tables after FROM, their joins and conditions, and bring them into scope."""
    _add_table(table, scope)
    for join in [*(table.args.get("joins") or []), *joins]:
        if join.args.get("kind") == "STRAIGHT_JOIN" or join.args.get("method") == "STRAIGHT_JOIN":
            join.set("kind", None)
            join.set("method", None)
        add_tables(join.this, [], scope)
        if on := join.args.get("on"):
            convert(on, scope)


def _add_table(table: exp.Expr, scope: Scope) -> None:
    name, columns, own = table.alias_or_name.lower(), Columns(), False
    if isinstance(table, exp.Subquery) and isinstance(table.this, exp.Query):
        inner = replace(scope, tables={}, aliases={}, others=False, derived=True, depth=scope.depth + 1)
        columns = convert_query(table.this, inner)
    elif isinstance(table, exp.Subquery | exp.Paren):
        return add_tables(table.this, [], scope)
    elif isinstance(table, exp.Table):
        own = table.name.lower() == scope.table.lower() and table.name.lower() not in scope.named
        columns = scope.named.get(table.name.lower(), columns)
        if table.name.lower() not in scope.named:
            name_table(table, scope)
            if table.name.lower() == scope.target and scope.depth and not scope.derived:
                raise TargetInSubquery(scope.table if own else table.name)
    scope.others |= not own
    scope.tables[name] = None if own else {column: kind for column, kind in columns if column}
    return None


def name_table(table: exp.Expr, scope: Scope) -> None:
    """Take the database off a table's name; refuse the name in other case, and SQLite's own tables, as MySQL does."""
    if not isinstance(table, exp.Table) or not table.name:
        raise NotUnderstood
    if table.db == scope.table:
        table.set("db", None)
    of_sqlite = table.name.lower().startswith(("sqlite_", "pragma_"))
    if of_sqlite or (table.name != scope.table and table.name.lower() == scope.table.lower()):
        raise ValueError(f"1146 (42S02): Table '{scope.table}.{table.name}' doesn't exist")
