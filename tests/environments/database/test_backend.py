"""SQLite behind MySQL's surface: dialect, hash, bounds."""

import hashlib
import time
from pathlib import Path

import pytest

from megatron_agent.environments.database.backend import SqliteBackend
from megatron_agent.environments.database.dialect.parsing import split_statements
from megatron_agent.environments.database.dialect.translation import mysql_to_sqlite
from megatron_agent.environments.database.task import Table

TABLE = Table(
    "my table",
    ("a b", "n", "it's"),
    (("x", "9", "red"), ("Y", "10", "Blue"), ("z", "100", "100%"), ("w", "2.50", 'say "hi"')),
)


@pytest.fixture
def backend() -> SqliteBackend:
    backend = SqliteBackend(seconds_per_statement=0.5)
    backend.create(TABLE)
    return backend


# Results as MySQL 8 gives them on TEXT columns; test_agreement.py asks MariaDB.
STATEMENTS = [
    ("SELECT `a b` FROM `my table` WHERE n > 9.5 ORDER BY `a b`", "[('Y',), ('z',)]"),
    ("SELECT `a b` FROM `my table` WHERE 10 <= n", "[('Y',), ('z',)]"),
    ("SELECT `a b` FROM `my table` t WHERE t.n BETWEEN 9 AND 10", "[('x',), ('Y',)]"),
    ("SELECT `a b` FROM `my table` WHERE `my table`.`n` IN (2.5, 100)", "[('z',), ('w',)]"),
    ("SELECT `a b` FROM `my table` WHERE n NOT IN (9, 10, 100)", "[('w',)]"),
    ("SELECT `a b` FROM `my table` WHERE n = 2.5", "[('w',)]"),
    ("SELECT `a b` FROM `my table` WHERE n = '2.5'", "[]"),
    ("SELECT `a b` FROM `my table` WHERE n > (SELECT AVG(n) FROM `my table`)", "[('z',)]"),
    ("SELECT COUNT(*) FROM `my table` GROUP BY 1 > 0 HAVING COUNT(*) > 3", "[(4,)]"),
    ('SELECT n FROM `my table` WHERE `a b` = "y"', "[('10',)]"),  # "..." is text, and case is ignored
    ('SELECT n FROM `my table` WHERE `it\'s` = "say \\"hi\\""', "[('2.50',)]"),
    ("SELECT 'it\\'s', 'a''b', 'tab\\t', \"x''y\"", "[(\"it's\", \"a'b\", 'tab\\t', \"x''y\")]"),
    ("SELECT MAX(n) FROM `my table`", "[('9',)]"),  # text order, as MySQL's
    ("SELECT MAX(CAST(n AS SIGNED)) FROM `my table`", "[(100,)]"),
    ("SELECT MAX(n+0) FROM `my table`", "[(100.0,)]"),
    ("SELECT '5' / '2'", "[(2.5,)]"),
    ("SELECT n / 4 FROM `my table` WHERE `a b` = 'Y' # comment", "[(2.5,)]"),
    ("SELECT IF(n > 50, 'big', 'small') FROM `my table` WHERE `a b` LIKE 'Z'", "[('big',)]"),
    ("SELECT 1 FROM `my table` WHERE n = 9 || n = 10", "[(1,), (1,)]"),
    ("SELECT CONCAT(n, '-', 7), CONCAT('a', NULL), CONCAT_WS(',', 'a', NULL, 'b'), MD5('x') FROM `my table` "
     "WHERE `a b` = 'x' -- comment",
     f"[('9-7', None, 'a,b', '{hashlib.md5(b'x').hexdigest()}')]"),
    ("SELECT CASE WHEN n > 50 THEN 1 ELSE 0 END = 1 FROM `my table`", "[(0,), (0,), (1,), (0,)]"),
    ("SELECT n FROM `my table` LIMIT 1, 2", "[('10',), ('100',)]"),
    ("SELECT SUM(n), SUM(DISTINCT `n`), AVG(n) FROM `my table` t WHERE t.n IN (9, 10)", "[(19.0, 19.0, 9.5)]"),
    ("SELECT n FROM `my table` WHERE `it's` LIKE '100\\%' OR `a b` LIKE '_'", "[('9',), ('10',), ('100',), ('2.50',)]"),
    ("SELECT n FROM `my table` WHERE `it's` LIKE '%\\%'", "[('100',)]"),
    ("SELECT n FROM `my table` WHERE `it's` NOT LIKE '%É%'", "[('10',), ('100',), ('2.50',)]".replace("('10',), ", "")),
    ("SELECT n FROM `my table` WHERE `a b` = 'Ý'", "[('10',)]"),
    ("SELECT `a b` FROM `my table` ORDER BY `a b` DESC", "[('z',), ('Y',), ('x',), ('w',)]"),
    ("SELECT '5' / '2', 'a;b', \"c'd\"", "[(2.5, 'a;b', \"c'd\")]"),
]  # fmt: skip


