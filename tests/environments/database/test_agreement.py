"""SQLite and MariaDB give the same: results, hashes, rewards, order."""

import hashlib
import json
import random
import unicodedata
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

pytest.importorskip("pymysql", reason="PyMySQL not installed: pip install 'agentlm-megatron[database]'")

from data_prep.database_tasks.generator import generate_tasks
from megatron_agent.environments.database import TASK_KIND, DatabaseEnvironment, DatabaseTask, Table
from megatron_agent.environments.database.backend import SqliteBackend, TableBackend
from megatron_agent.environments.database.connections import parse_database_url
from megatron_agent.environments.database.dialect.collation import compare, fold, like
from megatron_agent.environments.database.dialect.parsing import split_statements
from megatron_agent.environments.database.mysql_backend import MySqlBackend
from megatron_agent.environments.database.server import open_server
from megatron_agent.environments.database.task import read_database_tasks
from tests.environments.database.conftest import MariaDb
from tests.environments.database.test_backend import STATEMENTS
from tests.environments.database.test_backend import TABLE as STATEMENTS_TABLE


@pytest.fixture(scope="module")
def on_mariadb(mariadb: MariaDb) -> Iterator[MySqlBackend]:
    with open_server(parse_database_url(mariadb.url), 4) as server:
        yield MySqlBackend(server)


@pytest.fixture(params=["sqlite", "mariadb"])
def backend(request: pytest.FixtureRequest) -> TableBackend:
    return SqliteBackend() if request.param == "sqlite" else request.getfixturevalue("on_mariadb")


@pytest.fixture(scope="module")
def dev_tasks(shared_data: Path) -> list[DatabaseTask]:
    return read_database_tasks(shared_data / "agentbench/db/dev.jsonl")


def answer(values: object) -> str:
    return f"I know.\nAction: Answer\nFinal Answer: {values!r}"


@pytest.mark.parametrize("style", ["paper", "fixed"])
def test_labels_of_every_dev_task_score_1_and_mutated_ones_0(
    backend: TableBackend, style: str, dev_tasks: list[DatabaseTask]
) -> None:
    """All 60: the md5 labels of 40 modifications, computed by AgentBench on MySQL, and 20 answers."""
    assert TASK_KIND.expert is not None
    environment = DatabaseEnvironment(style, backend)
    for task in dev_tasks:
        expert, messages = TASK_KIND.expert(task), environment.reset(task)
        while not (observation := environment.step(expert(messages))).done:
            assert observation.text == "[]", f"{task.id}: {observation.text}"
        assert (observation.reward, observation.status) == (1.0, "completed"), task.id
        if not task.modifies:
            for wrong in (["surely not this"], [*task.label, "more"], list(task.label)[1:] or ["0.123"]):
                environment.reset(task)
                assert environment.step(answer(wrong)).reward == 0.0, task.id
            continue
        environment.reset(task)
        assert environment.step(answer(["done"])).reward == 0.0, f"{task.id}: right without any change"
        expert, messages = TASK_KIND.expert(task), environment.reset(task)
        environment.step(expert(messages))
        name, column = task.table.name, task.table.columns[0]
        more = f"INSERT INTO `{name}` (`{column}`) VALUES ('one more')"
        assert environment.step(f"Action: Operation\n```sql\n{more}\n```").text == "[]"
        assert environment.step(answer(["done"])).reward == 0.0, f"{task.id}: right with one row more"


def test_every_statement_of_dev_shows_the_same(
    shared_data: Path, dev_tasks: list[DatabaseTask], on_mariadb: MySqlBackend
) -> None:
    """Gold statements, half of the queries' broken: results word by word, errors where the other has one."""
    path = shared_data / "agentbench/db/dev.jsonl"
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    shown = 0
    for task, record in zip(dev_tasks, records, strict=True):
        shown += agree(task, [task.gold_sql or record["sql"]["query"]], on_mariadb)
    assert shown >= 50


def test_every_statement_of_generated_tasks_shows_the_same(on_mariadb: MySqlBackend) -> None:
    for generated in generate_tasks("train", 44, 3) + generate_tasks("test", 22, 4):
        assert generated.task.gold_sql
        assert agree(generated.task, split_statements(generated.task.gold_sql), on_mariadb) == 1


def agree(task: DatabaseTask, statements: list[str], on_mariadb: MySqlBackend) -> int:
    """Run statements on both, compare results and hashes; returns how many gave a result."""
    on_sqlite, shown = SqliteBackend(), 0
    on_sqlite.create(task.table)
    on_mariadb.create(task.table)
    for sql in statements:
        here, there = on_sqlite.execute(sql), on_mariadb.execute(sql)
        assert here == there or not (here + there).count("[") or not (here[0] == "[" or there[0] == "["), (
            f"{task.id}: {sql}\n{here}\n{there}"
        )
        shown += here.startswith("[")
    if task.table.creatable:
        assert on_sqlite.table_hash(task.table) == on_mariadb.table_hash(task.table), task.id
    return shown


def test_statements_expected_of_mysql_are_mariadbs(on_mariadb: MySqlBackend) -> None:
    on_mariadb.create(STATEMENTS_TABLE)
    got = [(sql, on_mariadb.execute(sql)) for sql, _ in STATEMENTS]
    assert got == STATEMENTS


