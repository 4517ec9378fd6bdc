"""Statements of the kind models write: what the model is told, and what the table becomes, on SQLite and MariaDB.

`statements_with_results.sql` and `statements_with_errors.sql` hold one statement a line, or several parted by ` ; `.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("pymysql", reason="PyMySQL not installed: pip install 'agentlm-megatron[database]'")

from megatron_agent.environments.database import Table
from megatron_agent.environments.database.backend import SqliteBackend, TableBackend
from megatron_agent.environments.database.mysql_backend import MySqlBackend
from megatron_agent.environments.database.server import DatabaseServer

PLAYERS = Table(
    "players",
    ("ID", "Name", "Team", "Height (cm)", "Salary", "Joined", "Win %", "Notes"),
    (
        ("1", "Ada Lopez", "Reds", "181", "1,200", "2019-03-05", "45%", "tall; fast"),
        ("2", "bob Stone", "Blues", "175.5", "950", "2020-11-30", "50.5%", ""),
        ("3", "Cy Ngo", "reds", "190", "10,000", "2018-07-01", "7%", "None"),
        ("4", "Dée O'Neil", "Greens", "168", "2000", "2021-01-15", "100%", "a_b"),
        ("5", "Eve Stone ", "Blues", "", "500.50", "", "12%", "x,y"),
        ("6", "Finn", "Greens", "201", "-3", "2020-02-29", "0%", "left"),
    ),
)


@pytest.fixture
def backends(server: DatabaseServer) -> Iterator[tuple[TableBackend, TableBackend]]:
    on_mariadb = MySqlBackend(server)
    yield SqliteBackend(), on_mariadb
    on_mariadb.close()


def lines(name: str) -> list[str]:
    return Path(__file__).with_name(name).read_text(encoding="utf-8").splitlines()


def test_results_and_tables_are_the_same(backends: tuple[TableBackend, TableBackend]) -> None:
    statements, fresh = lines("statements_with_results.sql"), False
    assert len(statements) > 350
    for line in statements:
        if not fresh:
            for backend in backends:
                backend.create(PLAYERS)
        for statement in line.split(" ; "):
            here, there = (backend.execute(statement) for backend in backends)
            assert here == there, statement
            assert here.startswith("["), f"{statement}: {here}"
        fresh = re.match(r"\(?(SELECT|WITH|SHOW|DESC)", line) is not None
        if not fresh:
            here, there = (backend.table_hash(PLAYERS) for backend in backends)
            assert here == there or (here[:12] == there[:12] and not here.startswith("[")), line


def test_errors_have_the_same_number(backends: tuple[TableBackend, TableBackend]) -> None:
    for backend in backends:
        backend.create(PLAYERS)
    for statement in lines("statements_with_errors.sql"):
        here, there = (backend.execute(statement) for backend in backends)
        assert re.match(r"\d{4} \(\w{5}\): ", here), f"{statement}: {here}"
        assert here[:12] == there[:12], f"{statement}: {here} / {there}"
    assert backends[0].table_hash(PLAYERS) == backends[1].table_hash(PLAYERS)


@pytest.mark.parametrize(
    ("statement", "text"),
    [
        # As MySQL 8 told the agents of AgentInstruct's db split.
        ("SELECT Nope FROM players", "1054 (42S22): Unknown column 'Nope' in 'field list'"),
        ("UPDATE players SET Team = 'x' WHERE `EmployeeID` > 100 ;",
         "1054 (42S22): Unknown column 'EmployeeID' in 'where clause'"),
        ("SELECT * FROM orders", "1146 (42S02): Table 'players.orders' doesn't exist"),
        ("DELETE FROM `players` WHERE `Salary` = (SELECT MAX(`Salary`) FROM `players`) LIMIT 1 ;",
         "1093 (HY000): You can't specify target table 'players' for update in FROM clause"),
        ("SELECT Name FROM players a JOIN players b ON a.ID = b.ID",
         "1052 (23000): Column 'Name' in field list is ambiguous"),
        ("CREATE TABLE `players` (a INT)", "1050 (42S01): Table 'players' already exists"),
        ("INSERT INTO `players`(`Name`, 'Contact number', 'Email address') "
         "VALUES ('John Smith', '123-456789', 'john.smith@example.com') ;",
         "1064 (42000): You have an error in your SQL syntax; check the manual that corresponds to your MySQL server "
         "version for the right syntax to use near ''Contact number', 'Email address') VALUES ('John Smith', "
         "'123-456789', 'john.smi' at line 1"),
        ("UPDATE players SET Team = 'Inactive' WHERE Win ID > 100 ;",
         "1064 (42000): You have an error in your SQL syntax; check the manual that corresponds to your MySQL server "
         "version for the right syntax to use near 'ID > 100' at line 1"),
        # What MySQL 8 refuses and MariaDB takes.
        ("SELECT Rank FROM players",
         "1064 (42000): You have an error in your SQL syntax; check the manual that corresponds to your MySQL server "
         "version for the right syntax to use near 'FROM players' at line 1"),
        ("SELECT CAST(ID AS INT) FROM players",
         "1064 (42000): You have an error in your SQL syntax; check the manual that corresponds to your MySQL server "
         "version for the right syntax to use near 'INT) FROM players' at line 1"),
        ("SELECT Name, MAX(ID) FROM players",
         "1140 (42000): In aggregated query without GROUP BY, expression #1 of SELECT list contains nonaggregated "
         "column 'players.players.Name'; this is incompatible with sql_mode=only_full_group_by"),
        ("SELECT Team AS t FROM players WHERE t = 'Reds'", "1054 (42S22): Unknown column 't' in 'where clause'"),
        ("SELECT IIF(1, 2, 3)", "1305 (42000): FUNCTION players.IIF does not exist"),
        ("SELECT * FROM sqlite_master", "1146 (42S02): Table 'players.sqlite_master' doesn't exist"),
        ("SELECT 'a' REGEXP '(a+)+$'", "3699 (HY000): Timeout exceeded in regular expression match."),
        ("SELECT 'a' REGEXP '('", "3685 (HY000): Illegal argument to a regular expression."),
        ("SELECT LEFT('a')",
         "1582 (42000): Incorrect parameter count in the call to native function 'LEFT'"),
        ("SELECT POW(10, 1e9)", "1690 (22003): DOUBLE value is out of range"),
    ],
)  # fmt: skip
def test_errors_in_mysqls_words(statement: str, text: str) -> None:
    backend = SqliteBackend()
    backend.create(PLAYERS)
    assert backend.execute(statement) == text


def test_mariadb_refuses_what_mysql_does_and_names_the_database_as_agentbench(server: DatabaseServer) -> None:
    backend = MySqlBackend(server)
    backend.create(PLAYERS)
    before = backend.table_hash(PLAYERS)
    text = backend.execute("UPDATE players SET Team = 'x' WHERE ID = (SELECT MAX(ID) FROM players)")
    assert text == "1093 (HY000): You can't specify target table 'players' for update in FROM clause"
    assert backend.table_hash(PLAYERS) == before
    assert backend.execute("DELETE FROM players WHERE ID = (SELECT m FROM (SELECT MAX(ID) m FROM players) t)") == "[]"
    assert backend.execute("SELECT * FROM orders") == "1146 (42S02): Table 'players.orders' doesn't exist"
    assert backend.execute("SELECT F(1)") == "1305 (42000): FUNCTION players.F does not exist"
    backend.close()


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 1 FROM " + "(" * 20_000,
        "SELECT " + "NOT " * 10_000 + "1",
        "SELECT " + "CASE WHEN " * 5_000,
        "SELECT 1" + " XOR 1 MOD 1" * 1_000,
        "WITH a AS (" * 4_000,
        "SELECT FORMAT(1, 1000000000), ROUND(1.5, 1000000000), SPACE(99999999999)",
        "SELECT REPLACE(REPEAT('a', 4000000), 'a', REPEAT('b', 4000000))",
        "SELECT LPAD(ID, 9999999999, 'x'), DATE_FORMAT('2020-01-01', REPEAT('%M', 900000)) FROM players",
        "SELECT STR_TO_DATE('1', REPEAT('%d ', 90000)), STR_TO_DATE('x', '%Y%Y'), CAST(1e999 AS SIGNED)",
        "SELECT REPEAT('a', 3000) REGEXP 'a*a*a*b', REPEAT('a', 40) REGEXP '((a{1,3}){1,3}){1,30}b'",
        "SELECT GROUP_CONCAT(a.ID ORDER BY b.ID) FROM players a, players b, players c, players d, players e, players f",
        "SELECT CHAR(55296), '\0', DATE_ADD('2020-01-01', INTERVAL 99999999999 YEAR)",
    ],
    ids=lambda statement: statement[:30],
)
def test_hostile_statements_end(statement: str) -> None:
    backend = SqliteBackend(seconds_per_statement=0.5)
    backend.create(PLAYERS)
    assert len(backend.execute(statement)) <= 811
    assert backend.execute("SELECT COUNT(*) FROM players") == "[(6,)]"
