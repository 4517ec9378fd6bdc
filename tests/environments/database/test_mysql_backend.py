"""The model's statements on a real MariaDB: results, errors, limits, and nothing beyond its own database."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("pymysql", reason="PyMySQL not installed: pip install 'agentlm-megatron[database]'")

from megatron_agent.environments.database import Table
from megatron_agent.environments.database.mysql_backend import MySqlBackend
from megatron_agent.environments.database.server import DatabaseServer
from tests.environments.database.conftest import TABLE, MariaDb


@pytest.fixture
def backend(server: DatabaseServer) -> Iterator[MySqlBackend]:
    backend = MySqlBackend(server, seconds_per_statement=0.5)
    backend.create(TABLE)
    yield backend
    backend.close()


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
