"""The Database task on a real MariaDB: own database, own user, limits, faults, nothing left behind."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("pymysql", reason="PyMySQL not installed: pip install 'agentlm-megatron[database]'")

from megatron_agent.environments.base import EnvironmentFault
from megatron_agent.environments.database import TASK_KIND, DatabaseTask, Table
from megatron_agent.environments.database.connections import (
    PASSWORD_VARIABLE,
    ConnectionPool,
    parse_database_url,
    try_again,
)
from megatron_agent.environments.database.environment import DatabaseEnvironment
from megatron_agent.environments.database.kind import DatabaseOptions
from megatron_agent.environments.database.mysql_backend import MySqlBackend
from megatron_agent.environments.database.server import PREFIX, DatabaseServer, open_server
from megatron_agent.errors import UserError
from tests.environments.conftest import MariaDb

TABLE = Table("my % table", ("a b", "Win %"), (("x", "9"), ("Y", "10"), ("z", None)))


@pytest.fixture
def server(mariadb: MariaDb) -> Iterator[DatabaseServer]:
    with open_server(parse_database_url(mariadb.url), connections=8) as server:
        yield server


@pytest.fixture
def backend(server: DatabaseServer) -> Iterator[MySqlBackend]:
    backend = MySqlBackend(server, seconds_per_statement=0.5)
    backend.create(TABLE)
    yield backend
    backend.close()


def left_behind(mariadb: MariaDb) -> list[list[str]]:
    pattern = PREFIX.replace("_", r"\_") + "%"
    return mariadb.run(
        f"select schema_name from information_schema.schemata where schema_name like '{pattern}' union all "
        f"select user from mysql.user where user like '{pattern}'"
    )


def test_statements_and_errors(backend: MySqlBackend) -> None:
    assert backend.execute("SELECT * FROM `my % table`") == "[('x', '9'), ('Y', '10'), ('z', None)]"
    assert backend.execute("UPDATE `my % table` SET `Win %` = 1 WHERE `a b` = 'y';") == "[]"
    assert backend.execute("SELECT SUM(`Win %`), COUNT(*) FROM `my % table`") == "[(10.0, 3)]"
    text = backend.execute("SELEC 1")
    assert text.startswith("1064 (42000): You have an error in your SQL syntax; check the manual that corresponds to")
    assert backend.execute("SELECT c FROM `my % table`") == "1054 (42S22): Unknown column 'c' in 'SELECT'"
    assert backend.execute("SELECT 1; SELECT 2").startswith("1064 (42000)")
    assert backend.execute("SELECT '\ud800'").startswith("'utf-8' codec can't encode")
    assert backend.execute("x" * 100_001).startswith("1153 (08S01)")
    assert backend.execute("SELECT REPEAT('x', 2000)") == "[('" + "x" * 797 + "[TRUNCATED]"
    assert backend.execute("SELECT @@group_concat_max_len, @@autocommit") == "[(1024, 1)]"


def test_transactions_are_committed_and_locks_do_not_stop_the_check(backend: MySqlBackend) -> None:
    before = backend.table_hash(TABLE)
    assert backend.execute("START TRANSACTION") == "[]"
    assert backend.execute("SET autocommit = 0") == "[]"
    assert backend.execute("DELETE FROM `my % table` WHERE `a b` = 'x'") == "[]"
    assert backend.execute("LOCK TABLES `my % table` WRITE") == "[]"
    after = backend.table_hash(TABLE)
    assert after.startswith("[('")
    assert after != before
    assert backend.execute("DROP TABLE `my % table`") == "[]"
    assert backend.table_hash(TABLE).startswith("1146 (42S02): Table")
    assert backend.execute("DROP DATABASE " + backend.execute("SELECT DATABASE()")[3:-4]) == "[]"
    assert backend.execute("SHOW TABLES").startswith("1046 (3D000): No database selected")
    assert backend.table_hash(TABLE).startswith("1146 (42S02): Table")
    backend.create(TABLE)
    assert backend.table_hash(TABLE) == before


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT SLEEP(60)",
        "SELECT COUNT(*) FROM information_schema.columns a, information_schema.columns b, information_schema.columns c",
        "SELECT a.* FROM seq_1_to_1000000000 a",
    ],
)
@pytest.mark.parametrize("limited", [True, False], ids=["limited", "limit_switched_off"])
def test_statements_are_bounded(backend: MySqlBackend, sql: str, limited: bool) -> None:
    if not limited:
        assert backend.execute("SET SESSION max_statement_time = 0") == "[]"
    started = time.monotonic()
    text = backend.execute(sql)
    assert time.monotonic() - started < 10
    assert text.startswith(("1969 (70100)", "3024 (HY000)", "1317 (70100)", "[(1,)"))
    assert backend.execute("SELECT COUNT(*) FROM `my % table`") == "[(3,)]"
    end = time.monotonic() + 10  # a killed statement may take a moment to notice
    while (running := [row for row in backend.server.admin(processes) if sql in row]) and time.monotonic() < end:
        time.sleep(0.05)
    assert not running


def processes(connection: object) -> list[str]:
    with connection.cursor() as cursor:  # type: ignore[attr-defined]
        cursor.execute("SELECT info FROM information_schema.processlist WHERE info IS NOT NULL")
        return [row[0] for row in cursor.fetchall()]


@pytest.mark.parametrize(
    "sql",
    [
        "DROP DATABASE mysql",
        "CREATE DATABASE other",
        "SELECT * FROM mysql.user",
        "SELECT * FROM {other}.`my % table`",
        "DROP DATABASE {other}",
        "SELECT 1 INTO OUTFILE '{file}'",
        "LOAD DATA INFILE '/etc/passwd' INTO TABLE `my % table`",
        "LOAD DATA LOCAL INFILE '/etc/passwd' INTO TABLE `my % table`",
        "SET GLOBAL max_connections = 1",
        "SET PASSWORD FOR 'root'@'localhost' = PASSWORD('x')",
        "CREATE USER x IDENTIFIED BY 'x'",
        "GRANT ALL ON *.* TO CURRENT_USER()",
        "SHUTDOWN",
        "CREATE EVENT e ON SCHEDULE EVERY 1 SECOND DO SELECT 1",
        "INSTALL SONAME 'ha_connect'",
        "KILL 1",
    ],
)
def test_the_model_reaches_nothing_but_its_own_database(
    backend: MySqlBackend, server: DatabaseServer, mariadb: MariaDb, tmp_path: Path, sql: str
) -> None:
    other = MySqlBackend(server)
    other.create(TABLE)
    before = mariadb.run("show databases")
    name = other.execute("SELECT DATABASE()")[3:-4]
    text = backend.execute(sql.format(other=name, file=tmp_path / "out"))
    assert not text.startswith("["), text
    assert mariadb.run("show databases") == before
    assert "/bin" not in backend.execute("SELECT * FROM `my % table`")
    assert backend.execute("SELECT LOAD_FILE('/etc/passwd')") == "[(None,)]"
    other.close()


def test_a_session_of_the_model_that_ends_is_opened_again(backend: MySqlBackend) -> None:
    assert backend.execute("KILL CONNECTION_ID()") == "2013 (HY000): Lost connection to MySQL server during query"
    assert backend.execute("SELECT COUNT(*) FROM `my % table`") == "[(3,)]"
    assert backend.execute("SET SESSION wait_timeout = 1") == "[]"
    time.sleep(2.2)
    assert backend.execute("SELECT COUNT(*) FROM `my % table`") == "[(3,)]"


def test_a_table_the_server_refuses_is_not_there(server: DatabaseServer, caplog: pytest.LogCaptureFixture) -> None:
    backend = MySqlBackend(server)
    for table in (Table("t", ("a", ""), ()), Table("t", tuple(f"c{i}" for i in range(2000)), ())):
        backend.create(table)
        assert backend.execute("SELECT * FROM t").startswith("1146 (42S02)")
        assert backend.table_hash(table).startswith(("1146 (42S02)", "1054"))
    assert "the server refuses table 't'" in caplog.text
    backend.close()


@pytest.mark.parametrize("connections", [1, 8, 64])
def test_episodes_in_threads_share_the_connections(mariadb: MariaDb, connections: int) -> None:
    with open_server(parse_database_url(mariadb.url), connections) as server:
        assert play_in_threads(server) <= connections
    assert not left_behind(mariadb)


def play_in_threads(server: DatabaseServer) -> int:
    """Play 120 episodes in 32 threads; returns how many there were at once."""
    at_once, most, lock = 0, 0, threading.Lock()

    def episode(number: int) -> str:
        nonlocal at_once, most
        backend = MySqlBackend(server)
        backend.create(Table("t", ("a",), ((str(number),),)))
        with lock:
            at_once += 1
            most = max(most, at_once)
        try:
            backend.execute(f"UPDATE t SET a = a + {number}")
            return backend.execute("SELECT a FROM t")
        finally:
            with lock:
                at_once -= 1
            backend.close()
            backend.close()

    with ThreadPoolExecutor(32) as pool:
        results = list(pool.map(episode, range(120)))
    assert results == [f"[('{2 * number}',)]" for number in range(120)]
    return most


def test_environments_on_the_server(mariadb: MariaDb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PASSWORD_VARIABLE, mariadb.password)
    url = f"mysql://{mariadb.user}@127.0.0.1:{mariadb.port}"
    with TASK_KIND.open(DatabaseOptions(database_url=url)) as world:
        assert world.facts["engine"] == "mariadb"
        assert "MariaDB" in str(world.facts["server_version"])
        assert mariadb.password not in str(world.facts)
        for task in world.tasks:
            environment = world.make_environment()
            messages, expert = environment.reset(task), TASK_KIND.expert(task)  # type: ignore[misc]
            while not (observation := environment.step(expert(messages))).done:
                assert observation.text.startswith("["), observation.text
            assert observation.reward == 1.0, task.id
            environment.close()
        unfinished = world.make_environment()
        unfinished.reset(world.tasks[0])
        assert left_behind(mariadb)
    assert not left_behind(mariadb)


HOLDER = """
import sys, time
from megatron_agent.environments.database.connections import parse_database_url
from megatron_agent.environments.database.mysql_backend import MySqlBackend
from megatron_agent.environments.database.server import DatabaseServer
from megatron_agent.environments.database.task import Table
server = DatabaseServer(parse_database_url(sys.argv[1]), 4)
backends = [MySqlBackend(server) for _ in range(2)]
for backend in backends:
    backend.create(Table("t", ("a",), (("1",),)))
    backend.execute("SELECT 1")
