"""INSERT, UPDATE, DELETE and TRUNCATE in the forms SQLite has; numbers go into columns as MySQL's texts of them."""

from dataclasses import replace

from sqlglot import exp
from sqlglot.tokens import Token

from megatron_agent.environments.database.dialect.conversions import convert
from megatron_agent.environments.database.dialect.kinds import Kind
from megatron_agent.environments.database.dialect.parsing import NotUnderstood
from megatron_agent.environments.database.dialect.queries import add_tables, convert_query, name_table
from megatron_agent.environments.database.dialect.scope import Scope
from megatron_agent.environments.database.dialect.wrapping import store


def convert_statement(tree: exp.Expr, tokens: list[Token], scope: Scope) -> tuple[exp.Expr, list[Kind] | None]:
    """Rewrite a statement; returns it, and the kinds of its result's columns if it has any."""
    if isinstance(tree, exp.Query):
        if isinstance(tree, exp.Subquery):
            tree = exp.select("*").from_(tree, copy=False)
            return tree, [kind for _, kind in convert_query(tree.args["from_"].this.this, scope)]
        return tree, [kind for _, kind in convert_query(tree, scope)]
    if isinstance(tree, exp.Create) and isinstance(tree.expression, exp.Query):
        convert_query(tree.expression, scope)
    elif isinstance(tree, exp.Insert):
        _insert(tree, scope)
    elif isinstance(tree, exp.Update):
        _update(tree, scope)
    elif isinstance(tree, exp.Delete):
        tree = _delete(tree, tokens, scope)
    elif isinstance(tree, exp.TruncateTable) and len(tree.expressions) == 1:
        name_table(tree.expressions[0], scope)
        tree = exp.Delete(this=tree.expressions[0])
    else:
        raise NotUnderstood
    return tree, None


def _insert(insert: exp.Insert, scope: Scope) -> None:
    table = insert.this.this if isinstance(insert.this, exp.Schema) else insert.this
    name_table(table, scope)
    insert.set("conflict", None)  # no column of the task's table is a key
    insert.set("ignore", False)
    if insert.expression is None:
        raise NotUnderstood
    if not isinstance(insert.expression, exp.Values):
        convert_query(insert.expression, scope, stored=True)
        return
    rows = insert.expression.expressions
    if len(rows) == 1 and not rows[0].expressions:
        insert.set("this", table)
        insert.set("expression", None)
        insert.set("default", True)
    inside = replace(scope, target=table.name.lower())
    for row in rows:
        for position in range(len(row.expressions)):
            if isinstance(row.expressions[position], exp.Var):  # DEFAULT
                row.expressions[position].replace(exp.Null())
            kind = convert(row.expressions[position], inside)
            store(row.expressions[position], kind)


def _update(update: exp.Update, scope: Scope) -> None:
    table = update.this
    if not isinstance(table, exp.Table) or table.args.get("joins") or update.args.get("from_"):
        raise NotUnderstood
    add_tables(table, [], scope)
    scope.target = table.name.lower()
    for assignment in update.expressions:
        if not isinstance(assignment, exp.EQ) or not isinstance(assignment.left, exp.Column):
            raise NotUnderstood
        assignment.left.replace(exp.Column(this=assignment.left.this))
        kind = convert(assignment.right, scope)
        store(assignment.right, kind)
    _rest_of_change(update, scope)


def _delete(delete: exp.Delete, tokens: list[Token], scope: Scope) -> exp.Delete:
    """The forms with several tables, one of which loses rows, become `rowid IN (SELECT ...)`."""
    targets, using, table = delete.args.get("tables") or [], delete.args.get("using") or [], delete.this
    if not isinstance(table, exp.Table) or not any(token.text.upper() == "FROM" for token in tokens):
        raise NotUnderstood
    if not targets and not using:
        add_tables(table, [], scope)
        scope.target = table.name.lower()
        _rest_of_change(delete, scope)
        return delete
    target, source = (targets[0], table) if targets else (table, using[0])
    if len(targets) > 1:
        raise NotUnderstood
    rows = exp.select(exp.column("rowid", table=target.name)).from_(source, copy=False)
    rows.set("where", delete.args.get("where"))
    tables = [each for each in rows.find_all(exp.Table) if each.alias_or_name.lower() == target.name.lower()]
    if not tables:
        raise NotUnderstood
    plain = exp.Table(this=exp.to_identifier(tables[0].name))
    convert_query(rows, scope)
    member = exp.In(this=exp.column("rowid"), query=exp.Subquery(this=rows))
    return exp.Delete(this=plain, where=exp.Where(this=member))


def _rest_of_change(change: exp.Expr, scope: Scope) -> None:
    for key in ("where", "order", "limit"):
        if part := change.args.get(key):
            convert(part, scope)
