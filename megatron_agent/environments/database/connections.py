"""Connections to a MySQL or MariaDB server over PyMySQL: address, session settings, a bounded pool."""

import os
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import BoundedSemaphore
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import pymysql

from megatron_agent.environments.base import EnvironmentFault
from megatron_agent.environments.database.dialect.functions import GROUP_CONCAT_MAX_BYTES
from megatron_agent.errors import UserError

PASSWORD_VARIABLE = "AGENTLM_DATABASE_PASSWORD"
ADMIN_SECONDS = 60.0
"""How long a statement of our own may take, such as DROP DATABASE on a slow disk."""

# Taken by MySQL 8 for new databases; then what is nearest to it on MariaDB: case and accents ignored, blanks not.
COLLATIONS = ("utf8mb4_0900_ai_ci", "utf8mb4_uca1400_nopad_ai_ci", "utf8mb4_unicode_520_nopad_ci", "utf8mb4_unicode_ci")
# Of MySQL 8's defaults what bears on queries. Its strict mode is left out: under it an UPDATE that compares text with
# a number fails at the first text that is none, and the labels of AgentBench's standard_278 and _295 are those of such
# an UPDATE that went through.
SQL_MODE = "ONLY_FULL_GROUP_BY,NO_ENGINE_SUBSTITUTION"
LOST = {0, 1927, 2003, 2006, 2013, 2055}
"""Errors after which a connection is of no more use; 0 is PyMySQL's own for a closed one, 1927 a killed one."""
# Too many connections, shutting down, a user's limits; MariaDB says 1036 while another session changes accounts.
_TRANSIENT = LOST | {1036, 1040, 1053, 1203, 1226}
_TRIES = 5
_FIRST_PAUSE = 0.2  # seconds, doubled every time

Connection = Any  # PyMySQL ships no types
Result = TypeVar("Result")


@dataclass(frozen=True)
class ServerAddress:
    """Where the server is and who logs in. The password shows in no text made of this."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def parse_database_url(url: str) -> ServerAddress:
    """Return the address in `mysql://user:password@host:port`; the password may come from the environment instead.

    Raises UserError that says what is wrong without repeating the password.
    """
    expected = "--database-url: expected sqlite or mysql://user:password@host:port"
    try:
        parts = urlsplit(url)
        port = parts.port or 3306
    except ValueError:
        raise UserError(f"{expected}, with a port from 1 to 65535") from None
    if parts.scheme not in ("mysql", "mariadb"):
        raise UserError(f"{expected}, got {'the scheme ' + repr(parts.scheme) if parts.scheme else 'no scheme'}")
    if not parts.hostname or not parts.username:
        raise UserError(f"{expected}, got no {'user' if parts.hostname else 'host'}")
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise UserError(f"{expected}, got something after the port; every episode makes a database of its own")
    password = parts.password if parts.password is not None else os.environ.get(PASSWORD_VARIABLE, "")
    if parts.password is not None:
        password = unquote(password)
    return ServerAddress(parts.hostname, port, unquote(parts.username), password)


def connect(address: ServerAddress, read_timeout: float = ADMIN_SECONDS, **options: Any) -> Connection:
    """Open one connection; raises PyMySQL's errors. A statement that waits longer than `read_timeout` s loses it."""
    return pymysql.connect(
        host=address.host,
        port=address.port,
        user=address.user,
        password=address.password,
        charset="utf8mb4",
        autocommit=True,
        connect_timeout=10,
        read_timeout=read_timeout,
        write_timeout=read_timeout,
        **options,
    )


def encryption_options(connection: Connection) -> dict[str, Any]:
    """Return what makes further connections use TLS as the first one did, without reading certificates each time.

    PyMySQL asks for TLS where the server offers it, without checking certificates; making its context takes tens
    of milliseconds.
    """
    with connection.cursor() as cursor:
        cursor.execute("SHOW SESSION STATUS LIKE 'Ssl_cipher'")
        row = cursor.fetchone()
    if row is None or not row[1]:
        return {"ssl_disabled": True}
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return {"ssl": context}


def find_collation(connection: Connection) -> str:
    """Return the first of COLLATIONS that the server has."""
    with connection.cursor() as cursor:
        for collation in COLLATIONS[:-1]:
            with suppress(pymysql.MySQLError):
                cursor.execute(f"SET NAMES utf8mb4 COLLATE {collation}")
                return collation
    return COLLATIONS[-1]


def set_session(connection: Connection, collation: str, **variables: str) -> Connection:
    """Give a session MySQL 8's defaults (mode, collation, `group_concat_max_len`) and further variables."""
    settings = {"sql_mode": f"'{SQL_MODE}'", "group_concat_max_len": str(GROUP_CONCAT_MAX_BYTES), **variables}
    with connection.cursor() as cursor:
        cursor.execute(f"SET NAMES utf8mb4 COLLATE {collation}")
        cursor.execute("SET " + ", ".join(f"SESSION {name} = {value}" for name, value in settings.items()))
    return connection


def is_lost(error: BaseException) -> bool:
    """Whether the connection is gone, rather than the statement wrong."""
    return isinstance(error, pymysql.MySQLError) and (not error.args or error.args[0] in LOST)


def try_again(operation: Callable[[], Result], address: ServerAddress) -> Result:
    """Run `operation`, again with growing pauses while the server is away; EnvironmentFault when it stays away."""
    pause = _FIRST_PAUSE
    for attempt in range(_TRIES):
        try:
            return operation()
        except pymysql.MySQLError as error:
            if error.args and error.args[0] not in _TRANSIENT:
                raise
            if attempt == _TRIES - 1:
                raise EnvironmentFault(f"the database server {address} does not answer: {error}") from error
            time.sleep(pause)
            pause *= 2
    raise AssertionError("the last attempt returns or raises")


class ConnectionPool:
    """At most `size` connections, shared by threads; one that rested is looked at before it is handed out."""

    def __init__(self, connect: Callable[[], Connection], size: int) -> None:
        self._connect = connect
        self._free = BoundedSemaphore(size)
        self._idle: deque[tuple[Connection, float]] = deque()

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Lend a connection that works; after any error it is closed instead of kept."""
        with self._free:
            connection = self._take()
            try:
                yield connection
            except BaseException:
                close_quietly(connection)
                raise
            self._idle.append((connection, time.monotonic()))

    def close(self) -> None:
        """Close what is idle; connections still lent close with their block's error."""
        while self._idle:
            close_quietly(self._idle.pop()[0])

    def _take(self) -> Connection:
        while True:
            try:
                connection, since = self._idle.pop()
            except IndexError:
                return self._connect()
            if is_alive(connection, since):
                return connection


def is_alive(connection: Connection, since: float) -> bool:
    """Whether a connection idle since `since` still works; one used within the last second is taken to."""
    if time.monotonic() - since < 1:
        return True
    try:
        connection.ping(reconnect=False)
    except (pymysql.MySQLError, OSError):
        close_quietly(connection)
        return False
    return True


def close_quietly(connection: Connection) -> None:
    """Close a connection whatever state it is in."""
    with suppress(pymysql.MySQLError, OSError):
        connection.close()
