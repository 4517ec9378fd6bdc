"""Where the SQL runs. The default is SQLite in memory; a MySQL server offers the same four methods."""

import hashlib
import sqlite3
import sys
import time
from typing import Protocol

from megatron_agent.environments.database import collation
from megatron_agent.environments.database.dialect import mysql_to_sqlite
from megatron_agent.environments.database.task import Table
from megatron_agent.errors import UserError

MAX_FEEDBACK_CHARACTERS = 800
GROUP_CONCAT_MAX_BYTES = 1024
"""MySQL's default `group_concat_max_len`, under which AgentBench's md5 labels were computed."""

MAX_STATEMENT_CHARACTERS = 100_000

STATEMENT_TOO_LONG = "1153 (08S01): Got a packet bigger than 'max_allowed_packet' bytes"  # MySQL's wording
TIME_IS_UP = "3024 (HY000): Query execution was interrupted, maximum statement execution time exceeded"
"""MySQL's own wording for `max_execution_time`."""

_MAX_VALUE_BYTES = 4_000_000
_MAX_DATABASE_PAGES = 16_384  # of 4 KiB
_DENIED_ACTIONS = {
    sqlite3.SQLITE_ATTACH,  # VACUUM INTO asks for it too
    sqlite3.SQLITE_DETACH,
    sqlite3.SQLITE_PRAGMA,
    sqlite3.SQLITE_TRANSACTION,
    sqlite3.SQLITE_SAVEPOINT,
    sqlite3.SQLITE_CREATE_VTABLE,
    sqlite3.SQLITE_DROP_VTABLE,
}
_DENIED_FUNCTIONS = {"load_extension", "fts3_tokenizer", "zeroblob", "randomblob"}


class TableBackend(Protocol):
    """One database that holds one task's table."""

    def create(self, table: Table) -> None:
        """Drop what is there and create the task's table with its rows (nothing if MySQL could not)."""

    def execute(self, sql: str) -> str:
        """Run one statement; return the result list, or the error, as the model is to see it."""

    def table_hash(self, table: Table) -> str:
        """Return the check query's result as AgentBench writes it, `[('<md5>',)]`, or the error's text."""

    def close(self) -> None:
        """Release the database."""


def clip_feedback(text: str) -> str:
    """Cut feedback to 800 characters plus `[TRUNCATED]`, as AgentBench does."""
    return text if len(text) <= MAX_FEEDBACK_CHARACTERS else text[:MAX_FEEDBACK_CHARACTERS] + "[TRUNCATED]"


