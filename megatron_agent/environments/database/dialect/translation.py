"""MySQL statements as SQLite understands them, for the differences that can be told from the statement.

AgentBench runs MySQL 8 and declares every column TEXT, so agents write MySQL. sqlglot reads a statement
(`parsing.py`); what MySQL converts, refuses and shows otherwise is worked into its tree (`queries.py`,
`conversions.py`, and the statements that change rows here). What sqlglot does not read passes as it is. What stays
different is listed in docs/environments.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from sqlglot import exp
from sqlglot.dialects.mysql import MySQL
from sqlglot.tokens import Token, TokenType

from megatron_agent.environments.database.dialect.changes import convert_statement
from megatron_agent.environments.database.dialect.conversions import NotACast
from megatron_agent.environments.database.dialect.kinds import Kind
from megatron_agent.environments.database.dialect.messages import syntax_error
from megatron_agent.environments.database.dialect.parsing import NotUnderstood, generate, parse, tokenize
from megatron_agent.environments.database.dialect.queries import TargetInSubquery
from megatron_agent.environments.database.dialect.scope import Scope

_RESERVED = frozenset(MySQL.Generator.RESERVED_KEYWORDS) - {"dual"}
_WINDOW_FUNCTIONS = frozenset(
    "cume_dist dense_rank first_value lag last_value lead nth_value ntile percent_rank rank row_number".split()  # noqa: SIM905
)


@dataclass(frozen=True)
class Translation:
    """A statement for SQLite, and the kinds of its result's columns (None if unknown)."""

    sql: str
    kinds: list[Kind] | None = None


def mysql_to_sqlite(sql: str, table: str = "", columns: Sequence[str] = ()) -> Translation:
    """Translate a statement about the task's `table` with these `columns`; text it does not know passes through.

    Raises ValueError with MySQL's message for what MySQL refuses and SQLite would take.
    """
    tokens = tokenize(sql)
    if bracket := next((token for token in tokens if token.token_type == TokenType.L_BRACKET), None):
        raise ValueError(syntax_error(sql, bracket.start))
    try:
        tree = parse(tokens, sql)
        if (position := _refused_at(tree, tokens, sql)) is not None:
            raise ValueError(syntax_error(sql, position))
        tree, kinds = convert_statement(tree, tokens, Scope(table, {name.lower(): name for name in columns}))
        return Translation(generate(tree), kinds)
    except NotACast as error:
        raise ValueError(syntax_error(sql, _type_at(str(error), tokens))) from error
    except (NotUnderstood, RecursionError, AttributeError, LookupError):
        # Nothing half done is kept. sqlglot makes trees of other shapes out of what is no SQL at all.
        return Translation(sql)


def refuse_target_in_subquery(sql: str, table: str) -> None:
    """Raise ValueError for what MySQL refuses and MariaDB takes: a change of a table that a subquery of it reads."""
    try:
        mysql_to_sqlite(sql, table)
    except TargetInSubquery:
        raise
    except ValueError:
        pass  # the server knows better


def _refused_at(tree: exp.Expr, tokens: list[Token], sql: str) -> int | None:
    """Return where MySQL stops reading what sqlglot reads on: reserved words as names, texts as names of tables."""
    places = []
    for name in tree.find_all(exp.Identifier):
        start, parent = name.meta.get("start"), name.parent
        if start is None:
            continue
        if name.quoted:
            if isinstance(parent, exp.Table) and name.arg_key == "this" and sql[start : start + 1] in "'\"":
                places.append(start)
        elif name.name.lower() in _RESERVED and sql[max(0, start - 1) : start] != ".":
            is_call = name.name.lower() in _WINDOW_FUNCTIONS  # a bracket has to follow
            places.append(next((token.start for token in tokens if is_call and token.start > start), start))
    for schema in tree.find_all(exp.Schema):
        if any(isinstance(each, exp.Literal) for each in schema.expressions):
            kinds = (TokenType.STRING, TokenType.NUMBER)
            places.append(next(token.start for token in tokens if token.token_type in kinds))
    for before, token in pairwise(tokens):
        if before.token_type == TokenType.LIMIT and token.token_type in (TokenType.DASH, TokenType.STRING):
            places.append(token.start)
    return min(places, default=None)


def _type_at(name: str, tokens: list[Token]) -> int:
    """Return where a type of a CAST stands."""
    pairs = pairwise(tokens)
    found = (
        b.start for a, b in pairs if b.token_type.name == name and a.token_type in (TokenType.ALIAS, TokenType.COMMA)
    )
    return next(found, 0)
