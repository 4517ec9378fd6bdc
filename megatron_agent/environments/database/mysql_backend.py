"""The Database task on a real MySQL or MariaDB server: what the paper's evaluator ran."""

import time

import pymysql
from pymysql.cursors import SSCursor

from megatron_agent.environments.database.backend import (
    MAX_FEEDBACK_CHARACTERS,
    MAX_STATEMENT_CHARACTERS,
    STATEMENT_TOO_LONG,
    TIME_IS_UP,
    clip_feedback,
    quote_name,
)
from megatron_agent.environments.database.connections import Connection, ServerAddress, close_quietly, is_alive, is_lost
from megatron_agent.environments.database.dialect.translation import refuse_target_in_subquery
from megatron_agent.environments.database.server import DatabaseServer
from megatron_agent.environments.database.task import Table

_IN_TRANSACTION = 1  # SERVER_STATUS_IN_TRANS of the protocol


class MySqlBackend:
    """A database of its own on `server` for every table, and a session in it for the model's statements.

    Each statement is committed, as AgentBench does. Its time is bounded by the server (`max_statement_time`;
    `max_execution_time`, SELECT only, on MySQL) and by a read time limit 2 s later, after which it is killed.
    Raises EnvironmentFault when the server is away.
    """

    def __init__(self, server: DatabaseServer, seconds_per_statement: float = 5.0) -> None:
        self.server = server
        self.seconds_per_statement = seconds_per_statement
        self._account: ServerAddress | None = None
        self._connection: Connection | None = None
        self._table = ""
        self._used = 0.0

    def create(self, table: Table) -> None:
        self.close()
        self._account = self.server.create_database(table)
        self._table = table.name

    def execute(self, sql: str) -> str:
        if len(sql) > MAX_STATEMENT_CHARACTERS:
            return STATEMENT_TOO_LONG
        if self.server.engine == "mariadb":
            try:
                refuse_target_in_subquery(sql, self._table)
            except ValueError as error:
                return clip_feedback(str(error))
        connection = self._session()
        started = time.monotonic()
        try:
            return clip_feedback(self._run(connection, sql, started + self.seconds_per_statement + 1))
        except ValueError as error:  # lone surrogates cannot be sent
            return str(error)
        except pymysql.MySQLError as error:
            if not is_lost(error):
                return clip_feedback(self._named_as_in_agentbench(_error_text(connection, error)))
            thread = connection.thread_id()
            self._disconnect()
            if time.monotonic() - started >= self.seconds_per_statement:
                self._kill("CONNECTION", thread)
                return TIME_IS_UP
            self._session()  # raises EnvironmentFault if it is not the session but the server that is gone
            return "2013 (HY000): Lost connection to MySQL server during query"
        finally:
            self._used = time.monotonic()

    def table_hash(self, table: Table) -> str:
        self._disconnect()  # its locks and transactions must not stop ours
        database = self._database().user

        def check(connection: Connection) -> str:
            with connection.cursor() as cursor:
                try:
                    cursor.execute(hash_statement(table, database))
                except pymysql.MySQLError as error:
                    if is_lost(error):
                        raise
                    return self._named_as_in_agentbench(_error_text(connection, error))
                return str(list(cursor.fetchall()))

        return self.server.admin(check)

    def close(self) -> None:
        self._disconnect()
        if self._account is not None:
            account, self._account = self._account, None
            self.server.drop_database(account.user)

    def _run(self, connection: Connection, sql: str, deadline: float) -> str:
        """Send one statement and return its rows as text, not much more of them than the model gets to see."""
        rows, characters, killed = [], 0, False
        with connection.cursor(SSCursor) as cursor:
            cursor.execute(sql)
            if cursor.description is not None:
                for row in cursor.fetchall_unbuffered():
                    if characters <= MAX_FEEDBACK_CHARACTERS:
                        rows.append(row)
                        characters += len(str(row))
                    elif not killed and time.monotonic() > deadline:  # rows without end, limit switched off
                        self._kill("QUERY", connection.thread_id())
                        killed = True
        if connection.server_status & _IN_TRANSACTION:
            connection.commit()
        return str(rows)

    def _named_as_in_agentbench(self, text: str) -> str:
        """Write the table's name for the database's, which AgentBench gives it, and which is another every run."""
        return text.replace(self._database().user, self._table)

    def _session(self) -> Connection:
        if self._connection is None or not is_alive(self._connection, self._used):
            self._connection = self.server.connect_model(self._database(), self.seconds_per_statement)
        return self._connection

    def _database(self) -> ServerAddress:
        if self._account is None:
            raise RuntimeError("create() must come before the first statement")
        return self._account

    def _disconnect(self) -> None:
        if self._connection is not None:
            close_quietly(self._connection)
            self._connection = None

    def _kill(self, what: str, thread: int) -> None:
        def kill(connection: Connection) -> None:
            with connection.cursor() as cursor:
                try:
                    cursor.execute(f"KILL {what} {thread}")
                except pymysql.MySQLError as error:
                    if is_lost(error):
                        raise  # any other: it had ended by itself

        self.server.admin(kill)


def hash_statement(table: Table, database: str) -> str:
    """Return AgentBench's check query: the md5 of the sorted five-digit row hashes."""
    columns = ",".join(quote_name(column) for column in table.columns)
    return (
        "select md5(group_concat(rowhash order by rowhash)) as hash "
        f"from( SELECT substring(MD5(CONCAT_WS(',', {columns})), 1, 5) AS rowhash "
        f"FROM {quote_name(database)}.{quote_name(table.name)}) as sub;"
    )


def _error_text(connection: Connection, error: pymysql.MySQLError) -> str:
    """Return an error as AgentBench's driver writes it: `1064 (42000): You have an error in your SQL syntax; ...`.

    PyMySQL drops the SQLSTATE; the server still knows it.
    """
    if len(error.args) < 2:
        return str(error)
    number, message = error.args[:2]
    state = "HY000"
    try:
        with connection.cursor() as cursor:
            cursor.execute("GET DIAGNOSTICS CONDITION 1 @agentlm_state = RETURNED_SQLSTATE")
            cursor.execute("SELECT @agentlm_state")
            state = cursor.fetchone()[0] or state
    except pymysql.MySQLError:
        pass  # nothing to ask, as after a fault of the client itself
    return f"{number} ({state}): {message}"