def random_tables(count: int, seed: int) -> list[Table]:
    """Tables of all the cells that a hash could stumble over: NULL, empty, commas, quotes, any Unicode."""
    rng = random.Random(seed)
    pieces = ["", ",", ",,", "a", "B", "é", "e\u0301", "日本", "😀", "'", '"', "\\", "\n", "\t", "\0", "%", " ", "1",
              "0.5", "NULL", "None", "\u200b", "\ufeff", "\uffff", "ß", "İ"]  # fmt: skip
    tables = []
    for number in range(count):
        columns = tuple(f"{rng.choice('cé,x')} {i}" for i in range(rng.randint(1, 5)))

        def cell() -> str | None:
            if rng.random() < 0.2:
                return None
            if rng.random() < 0.1:
                codes = (rng.randrange(1, 0x110000) for _ in range(rng.randint(1, 6)))
                return "".join(chr(code) for code in codes if not 0xD800 <= code < 0xE000)
            return "".join(rng.choices(pieces, k=rng.randint(0, 3)))

        rows = 300 if number % 100 == 0 else rng.randint(0, 12)  # beyond the 1,024 bytes of group_concat too
        tables.append(Table(f"t {number}%", columns, tuple(tuple(cell() for _ in columns) for _ in range(rows))))
    return tables


def expected_hash(table: Table) -> str:
    """AgentBench's formula: five digits a row over its cells that are not NULL, sorted, joined, cut at 1,024 bytes."""
    rows = (",".join(cell for cell in row if cell is not None) for row in table.rows)
    hashes = sorted(hashlib.md5(row.encode()).hexdigest()[:5] for row in rows)
    return f"[('{hashlib.md5(','.join(hashes)[:1024].encode()).hexdigest()}',)]" if hashes else "[(None,)]"


def test_hashes_of_500_random_tables(on_mariadb: MySqlBackend) -> None:
    on_sqlite = SqliteBackend()
    tables = random_tables(500, seed=7)
    assert any(None in row for table in tables for row in table.rows)
    for table in tables:
        on_sqlite.create(table)
        on_mariadb.create(table)
        hashes = on_sqlite.table_hash(table), on_mariadb.table_hash(table)
        assert hashes == (expected_hash(table),) * 2, table


def test_collation(on_mariadb: MySqlBackend) -> None:
    """Equality of every letter of the Latin, Greek and Cyrillic blocks with every other; order of ASCII; LIKE."""
    blocks = (range(0x20, 0x7F), range(0xA0, 0x250), range(0x370, 0x530), range(0x1E00, 0x1F00))
    characters = [chr(code) for block in blocks for code in block if unicodedata.category(chr(code))[0] in "LNPSZ"]
    on_mariadb.create(Table("t", ("c",), tuple((character,) for character in characters)))
    connection = on_mariadb._session()
    with connection.cursor() as cursor:
        cursor.execute("SELECT c, HEX(WEIGHT_STRING(c)) FROM t")
        weights = dict(cursor.fetchall())
        cursor.execute("SELECT c FROM t WHERE ORD(c) < 127 ORDER BY c, BINARY c")
        order = [character for (character,) in cursor.fetchall()]
    assert len(weights) == len(characters) > 1000
    classes: dict[str, set[str]] = {}
    for character in characters:
        classes.setdefault(fold(character), set()).add(weights[character])
    assert {folded: found for folded, found in classes.items() if len(found) > 1} == {}
    assert len(classes) == len(set(weights.values())), "some that are equal on MariaDB differ here"
    assert all(compare(left, right) <= 0 for left, right in pairwise(order))
    samples = [
        "",
        "montreal ",
        *["Montréal", "montreal", "MONTREAL_", "straße", "Strasse", "œuvre", "a_b", "a%b", "axb", "\\", "日本", "½"],
    ]
    patterns = [
        "",
        *["montreal", "%é%", "M_ntreal%", "stra%SE", "a\\_b", "a\\%b", "a_b", "%", "_", "%a%b%", "oe%", "\\\\", "日_"],
    ]
    with connection.cursor() as cursor:
        for pattern in patterns:
            for text in samples:
                cursor.execute("SELECT %s LIKE %s, %s = %s", (text, pattern, text, pattern))
                here = int(like(pattern, text)), int(compare(text, pattern) == 0)
                assert cursor.fetchone() == here, (text, pattern)


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t VALUES ('4', 2.50, -3.140), (5, .5, 1.)",
        "INSERT INTO t (id, price) VALUES (4, 007.50); -- 1.50, 2",
        "REPLACE INTO t VALUES (4, '2.50', (1.5))",
        "UPDATE t SET price = 2.50, `note a` = -0.10 WHERE id = 1.0",
        "UPDATE t SET price = 2.0",
        "UPDATE t SET price = price * 2, `note a` = id / 2 WHERE price > 1.50;",
        "UPDATE t SET price = price * 1.1",
        "UPDATE t SET price = ROUND(price / 3, 2) ORDER BY id LIMIT 2",
        "UPDATE t SET price = CASE WHEN id > 1.5 THEN id + 1 ELSE price - 0.5 END, `note a` = CONCAT(id, ',x')",
        "UPDATE t SET `note a` = (SELECT AVG(id) FROM (SELECT id FROM t WHERE id < 2.5) AS s) WHERE id = 3",
    ],
)
def test_stored_numbers(on_mariadb: MySqlBackend, sql: str) -> None:
    """The text of a number in a column enters the md5."""
    table = Table("t", ("id", "price", "note a"), (("1", "9", "x"), ("2", "3.50", "2.50, 1.0"), ("3", "", "0.10")))
    sqlite = SqliteBackend()
    for backend in (on_mariadb, sqlite):
        backend.create(table)
        assert backend.execute(sql) == "[]"
    assert sqlite.execute("SELECT * FROM t") == on_mariadb.execute("SELECT * FROM t")
    assert sqlite.table_hash(table) == on_mariadb.table_hash(table)
