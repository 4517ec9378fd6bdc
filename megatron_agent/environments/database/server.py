"""A MySQL or MariaDB server that holds one database an episode, and leaves none behind."""

import itertools
import logging
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from threading import BoundedSemaphore, Lock
from typing import Any

import pymysql

from megatron_agent.environments.base import EnvironmentFault
from megatron_agent.environments.database.backend import quote_name
from megatron_agent.environments.database.connections import (
    Connection,
    ConnectionPool,
    Result,
    ServerAddress,
    close_quietly,
    connect,
    encryption_options,
    find_collation,
    is_alive,
    is_lost,
    set_session,
    try_again,
)
from megatron_agent.environments.database.task import Table
from megatron_agent.errors import UserError

_LOG = logging.getLogger(__name__)

PREFIX = "agentlm_run_"
"""How the databases, users and lock of a run begin; 8 hexadecimal digits name the run."""
_RUN_NAME = re.compile(rf"{PREFIX}[0-9a-f]{{8}}")
_ADMIN_CONNECTIONS = 8
_KEEPER_IDLE_SECONDS = 7 * 24 * 3600
# What a statement of the model may do, in its own database alone. EXECUTE is there for the message: a function that
# there is not does "not exist" (1305), as for AgentBench's superuser; nobody may create one.
_MODEL_PRIVILEGES = (
    "SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, ALTER, INDEX, REFERENCES, CREATE TEMPORARY TABLES, LOCK TABLES, "
    "CREATE VIEW, SHOW VIEW, EXECUTE"
)