@pytest.mark.parametrize(("mysql", "result"), STATEMENTS)
def test_mysql_statements(backend: SqliteBackend, mysql: str, result: str) -> None:
    assert backend.execute(mysql) == result


def test_assignments_are_not_compared(backend: SqliteBackend) -> None:
    assert backend.execute("UPDATE `my table` SET n = 7, `a b`=8 WHERE n = 10") == "[]"
    assert backend.execute("SELECT `a b`, n FROM `my table` WHERE n < 9") == "[('8', '7'), ('w', '2.50')]"
    assert backend.execute("TRUNCATE TABLE `my table`") == "[]"
    assert backend.execute("SELECT * FROM `my table`") == "[]"


@pytest.mark.parametrize(
    ("mysql", "near"),
    [
        ("SELECT * FROM 'my table'", "'my table'"),
        ('SELECT * FROM "my table" WHERE n = 1', '"my table" WHERE n = 1'),
        ("SELECT [a b] FROM `my table`", "[a b] FROM `my table`"),
        ("UPDATE 'my table' SET n = 1", "'my table' SET n = 1"),
        ("INSERT INTO \"my table\" VALUES ('1')", "\"my table\" VALUES ('1')"),
    ],
)
def test_quotes_that_mysql_refuses(backend: SqliteBackend, mysql: str, near: str) -> None:
    text = backend.execute(mysql)
    assert text.startswith("1064 (42000): You have an error in your SQL syntax; check the manual that corresponds to")
    assert text.endswith(f"to use near '{near}' at line 1")


def test_names_may_begin_with_a_digit() -> None:
    table = Table("1952_prix", ("2nd", "3e"), (("a", "b"),))
    backend = SqliteBackend()
    backend.create(table)
    assert backend.execute("SELECT 2nd, 0x41, 1e1, 2 FROM 1952_prix WHERE 2nd = 'A'") == "[('a', 65, 10.0, 2)]"


def test_statements_are_split_outside_of_texts_and_comments() -> None:
    sql = "UPDATE t SET a = 'x;y';\nDELETE FROM `a;b` -- c;d\nWHERE 1; ;"
    assert split_statements(sql) == ["UPDATE t SET a = 'x;y'", "DELETE FROM `a;b` -- c;d\nWHERE 1"]
    assert split_statements(" ; ") == []


def test_comparisons_of_long_texts_end_in_time() -> None:
    backend = SqliteBackend(seconds_per_statement=0.5)
    backend.create(Table("t", ("a",), tuple((f"é{i}" * 20_000,) for i in range(12))))
    started = time.monotonic()
    backend.execute("SELECT COUNT(*) FROM t x, t y, t z WHERE x.a = y.a AND y.a = z.a")
    assert time.monotonic() - started < 10


def test_text_it_does_not_know_passes_through() -> None:
    for sql in ("", "SELECT 'open", "hello world", "SELECT `a`, `b`.`c` FROM `t` WHERE `x` = 'y'", "\0", "é 日本 $x"):
        assert mysql_to_sqlite(sql).sql == sql


