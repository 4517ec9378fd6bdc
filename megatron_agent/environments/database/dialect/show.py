"""Statements about tables and session that MySQL answers and SQLite has not: SHOW, DESCRIBE, SET, transactions."""

import re
import sqlite3

from megatron_agent.environments.database.dialect.messages import no_table, syntax_error
from megatron_agent.environments.database.dialect.tokens import Token, code_of, tokenize

_SILENT = (
    ("SET",), ("START", "TRANSACTION"), ("BEGIN",), ("COMMIT",), ("ROLLBACK",), ("LOCK", "TABLES"),
    ("UNLOCK", "TABLES"), ("FLUSH", "TABLES"),
)  # fmt: skip
"""Without effect here: there is one session, and each statement is committed, as in AgentBench."""
_OPENING = {"SHOW", "DESCRIBE", "DESC", "EXPLAIN", "USE", *(words[0] for words in _SILENT)}
_FIRST = re.compile(r"\s*(\w+)")


def answer(sql: str, connection: sqlite3.Connection, database: str) -> str | None:
    """Return the text of such a statement's result; None for any other statement.

    Must be called while the connection may use PRAGMA.
    """
    if (first := _FIRST.match(sql)) is None or first[1].upper() not in _OPENING:
        return None
    code = [token for token in code_of(tokenize(sql)) if token.text != ";"]
    words = [token.word for token in code]
    if any(tuple(words[: len(silent)]) == silent for silent in _SILENT) and _complete(words):
        return "[]"
    if words[:1] == ["USE"] and len(code) == 2:
        named = code[1].text.strip("`")
        return "[]" if named == database else f"1049 (42000): Unknown database '{named}'"
    if words[:1] == ["SHOW"] and words[-1:] == ["TABLES"] and len(words) <= 3:
        more = ("BASE TABLE",) if "FULL" in words else ()
        return str([(name, *more) for name in _tables(connection)])
    if words in (["SHOW", "DATABASES"], ["SHOW", "SCHEMAS"]):
        return str([("information_schema",), (database,)])
    if (table := _described(code, words)) is not None:
        return _columns(connection, table, database)
    if words[:1] == ["SHOW"]:
        return syntax_error(sql, code[1].start) if len(code) > 1 else syntax_error(sql, len(sql))
    return None


def _complete(words: list[str]) -> bool:
    return words[:1] != ["SET"] or len(words) > 2


def _described(code: list[Token], words: list[str]) -> Token | None:
    if words[:1] in (["DESCRIBE"], ["DESC"], ["EXPLAIN"]) and len(code) == 2 and code[1].name:
        return code[1]
    shown = [word for word in words if word != "FULL"]
    if shown[:1] == ["SHOW"] and shown[1:2] in (["COLUMNS"], ["FIELDS"]) and shown[2:3] in (["FROM"], ["IN"]):
        return code[-1] if len(shown) == 4 else None
    return None


def _tables(connection: sqlite3.Connection) -> list[str]:
    found = connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view') ORDER BY name")
    return [name for (name,) in found]


def _columns(connection: sqlite3.Connection, table: Token, database: str) -> str:
    name = table.text[1:-1].replace("``", "`") if table.kind == "name" else table.text
    if name not in _tables(connection):
        return no_table(database, name)
    columns = connection.execute("SELECT name, type FROM pragma_table_info(?)", (name,))
    return str([(column, kind.lower().replace(" ", ""), "YES", "", None, "") for column, kind in columns])
