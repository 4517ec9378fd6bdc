"""Statements about tables and session that MySQL answers and SQLite has not: SHOW, DESCRIBE, SET, transactions."""

import re
import sqlite3

from megatron_agent.environments.database.dialect.messages import mysql_message, syntax_error

_NAME = r"(?:`(?P<quoted>(?:[^`]|``)+)`|(?P<plain>[\w$]+))"
# Without effect here: there is one session, and each statement is committed, as in AgentBench.
_SILENT = re.compile(
    r"(SET\s+\S+\s*\S.*|START\s+TRANSACTION\b.*|BEGIN|COMMIT|ROLLBACK|(UN)?LOCK\s+TABLES\b.*|FLUSH\s+TABLES\b.*)",
    re.IGNORECASE | re.DOTALL,
)
_USE = re.compile(rf"USE\s+{_NAME}", re.IGNORECASE)
_TABLES = re.compile(r"SHOW\s+(?P<full>FULL\s+)?TABLES", re.IGNORECASE)
_DATABASES = re.compile(r"SHOW\s+(DATABASES|SCHEMAS)", re.IGNORECASE)
_DESCRIBE = re.compile(
    rf"(?:DESCRIBE|DESC|EXPLAIN|SHOW\s+(?:FULL\s+)?(?:COLUMNS|FIELDS)\s+(?:FROM|IN))\s*{_NAME}", re.IGNORECASE
)
_SHOW = re.compile(r"\s*SHOW\b\s*", re.IGNORECASE)


def answer(sql: str, connection: sqlite3.Connection, database: str) -> str | None:
    """Return the text of such a statement's result; None for any other statement.

    Must be called while the connection may use PRAGMA.
    """
    text = sql.strip("; \t\r\n")
    if _SILENT.fullmatch(text):
        return "[]"
    if found := _USE.fullmatch(text):
        named = _name(found)
        return "[]" if named == database else f"1049 (42000): Unknown database '{named}'"
    if found := _TABLES.fullmatch(text):
        return str([(name, "BASE TABLE") if found["full"] else (name,) for name in _tables(connection)])
    if _DATABASES.fullmatch(text):
        return str([("information_schema",), (database,)])
    if found := _DESCRIBE.fullmatch(text):
        return _columns(connection, _name(found), database)
    shown = _SHOW.match(sql)
    return syntax_error(sql, shown.end()) if shown else None


def _name(found: re.Match[str]) -> str:
    return found["plain"] or found["quoted"].replace("``", "`")


def _tables(connection: sqlite3.Connection) -> list[str]:
    found = connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view') ORDER BY name")
    return [name for (name,) in found]


def _columns(connection: sqlite3.Connection, name: str, database: str) -> str:
    if name not in _tables(connection):
        return mysql_message(f"no such table: {name}", "", database)
    columns = connection.execute("SELECT name, type FROM pragma_table_info(?)", (name,))
    return str([(column, kind.lower().replace(" ", ""), "YES", "", None, "") for column, kind in columns])