def test_hash_is_agentbenchs(backend: SqliteBackend) -> None:
    """The formula written out: md5 of the sorted five-digit row hashes, cut at 1,024 bytes."""

    def expected(rows: tuple[tuple[str, ...], ...]) -> str:
        hashes = sorted(hashlib.md5(",".join(row).encode()).hexdigest()[:5] for row in rows)
        return f"[('{hashlib.md5(','.join(hashes)[:1024].encode()).hexdigest()}',)]"

    assert backend.table_hash(TABLE) == expected(TABLE.rows)
    many = Table("t", ("a", "b"), tuple((str(i), "ü") for i in range(300)))
    backend.create(many)
    assert backend.table_hash(many) == expected(many.rows)
    assert expected(many.rows) != expected(many.rows[:100])
    backend.execute("UPDATE t SET b = NULL")  # CONCAT_WS skips NULL
    assert backend.table_hash(many) == expected(tuple((a,) for a, _ in many.rows))
    backend.execute("DELETE FROM t")
    assert backend.table_hash(many) == "[(None,)]"


@pytest.mark.parametrize(
    "sql",
    [
        "ATTACH DATABASE '{path}' AS x",
        "VACUUM INTO '{path}'",
        "PRAGMA writable_schema = 1",
        "SELECT load_extension('{path}')",
        "SAVEPOINT s",
        "CREATE VIRTUAL TABLE v USING fts5(x)",
        "SELECT length(zeroblob(1000000000))",
        "SELECT 1; SELECT 2",
    ],
)
def test_refused_statements(backend: SqliteBackend, sql: str, tmp_path: Path) -> None:
    text = backend.execute(sql.format(path=tmp_path / "out"))
    assert not text.startswith("["), text
    assert not list(tmp_path.iterdir())
    assert backend.execute("SELECT COUNT(*) FROM `my table`") == "[(4,)]"


@pytest.mark.parametrize(
    "sql",
    [
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT COUNT(*) FROM c",
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c",
        "WITH RECURSIVE c(x) AS (SELECT 'abcdefgh' UNION ALL SELECT x || x FROM c) SELECT length(x) FROM c",
        "WITH RECURSIVE c(x) AS (SELECT 'abcdefgh' UNION ALL SELECT concat(x, x) FROM c) SELECT length(x) FROM c",
        "SELECT COUNT(*) FROM `my table` a, `my table` b, `my table` c, `my table` d, `my table` e, `my table` f, "
        "`my table` g, `my table` h, `my table` i, `my table` j, `my table` k, `my table` l, `my table` m",
    ],
)
def test_statements_are_bounded(backend: SqliteBackend, sql: str) -> None:
    started = time.monotonic()
    assert len(backend.execute(sql)) <= 811
    assert time.monotonic() - started < 5
    assert backend.execute("SELECT COUNT(*) FROM `my table`") == "[(4,)]"


def test_unbounded_growth_ends(backend: SqliteBackend) -> None:
    backend.execute("UPDATE `my table` SET n = n || hex(randomblob(100))")
    for _ in range(40):
        text = backend.execute("INSERT INTO `my table` SELECT * FROM `my table`")
        if text != "[]":
            break
    assert "full" in text or text.startswith("3024"), text


def test_a_table_mysql_could_not_create_is_not_there() -> None:
    backend = SqliteBackend()
    table = Table("t", ("a", ""), (("1", "2"),))
    backend.create(table)
    assert backend.execute("SELECT * FROM t") == "1146 (42S02): Table 't.t' doesn't exist"
    assert backend.table_hash(table) == "1146 (42S02): Table 't.t' doesn't exist"


def test_temporary_tables_are_bounded_too(backend: SqliteBackend) -> None:
    """They are files of the system's folder for temporary ones."""
    numbers = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT REPEAT('x', 100000) FROM c"
    backend.seconds_per_statement = 60  # what ends it is the size, not the time
    text = backend.execute(f"CREATE TEMPORARY TABLE q AS {numbers}")
    assert "full" in text, text