print(server.run, flush=True)
time.sleep(600)
"""


def test_databases_of_killed_runs_are_dropped_and_of_living_ones_kept(mariadb: MariaDb) -> None:
    with open_server(parse_database_url(mariadb.url), 4) as living:
        backend = MySqlBackend(living)
        backend.create(TABLE)
        holder = subprocess.Popen([sys.executable, "-c", HOLDER, mariadb.url], stdout=subprocess.PIPE, text=True)
        try:
            assert holder.stdout is not None
            dead = holder.stdout.readline().strip()
            names = [name for (name,) in left_behind(mariadb)]
            assert sum(name.startswith(dead) for name in names) == 4  # two databases, two users
            with open_server(parse_database_url(mariadb.url), 4):
                assert sum(name.startswith(dead) for (name,) in left_behind(mariadb)) == 4, "it lives"
        finally:
            os.kill(holder.pid, signal.SIGKILL)
            holder.wait()
        assert sum(name.startswith(dead) for (name,) in left_behind(mariadb)) == 4
        end = time.monotonic() + 20  # until the server has noticed
        while mariadb.run(f"select is_free_lock('{dead}')") != [["1"]] and time.monotonic() < end:
            time.sleep(0.05)
        with open_server(parse_database_url(mariadb.url), 4):
            assert not [name for (name,) in left_behind(mariadb) if name.startswith(dead)]
        assert backend.execute("SELECT COUNT(*) FROM `my % table`") == "[(3,)]"
        backend.close()
    assert not left_behind(mariadb)


def test_a_run_whose_lock_was_lost_takes_it_again(server: DatabaseServer, mariadb: MariaDb) -> None:
    (thread,) = mariadb.run(f"select is_used_lock('{server.run}')")[0]
    mariadb.run(f"kill {thread}")
    server._looked_at = 0.0  # as if a second had passed
    backend = MySqlBackend(server)
    backend.create(TABLE)
    assert mariadb.run(f"select is_free_lock('{server.run}')") == [["0"]]
    backend.close()


def test_lost_pooled_connections_are_replaced(server: DatabaseServer, mariadb: MariaDb) -> None:
    backend = MySqlBackend(server)
    backend.create(TABLE)
    for (thread,) in mariadb.run(f"select id from information_schema.processlist where user = '{mariadb.user}'"):
        mariadb.run(f"kill {thread}")
    backend.close()
    backend.create(TABLE)
    assert backend.execute("SELECT COUNT(*) FROM `my % table`") == "[(3,)]"
    backend.close()


def test_a_user_that_may_not_create_users(mariadb: MariaDb, caplog: pytest.LogCaptureFixture) -> None:
    mariadb.run(r"create user plain@localhost identified by 'p'; grant all on `agentlm\_run\_%`.* to plain@localhost")
    url = f"mysql://plain:p@127.0.0.1:{mariadb.port}"
    with caplog.at_level(logging.WARNING), open_server(parse_database_url(url), 2) as server:
        assert not server.separate_users
        assert "user 'plain' may not create users" in caplog.text
        backend = MySqlBackend(server)
        backend.create(TABLE)
        assert backend.execute("SELECT COUNT(*) FROM `my % table`") == "[(3,)]"
        assert not backend.execute("SELECT * FROM mysql.user").startswith("[")
    assert not left_behind(mariadb)


def test_a_server_that_goes_away_is_a_fault_and_at_the_start_a_users_error(
    mariadb: MariaDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("megatron_agent.environments.database.connections._FIRST_PAUSE", 0.01)
    nobody = open_server(parse_database_url("mysql://agent:secret@127.0.0.1:1"), 2)
    with pytest.raises(UserError, match=r"cannot use the server 127.0.0.1:1 as user 'agent'.*start it, or check"):
        nobody.__enter__()
    stranger = open_server(parse_database_url(f"mysql://agent:secret@127.0.0.1:{mariadb.port}"), 2)
    with pytest.raises(UserError, match="Access denied") as refused:
        stranger.__enter__()
    assert "secret" not in str(refused.value)
    with open_server(parse_database_url(mariadb.url), 2) as server:
        environment = DatabaseEnvironment(backend=MySqlBackend(server))
        task = DatabaseTask("t", "q", "d", TABLE, "other", ("x",))
        environment.reset(task)
        assert not environment.step("Action: Operation\n```sql\nSELECT 1\n```").done
        gone = parse_database_url("mysql://agent:secret@127.0.0.1:1")
        there, server.address = server.address, gone
        server._pool.close()
        with pytest.raises(EnvironmentFault, match=r"127\.0\.0\.1:1 does not answer"):
            environment.reset(task)
        with pytest.raises(EnvironmentFault):
            environment.reset(task)
        environment.close()
        server.address = there
        environment.reset(task)
        environment.close()
    assert not left_behind(mariadb)


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


def test_threads_that_find_the_server_away_pause_side_by_side(
    server: DatabaseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One by one, a run of hundreds of episodes would take hours to say that its server is gone."""
    at_once, most, lock = 0, 0, threading.Lock()

    def pause(seconds: float) -> None:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        threading.Event().wait(0.05)
        with lock:
            at_once -= 1

    def create(number: int) -> None:
        with pytest.raises(EnvironmentFault, match="does not answer"):
            server.create_database(TABLE)

    there, server.address = server.address, parse_database_url("mysql://agent:secret@127.0.0.1:1")
    server._pool.close()
    server._keeper.close()
    server._looked_at = 0.0
    monkeypatch.setattr("megatron_agent.environments.database.connections.time.sleep", pause)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(create, range(8)))
    assert most == 8
    server.address = there
    account = server.create_database(TABLE)  # the run's lock is taken again
    assert server.admin(lambda connection: held(connection, server.run))
    server.drop_database(account.user)


def held(connection: object, name: str) -> bool:
    with connection.cursor() as cursor:  # type: ignore[attr-defined]
        cursor.execute("SELECT IS_FREE_LOCK(%s)", (name,))
        return cursor.fetchone() == (0,)