class SqliteBackend:
    """SQLite in memory behind MySQL's surface: TEXT columns that ignore case and accents, md5, concat, concat_ws.

    Model-written statements can reach neither files nor extensions nor settings, run for at most
    `seconds_per_statement`, and can make neither a value above 4 MB nor a database above 64 MB.
    """

    def __init__(self, seconds_per_statement: float = 5.0) -> None:
        self.seconds_per_statement = seconds_per_statement
        self._connection: sqlite3.Connection | None = None
        self._deadline = float("inf")

    def create(self, table: Table) -> None:
        self.close()
        connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._connection = connection
        connection.create_function("md5", 1, _md5, deterministic=True)
        connection.create_function("concat", -1, _concat, deterministic=True)
        connection.create_function("concat_ws", -1, _concat_ws, deterministic=True)
        connection.create_function("char_length", 1, _char_length, deterministic=True)
        connection.create_function("stored_text", 1, _stored_text, deterministic=True)
        connection.create_function("like", 2, _like, deterministic=True)
        connection.create_function("like", 3, _like, deterministic=True)
        connection.create_collation(collation.NAME, self._compare)
        connection.create_aggregate("sorted_group_concat", 1, _SortedGroupConcat)  # type: ignore[arg-type]
        for schema in ("main", "temp"):
            connection.execute(f"PRAGMA {schema}.max_page_count = {_MAX_DATABASE_PAGES}")
        if sys.version_info >= (3, 11):
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_VALUE_BYTES)
        else:  # a limit of the whole process, the only one Python 3.10 can set
            connection.execute("PRAGMA hard_heap_limit = 268435456")
        try:
            if table.creatable:
                _create_table(connection, table)
        except (sqlite3.Error, ValueError) as error:
            raise UserError(f"table {table.name!r} cannot be created in SQLite: {error}") from error
        connection.set_authorizer(_authorize)
        connection.set_progress_handler(lambda: time.monotonic() > self._deadline, 20_000)

    def execute(self, sql: str) -> str:
        if len(sql) > MAX_STATEMENT_CHARACTERS:
            return STATEMENT_TOO_LONG
        try:
            statement = mysql_to_sqlite(sql)
        except ValueError as error:
            return clip_feedback(str(error))
        return clip_feedback(self._run(statement))

    def table_hash(self, table: Table) -> str:
        columns = ", ".join(quote_name(column) for column in table.columns)
        return self._run(
            "SELECT md5(sorted_group_concat(rowhash)) AS hash FROM (SELECT substr(md5(concat_ws(',', "
            f"{columns})), 1, 5) AS rowhash FROM {quote_name(table.name)}) AS sub"
        )

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _compare(self, left: str, right: str) -> int:
        if time.monotonic() > self._deadline and self._connection is not None:
            self._connection.interrupt()  # between two checks of the progress handler
            return 0
        return collation.compare(left, right)

    def _run(self, sql: str) -> str:
        if self._connection is None:
            raise RuntimeError("create() must come before the first statement")
        self._deadline = time.monotonic() + self.seconds_per_statement
        try:
            cursor = self._connection.execute(sql)
            # A row takes at least six characters of the list's text: more rows than this are never shown.
            return str(cursor.fetchmany(MAX_FEEDBACK_CHARACTERS))
        except sqlite3.OperationalError as error:
            if str(error) == "interrupted":
                return TIME_IS_UP
            return str(error)
        except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError, MemoryError) as error:
            return str(error) or "out of memory"
        finally:
            self._deadline = float("inf")


def _create_table(connection: sqlite3.Connection, table: Table) -> None:
    columns = ", ".join(f"{quote_name(column)} TEXT COLLATE {collation.NAME}" for column in table.columns)
    cells = ", ".join("?" * len(table.columns))
    connection.execute(f"CREATE TABLE {quote_name(table.name)} ({columns})")
    connection.executemany(f"INSERT INTO {quote_name(table.name)} VALUES ({cells})", table.rows)


def quote_name(name: str) -> str:
    """Return a name of a table, column or database in backticks."""
    return "`" + name.replace("`", "``") + "`"


def _authorize(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    denied = action in _DENIED_ACTIONS or (
        action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in _DENIED_FUNCTIONS
    )
    return sqlite3.SQLITE_DENY if denied else sqlite3.SQLITE_OK


def _as_text(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _bounded(text: str) -> str:
    if len(text) > _MAX_VALUE_BYTES:
        raise ValueError("value too long")  # SQLite reports a failed function
    return text


def _md5(value: object) -> str | None:
    return None if value is None else hashlib.md5(_as_text(value).encode()).hexdigest()


def _concat(*values: object) -> str | None:
    return None if None in values else _bounded("".join(_as_text(value) for value in values))


def _concat_ws(separator: object, *values: object) -> str | None:
    if separator is None:
        return None
    return _bounded(_as_text(separator).join(_as_text(value) for value in values if value is not None))


def _stored_text(value: str | bytes | float | None) -> str | bytes | float | None:
    """Return what a TEXT column of MySQL makes of a DOUBLE: `5`, not SQLite's `5.0`, and all digits of others."""
    if not isinstance(value, float):
        return value
    return _as_text(value) if abs(value) < 1e15 else repr(value).replace("e+", "e")


def _like(pattern: object, value: object, escape: object = "\\") -> bool | None:
    if pattern is None or value is None or escape is None:
        return None
    return collation.like(_as_text(pattern), _as_text(value), _as_text(escape))


def _char_length(value: object) -> int | None:
    return None if value is None else len(_as_text(value))


class _SortedGroupConcat:
    """`group_concat(x ORDER BY x)`, cut at MySQL's default length. NULL over no rows."""

    def __init__(self) -> None:
        self.values: list[str] = []

    def step(self, value: str | None) -> None:
        if value is not None:
            self.values.append(value)

    def finalize(self) -> str | None:
        return ",".join(sorted(self.values))[:GROUP_CONCAT_MAX_BYTES] if self.values else None
