"""Where the SQL runs. The default is SQLite in memory; a MySQL server offers the same four methods."""

import re
import sqlite3
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from megatron_agent.environments.database.dialect import collation
from megatron_agent.environments.database.dialect.functions import ADDED, MAX_VALUE_BYTES, register
from megatron_agent.environments.database.dialect.kinds import Kind, shown
from megatron_agent.environments.database.dialect.messages import mysql_message, syntax_error
from megatron_agent.environments.database.dialect.show import answer
from megatron_agent.environments.database.dialect.translation import mysql_to_sqlite
from megatron_agent.environments.database.task import Table
from megatron_agent.errors import UserError

MAX_FEEDBACK_CHARACTERS = 800
MAX_STATEMENT_CHARACTERS = 100_000

STATEMENT_TOO_LONG = "1153 (08S01): Got a packet bigger than 'max_allowed_packet' bytes"  # MySQL's wording
TIME_IS_UP = "3024 (HY000): Query execution was interrupted, maximum statement execution time exceeded"
"""MySQL's own wording for `max_execution_time`."""

_NEAR = re.compile(r'near "(?P<token>.*)": syntax error|unrecognized token: "(?P<other>.*)"', re.DOTALL)
_MOST_TRIES = 20
_WORD = re.compile(r"[a-z_][a-z0-9_]*")
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
        self._table: Table | None = None
        self._deadline = float("inf")
        self._fault = ""
        self._registered: set[str] = set()
        self._own_statement = False

    def create(self, table: Table) -> None:
        self.close()
        connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._connection, self._table = connection, table
        self._registered = set[str]()
        connection.create_function("database", 0, lambda: table.name)
        connection.create_function("schema", 0, lambda: table.name)
        connection.create_collation(collation.NAME, self._compare)
        for schema in ("main", "temp"):
            connection.execute(f"PRAGMA {schema}.max_page_count = {_MAX_DATABASE_PAGES}")
        if sys.version_info >= (3, 11):
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES)
        else:  # a limit of the whole process, the only one Python 3.10 can set
            connection.execute("PRAGMA hard_heap_limit = 268435456")
        try:
            if table.creatable:
                _create_table(connection, table)
        except (sqlite3.Error, ValueError) as error:
            raise UserError(f"table {table.name!r} cannot be created in SQLite: {error}") from error
        connection.set_authorizer(self._authorize)
        connection.set_progress_handler(lambda: time.monotonic() > self._deadline, 20_000)

    def execute(self, sql: str) -> str:
        if len(sql) > MAX_STATEMENT_CHARACTERS:
            return STATEMENT_TOO_LONG
        if self._connection is None or self._table is None:
            raise RuntimeError("create() must come before the first statement")
        self._own_statement = True  # Python 3.10 cannot take the authorizer away
        told = answer(sql, self._connection, self._table.name)
        self._own_statement = False
        if told is not None:
            return clip_feedback(told)
        try:
            statement = mysql_to_sqlite(sql, self._table.name, self._table.columns)
        except ValueError as error:
            return clip_feedback(str(error))
        result = self._run(statement.sql, statement.kinds)
        if isinstance(result, list):
            return clip_feedback(str(result))
        if near := _NEAR.fullmatch(result):
            return clip_feedback(syntax_error(sql, self._place_of(near["token"] or near["other"], sql)))
        return clip_feedback(mysql_message(result, sql, self._table.name))

    def table_hash(self, table: Table) -> str:
        columns = ", ".join(quote_name(column) for column in table.columns)
        result = self._run(
            "SELECT md5(sorted_group_concat(rowhash)) AS hash FROM (SELECT substr(md5(concat_ws(',', "
            f"{columns})), 1, 5) AS rowhash FROM {quote_name(table.name)}) AS sub"
        )
        return str(result) if isinstance(result, list) else mysql_message(result, "", table.name)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _compare(self, left: str, right: str) -> int:
        if time.monotonic() > self._deadline and self._connection is not None:
            self._connection.interrupt()  # between two checks of the progress handler
            return 0
        return collation.compare(left, right)

    def _authorize(self, action: int, first: str | None, second: str | None, *_: str | None) -> int:
        denied = action in _DENIED_ACTIONS or (
            action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in _DENIED_FUNCTIONS
        )
        return sqlite3.SQLITE_DENY if denied and not self._own_statement else sqlite3.SQLITE_OK

    def _guarded(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Let a function end with its statement's time, and keep what it raises: SQLite tells only that it did."""

        def call(*arguments: Any) -> Any:
            if time.monotonic() > self._deadline and self._connection is not None:
                self._connection.interrupt()
                return None
            try:
                return function(*arguments)
            except TypeError:
                called = name.removeprefix("mysql_").upper()
                self._fault = f"1582 (42000): Incorrect parameter count in the call to native function '{called}'"
                raise
            except ArithmeticError as error:
                self._fault = "1690 (22003): DOUBLE value is out of range"
                raise ValueError(self._fault) from error
            except ValueError as error:
                self._fault = str(error)
                raise

        return call

    def _run(self, sql: str, kinds: Sequence[Kind] | None = None) -> list[tuple[object, ...]] | str:
        """Return the rows as MySQL shows them, or SQLite's message."""
        if self._connection is None:
            raise RuntimeError("create() must come before the first statement")
        needed = ADDED.intersection(_WORD.findall(sql.lower())) - self._registered
        register(self._connection, needed, self._guarded)
        self._registered |= needed
        self._deadline = time.monotonic() + self.seconds_per_statement
        self._fault = ""
        try:
            # A row takes at least six characters of the list's text: more rows than this are never shown.
            rows = self._connection.execute(sql).fetchmany(MAX_FEEDBACK_CHARACTERS)
        except sqlite3.OperationalError as error:
            if str(error) == "interrupted":
                return TIME_IS_UP
            return self._fault or str(error)
        except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError, MemoryError) as error:
            return str(error) or "out of memory"
        finally:
            self._deadline = float("inf")
        if kinds and rows and len(kinds) == len(rows[0]):
            return [tuple(map(shown, row, kinds)) for row in rows]
        return rows

    def _place_of(self, token: str | None, sql: str) -> int:
        """Return where SQLite stops reading the model's statement: the first such token that it stops at."""
        places = [found.start() for found in re.finditer(re.escape(token or " "), sql)] if token else []
        for place in places[:_MOST_TRIES]:
            stopped = self._run("EXPLAIN " + sql[: place + len(token or "")])
            if isinstance(stopped, str) and f'"{token}"' in stopped:
                return place
        return places[0] if places else 0


def _create_table(connection: sqlite3.Connection, table: Table) -> None:
    columns = ", ".join(f"{quote_name(column)} TEXT COLLATE {collation.NAME}" for column in table.columns)
    cells = ", ".join("?" * len(table.columns))
    connection.execute(f"CREATE TABLE {quote_name(table.name)} ({columns})")
    connection.executemany(f"INSERT INTO {quote_name(table.name)} VALUES ({cells})", table.rows)


def quote_name(name: str) -> str:
    """Return a name of a table, column or database in backticks."""
    return "`" + name.replace("`", "``") + "`"