class DatabaseServer:
    """Makes and drops the databases of one run; used by many environments at once.

    The run holds a named lock on the server as long as it lives. A run that starts drops the databases and users
    of runs whose lock is free: their process died.
    """

    def __init__(self, address: ServerAddress, connections: int) -> None:
        self.address = address
        self.run = PREFIX + secrets.token_hex(4)
        self._numbers = itertools.count()
        self._episodes = BoundedSemaphore(connections)
        self._pool = ConnectionPool(self._connect_admin, min(connections, _ADMIN_CONNECTIONS))
        self._keeper_lock = Lock()
        self._accounts_lock = Lock()  # MariaDB 10.11 fails (1036) when two sessions change accounts at once
        self.separate_users = True
        first = connect(address)
        try:
            with first.cursor() as cursor:
                cursor.execute("SELECT VERSION(), SUBSTRING_INDEX(USER(), '@', -1)")
                self.version, self._client_host = cursor.fetchone()
            self._encryption = encryption_options(first)
            self._collation = find_collation(first)
        finally:
            close_quietly(first)
        self.engine = "mariadb" if "mariadb" in self.version.lower() else "mysql"
        self._keeper = try_again(self._hold_lock, address)
        self._looked_at = time.monotonic()
        try:
            self.admin(lambda connection: drop_dead_runs(connection, self.run))
            self.separate_users = self._may_create_users()
        except BaseException:
            close_quietly(self._keeper)
            raise

    def admin(self, operation: Callable[[Connection], Result]) -> Result:
        """Run `operation` on a pooled connection of the configured user, again after a lost one.

        Raises EnvironmentFault when the server is away, PyMySQL's errors otherwise.
        """

        def attempt() -> Result:
            with self._pool.connection() as connection:
                return operation(connection)

        return try_again(attempt, self.address)

    def create_database(self, table: Table) -> ServerAddress:
        """Make a database with the task's table; returns the account that may work in it, named as the database.

        Waits while `connections` episodes are under way. A table the server refuses is left away with a warning,
        as AgentBench plays such a task with an empty database. Raises EnvironmentFault.
        """
        self._episodes.acquire()
        try:
            self._keep_lock()
            name = f"{self.run}_{next(self._numbers)}"
            account = replace(self.address, user=name, password=secrets.token_hex(16))

            def create(connection: Connection) -> None:
                with connection.cursor() as cursor:
                    cursor.execute(f"DROP DATABASE IF EXISTS {quote_name(name)}")  # of a lost connection's attempt
                    cursor.execute(
                        f"CREATE DATABASE {quote_name(name)} CHARACTER SET utf8mb4 COLLATE {self._collation}"
                    )
                    if table.creatable:
                        _create_table(cursor, name, table)

            try:
                self.admin(create)
                if self.separate_users:
                    self._change_accounts(lambda cursor: self._create_user(cursor, account))
            except pymysql.MySQLError as error:
                raise EnvironmentFault(f"{self.address}: no database for an episode: {error}") from error
        except BaseException:
            self._episodes.release()
            raise
        return account

    def drop_database(self, name: str) -> None:
        """Drop an episode's database and user. What cannot be dropped now goes when the next run starts."""
        try:
            if self.separate_users:
                self._change_accounts(
                    lambda cursor: cursor.execute("DROP USER IF EXISTS %s@%s", (name, self._client_host))
                )
            self.admin(lambda connection: _drop(connection, [name], []))
        except (EnvironmentFault, pymysql.MySQLError) as error:
            _LOG.warning("%s: database %s stays until the next run starts: %s", self.address, name, error)
        finally:
            self._episodes.release()

    def connect_model(self, account: ServerAddress, seconds: float) -> Connection:
        """Connect for the model's statements of at most `seconds`, in the account's database if it is still there."""
        limit = (
            {"max_statement_time": f"{seconds}"}
            if self.engine == "mariadb"
            else {"max_execution_time": f"{int(seconds * 1000)}"}
        )
        waits = {name: f"{max(1, int(seconds))}" for name in ("lock_wait_timeout", "innodb_lock_wait_timeout")}

        def attempt() -> Connection:
            user = account if self.separate_users else self.address
            connection = connect(user, read_timeout=seconds + 2, **self._encryption)
            set_session(connection, self._collation, **limit, **waits)
            try:
                connection.select_db(account.user)
            except pymysql.MySQLError as error:
                if is_lost(error):
                    raise
                _LOG.debug("%s: the model dropped its database: %s", account.user, error)
            return connection

        try:
            return try_again(attempt, self.address)
        except pymysql.MySQLError as error:
            raise EnvironmentFault(f"{self.address}: the account of an episode cannot log in: {error}") from error

    def close(self) -> None:
        """Drop whatever the run still holds and let go of its lock."""
        try:
            self.admin(lambda connection: drop_run(connection, self.run))
        except (EnvironmentFault, pymysql.MySQLError) as error:
            _LOG.warning("%s: databases %s_* stay until the next run starts: %s", self.address, self.run, error)
        self._pool.close()
        close_quietly(self._keeper)

    def _connect_admin(self) -> Connection:
        return set_session(connect(self.address, **self._encryption), self._collation)

    def _hold_lock(self) -> Connection:
        connection = connect(self.address, **self._encryption)
        with connection.cursor() as cursor:
            cursor.execute(f"SET SESSION wait_timeout = {_KEEPER_IDLE_SECONDS}")
            cursor.execute("SELECT GET_LOCK(%s, 10)", (self.run,))
            if cursor.fetchone() != (1,):
                close_quietly(connection)
                raise EnvironmentFault(f"{self.address}: the lock {self.run} is held by another session")
        return connection

    def _keep_lock(self) -> None:
        """Take the run's lock again if its connection was lost; threads pause side by side while the server is away."""

        def attempt() -> None:
            with self._keeper_lock:
                if not is_alive(self._keeper, self._looked_at):
                    self._keeper = self._hold_lock()
                elif time.monotonic() - self._looked_at < 1:
                    return
                self._looked_at = time.monotonic()

        try_again(attempt, self.address)

    def _may_create_users(self) -> bool:
        """Try whether the configured user may make an account for every episode, and say so if not."""
        account = replace(self.address, user=f"{self.run}_{next(self._numbers)}", password=secrets.token_hex(16))

        def probe(connection: Connection) -> None:
            with connection.cursor() as cursor:
                self._create_user(cursor, account)
            _drop(connection, [], [(account.user, self._client_host)])

        try:
            self.admin(probe)
        except pymysql.MySQLError as error:
            _LOG.warning(
                "%s: user %r may not create users (%s): the model's SQL runs with this user's own rights; grant it "
                "CREATE USER and GRANT OPTION, or as little else as possible",
                self.address,
                self.address.user,
                error,
            )
            return False
        return True

    def _change_accounts(self, change: Callable[[Any], object]) -> None:
        """Run one change at a time; the lock comes before the connection, lest each wait for the other.

        It is let go between two tries: threads that find the server away pause side by side, not one by one.
        """

        def attempt() -> None:
            with self._accounts_lock, self._pool.connection() as connection, connection.cursor() as cursor:
                change(cursor)

        try_again(attempt, self.address)

    def _create_user(self, cursor: Any, account: ServerAddress) -> None:
        who = (account.user, self._client_host)
        database = quote_name(account.user.replace("_", r"\_"))  # `_` alone would match any character
        cursor.execute("DROP USER IF EXISTS %s@%s", who)
        cursor.execute("CREATE USER %s@%s IDENTIFIED BY %s", (*who, account.password))
        cursor.execute(f"GRANT {_MODEL_PRIVILEGES} ON {database}.* TO %s@%s", who)


