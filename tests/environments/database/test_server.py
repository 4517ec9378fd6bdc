"""Episodes on a real MariaDB: side by side, after a crash, while the server is away; nothing left behind."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("pymysql", reason="PyMySQL not installed: pip install 'agentlm-megatron[database]'")

from megatron_agent.environments.base import EnvironmentFault
from megatron_agent.environments.database import TASK_KIND, DatabaseTask, Table
from megatron_agent.environments.database.connections import (
    PASSWORD_VARIABLE,
    parse_database_url,
)
from megatron_agent.environments.database.environment import DatabaseEnvironment
from megatron_agent.environments.database.kind import DatabaseOptions
from megatron_agent.environments.database.mysql_backend import MySqlBackend
from megatron_agent.environments.database.server import DatabaseServer, open_server
from megatron_agent.errors import UserError
from tests.environments.database.conftest import TABLE, MariaDb


@pytest.mark.parametrize("connections", [1, 8, 64])
def test_episodes_in_threads_share_the_connections(mariadb: MariaDb, connections: int) -> None:
    with open_server(parse_database_url(mariadb.url), connections) as server:
        assert play_in_threads(server) <= connections
    assert not mariadb.left_behind()


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
        assert mariadb.left_behind()
    assert not mariadb.left_behind()


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
            names = [name for (name,) in mariadb.left_behind()]
            assert sum(name.startswith(dead) for name in names) == 4  # two databases, two users
            with open_server(parse_database_url(mariadb.url), 4):
                assert sum(name.startswith(dead) for (name,) in mariadb.left_behind()) == 4, "it lives"
        finally:
            os.kill(holder.pid, signal.SIGKILL)
            holder.wait()
        assert sum(name.startswith(dead) for (name,) in mariadb.left_behind()) == 4
        end = time.monotonic() + 20  # until the server has noticed
        while mariadb.run(f"select is_free_lock('{dead}')") != [["1"]] and time.monotonic() < end:
            time.sleep(0.05)
        with open_server(parse_database_url(mariadb.url), 4):
            assert not [name for (name,) in mariadb.left_behind() if name.startswith(dead)]
        assert backend.execute("SELECT COUNT(*) FROM `my % table`") == "[(3,)]"
        backend.close()
    assert not mariadb.left_behind()


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
    assert not mariadb.left_behind()


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
    assert not mariadb.left_behind()


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
