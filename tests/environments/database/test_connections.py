"""Connections to a server: address, pool, what is tried again."""

import threading

import pytest

pytest.importorskip("pymysql", reason="PyMySQL not installed: pip install 'agentlm-megatron[database]'")

from megatron_agent.environments.base import EnvironmentFault
from megatron_agent.environments.database.connections import (
    PASSWORD_VARIABLE,
    ConnectionPool,
    parse_database_url,
    try_again,
)
from megatron_agent.environments.database.kind import DatabaseOptions
from megatron_agent.errors import UserError


class FakeConnection:
    """Counts how often it is closed."""

    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


def test_the_pool_is_bounded_and_replaces_broken_connections() -> None:
    made: list[FakeConnection] = []

    def connect() -> FakeConnection:
        made.append(FakeConnection())
        return made[-1]

    pool = ConnectionPool(connect, 2)
    with pool.connection() as first, pool.connection() as second:
        assert first is not second
        waiting = threading.Thread(target=borrow, args=(pool,))
        waiting.start()
        waiting.join(0.1)
        assert waiting.is_alive()
    waiting.join(5)
    assert len(made) == 2
    with pytest.raises(ZeroDivisionError), pool.connection() as broken:
        raise ZeroDivisionError
    assert broken.closed
    pool.close()


def borrow(pool: ConnectionPool) -> None:
    with pool.connection():
        pass


def test_only_passing_failures_are_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    import pymysql

    monkeypatch.setattr("megatron_agent.environments.database.connections._FIRST_PAUSE", 0.001)
    address = parse_database_url("mysql://u:p@h")
    outcomes: list[Exception | None] = [pymysql.OperationalError(1040, "Too many"), pymysql.InterfaceError(0, ""), None]

    def operation() -> str:
        if (outcome := outcomes.pop(0)) is not None:
            raise outcome
        return "done"

    assert try_again(operation, address) == "done"
    outcomes[:] = [pymysql.ProgrammingError(1064, "wrong"), None]
    with pytest.raises(pymysql.ProgrammingError):
        try_again(operation, address)
    outcomes[:] = [pymysql.OperationalError(2003, "away")] * 9
    with pytest.raises(EnvironmentFault, match="the database server h:3306 does not answer"):
        try_again(operation, address)
    assert len(outcomes) == 4


def test_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PASSWORD_VARIABLE, raising=False)
    address = parse_database_url("mysql://me:p%40ss%2F@db.example:3307")
    assert (address.host, address.port, address.user, address.password) == ("db.example", 3307, "me", "p@ss/")
    assert "p@ss" not in f"{address} {address!r}"
    assert "p%40" not in repr(DatabaseOptions(database_url="mysql://me:p%40ss%2F@db.example:3307"))
    assert parse_database_url("mariadb://me@h").password == ""
    monkeypatch.setenv(PASSWORD_VARIABLE, "from here")
    assert parse_database_url("mysql://me@h").password == "from here"
    assert parse_database_url("mysql://me:@h").password == ""


@pytest.mark.parametrize(
    "url",
    ["", "postgres://u:secret@h", "mysql://h", "mysql://:secret@h", "mysql://u:secret@", "mysql://u:secret@h:99999",
     "mysql://u:secret@h:port", "mysql://u:secret@h/database", "u:secret@h", "mysql://u:secret@h?x=1"],
)  # fmt: skip
def test_bad_addresses(url: str) -> None:
    with pytest.raises(UserError, match="--database-url: expected sqlite or mysql://user:password@host:port") as error:
        parse_database_url(url)
    assert "secret" not in str(error.value)