@contextmanager
def open_server(address: ServerAddress, connections: int) -> Iterator[DatabaseServer]:
    """Connect, clear away what dead runs left, and drop the run's own databases at the end.

    Raises UserError when the server is not there or refuses the user.
    """
    try:
        server = DatabaseServer(address, connections)
    except (pymysql.MySQLError, EnvironmentFault) as error:
        raise UserError(
            f"--database-url: cannot use the server {address} as user {address.user!r}: {error}; start it, or check "
            "user, password and address"
        ) from error
    except RuntimeError as error:  # MySQL 8's log-in without TLS
        raise UserError(f"--database-url: {error}; pip install cryptography") from error
    try:
        yield server
    finally:
        server.close()


def drop_dead_runs(connection: Connection, own: str) -> None:
    """Drop databases and users of every run whose lock nobody holds."""
    databases, accounts = _find(connection, PREFIX)
    runs = {match.group() for name in [*databases, *(user for user, _ in accounts)] if (match := _RUN_NAME.match(name))}
    for run in sorted(runs - {own}):
        with connection.cursor() as cursor:
            cursor.execute("SELECT IS_FREE_LOCK(%s)", (run,))
            if cursor.fetchone() == (1,):
                _LOG.info("dropping the databases of %s, whose process is gone", run)
                drop_run(connection, run)


def drop_run(connection: Connection, run: str) -> None:
    """Drop all databases and users of one run."""
    _drop(connection, *_find(connection, f"{run}_"))


def _find(connection: Connection, prefix: str) -> tuple[list[str], list[tuple[str, str]]]:
    """Return databases and accounts whose names begin with `prefix`; no accounts if they may not be read."""
    pattern = prefix.replace("_", r"\_") + "%"
    with connection.cursor() as cursor:
        cursor.execute("SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME LIKE %s", (pattern,))
        databases = [name for (name,) in cursor.fetchall()]
        try:
            cursor.execute("SELECT User, Host FROM mysql.user WHERE User LIKE %s", (pattern,))
        except pymysql.MySQLError as error:
            if is_lost(error):
                raise
            return databases, []
        return databases, list(cursor.fetchall())


def _drop(connection: Connection, databases: list[str], accounts: list[tuple[str, str]]) -> None:
    with connection.cursor() as cursor:
        for account in accounts:
            cursor.execute("DROP USER IF EXISTS %s@%s", account)
        for name in databases:
            cursor.execute(f"DROP DATABASE IF EXISTS {quote_name(name)}")


def _create_table(cursor: Any, database: str, table: Table) -> None:
    name = f"{quote_name(database)}.{quote_name(table.name)}"
    columns = ", ".join(f"{quote_name(column)} TEXT" for column in table.columns)
    cells = ", ".join(["%s"] * len(table.columns))
    try:
        cursor.execute(f"CREATE TABLE {name} ({columns})")
        cursor.executemany(f"INSERT INTO {name.replace('%', '%%')} VALUES ({cells})", table.rows)
    except pymysql.MySQLError as error:
        if is_lost(error):
            raise
        _LOG.warning(
            "the server refuses table %r: %s; as in AgentBench the task is played without it", table.name, error
        )
