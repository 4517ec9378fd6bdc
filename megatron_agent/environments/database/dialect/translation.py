"""MySQL statements as SQLite understands them, for the differences that can be told from the statement.

AgentBench runs MySQL 8 and declares every column TEXT, so agents write MySQL. A statement is cut into tokens
(`tokens.py`), brought into a form that SQLite has (`statements.py`), and walked through for what MySQL converts,
refuses and shows otherwise (`changes.py`, `selects.py`, `calls.py`, `expressions.py`). What the walk does not
understand passes as it is. What stays different is listed in docs/environments.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from megatron_agent.environments.database.dialect.changes import Walk
from megatron_agent.environments.database.dialect.kinds import Kind
from megatron_agent.environments.database.dialect.messages import syntax_error
from megatron_agent.environments.database.dialect.statements import BEFORE_TABLE, rewrite
from megatron_agent.environments.database.dialect.tokens import Token, code_of, spelling, tokenize
from megatron_agent.environments.database.dialect.walk import NotUnderstood, Refused, TargetInSubquery


@dataclass(frozen=True)
class Translation:
    """A statement for SQLite, the kinds of its result's columns (None if unknown), and where its tokens came from."""

    sql: str
    kinds: list[Kind] | None
    origins: list[tuple[int, int]]

    def origin(self, position: int) -> int:
        """Return the place in the statement as written of what stands at `position` here."""
        return max((pair for pair in self.origins if pair[0] <= position), default=(0, 0))[1]


def mysql_to_sqlite(sql: str, table: str = "", columns: Sequence[str] = ()) -> Translation:
    """Translate a statement about the task's `table` with these `columns`; text it does not know passes through.

    Raises ValueError with MySQL's message for what MySQL refuses and SQLite would take.
    """
    code = code_of(tokenize(sql))
    _refuse_other_quotes(code, sql)
    walk = Walk(rewrite(code, table), table, columns)
    try:
        kinds = _walk(walk)
        if walk.error and _ended(walk):
            raise walk.error
        code = walk.code
    except (NotUnderstood, IndexError):  # nothing half done is kept
        kinds, code = None, rewrite(code_of(tokenize(sql)), table)
    except Refused as error:
        raise ValueError(syntax_error(sql, error.position)) from error
    pieces, origins, length = [], [], 0
    for token in code:
        piece = token.before + spelling(token) + token.after
        origins.append((length + len(token.before), token.start))
        pieces.append(piece)
        length += len(piece) + 1
    return Translation(" ".join(pieces), kinds, origins)


def refuse_target_in_subquery(sql: str, table: str) -> None:
    """Raise ValueError for what MySQL refuses and MariaDB takes: a change of a table that a subquery of it reads."""
    try:
        mysql_to_sqlite(sql, table)
    except TargetInSubquery:
        raise
    except ValueError:
        pass  # the server knows better


def _walk(walk: Walk) -> list[Kind] | None:
    kind = walk.word()
    if kind in ("SELECT", "WITH") or walk.text() == "(":
        columns = walk.select()
        return [kind for _, kind in columns]
    if kind in ("INSERT", "REPLACE"):
        walk.insert()
    elif kind == "UPDATE":
        walk.update()
    elif kind == "DELETE":
        walk.delete()
    elif kind == "CREATE":
        walk.skip_to("SELECT", "WITH")
        walk.select()
    return None


def _ended(walk: Walk) -> bool:
    return all(token.text == ";" for token in walk.code[walk.at :])


def _refuse_other_quotes(code: list[Token], sql: str) -> None:
    calls: list[str] = []
    for index, token in enumerate(code):
        if token.text == "(":
            calls.append(code[index - 1].word if index else "")
        elif token.text == ")" and calls:
            calls.pop()
        text_as_table = token.kind == "string" and index and code[index - 1].word in BEFORE_TABLE
        if calls and calls[-1] in ("TRIM", "SUBSTRING", "SUBSTR", "MID", "EXTRACT"):  # TRIM('x' FROM 'y')
            text_as_table = False
        if text_as_table or token.text == "[":
            raise ValueError(syntax_error(sql, token.start))
