"""Problems of the Database task, read from AgentBench's dbbench files (JSONL or a JSON list)."""

import json
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_agent.chat.conversation import read_records, refuse_lone_surrogates, require_file
from megatron_agent.environments.literals import literal_eval
from megatron_agent.errors import UserError

_LOG = logging.getLogger(__name__)
_MAX_NAME = 64  # characters of a name in MySQL
_MD5 = re.compile(r"[0-9a-f]{32}")
_DECIMAL = re.compile(r"Decimal\(('[^']*')\)")

MODIFICATIONS = ("INSERT", "DELETE", "UPDATE")
"""Task types scored by the table's content instead of the answer."""


@dataclass(frozen=True)
class Table:
    """A table whose columns are all TEXT; cells are stored as text, as AgentBench does with `str(cell)`.

    None is NULL; no file has it.
    """

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | None, ...], ...]

    @property
    def creatable(self) -> bool:
        """Whether MySQL takes the names: none empty, too long, ending in a blank or beyond U+FFFF, no column twice."""
        lowered = {column.lower() for column in self.columns}
        return len(lowered) == len(self.columns) and all(
            0 < len(name) <= _MAX_NAME and name[-1] != " " and min(name) > "\0" and max(name) <= "\uffff"
            for name in (self.name, *self.columns)
        )


@dataclass(frozen=True)
class DatabaseTask:
    """One problem: a question over one table, and the answer list or the md5 of the changed table.

    A modification without `answer_md5` is right when the table becomes what `gold_sql` makes of it. `gold_sql` is
    None where no statement is known to be right.
    """

    id: str
    question: str
    table_description: str
    table: Table
    category: str
    label: tuple[object, ...] = ()
    answer_md5: str | None = None
    gold_sql: str | None = None

    @property
    def modifies(self) -> bool:
        """Whether the task is scored by the table's content (INSERT, DELETE, UPDATE)."""
        return self.category in MODIFICATIONS


def read_database_tasks(path: str | Path) -> list[DatabaseTask]:
    """Read every problem of a dbbench file.

    Tolerated by name: a missing or null `id` (named `<file stem>_<row number from 0>`), `type` as a string or a
    one-element list, `columns` as names or `{"name": ...}`, `label` as a single value or the text of a result list,
    `answer_md5` as a hash, a result list or a list of one hash, or none where there is gold SQL, a missing
    `add_description` (the standard sentence is made from the table). Gold SQL is this project's `gold_sql`; of a
    modification also AgentBench's `sql.query` or `label`. Its `sql` of queries is not: half of them do not run.
    Fields this environment does not use (`create`, `evaluation`, `example`, `heads`, `source`, `index`) are ignored.

    Raises UserError naming file, line and field for anything else, lone surrogates anywhere included.
    """
    path = Path(path)
    tasks: list[DatabaseTask] = []
    seen: dict[str, str] = {}
    for index, (where, record) in enumerate(_records(path)):
        task = parse_database_task(record, where, default_id=f"{path.stem}_{index}")
        if task.id in seen:
            raise UserError(f"{where}: id {task.id!r} was already used at {seen[task.id]}; ids must be unique")
        seen[task.id] = where
        tasks.append(task)
    if not tasks:
        raise UserError(f"{path}: expected at least one database task, found none")
    return tasks


def parse_database_task(record: object, where: str, default_id: str) -> DatabaseTask:
    """Turn one dbbench record into a task; `where` (file and line) opens every error message."""
    if not isinstance(record, dict):
        raise UserError(f"{where}: expected a JSON object with a database task, got {type(record).__name__}")
    _refuse_lone_surrogates(record, where)
    question = _text(record, "description", where)
    table = _table(record.get("table"), where)
    category = record.get("type")
    if isinstance(category, list) and len(category) == 1:
        category = category[0]
    if not isinstance(category, str) or not category:
        raise UserError(f'{where}: expected "type" to be a string or a list of one string, got {category!r}')
    gold_sql = _gold_sql(record, category in MODIFICATIONS, where)
    answer_md5: str | None = None
    label: tuple[object, ...] = ()
    if category in MODIFICATIONS:
        answer_md5 = _answer_md5(record.get("answer_md5"), category, gold_sql, where)
    else:
        label = _label(record.get("label"), category, where)
    description = record.get("add_description") or describe_table(table)
    if not isinstance(description, str):
        raise UserError(f'{where}: expected "add_description" to be a string, got {description!r}')
    identifier = record.get("id")
    if identifier is None:
        identifier = default_id
    if isinstance(identifier, bool) or not isinstance(identifier, str | int) or identifier == "":
        raise UserError(f'{where}: expected "id" to be a non-empty string or a whole number, got {identifier!r}')
    return DatabaseTask(str(identifier), question, description, table, category, label, answer_md5, gold_sql)


def _label(label: object, category: str, where: str) -> tuple[object, ...]:
    """Return the answers of a query; those of AgentBench's train file are the text of a result list of rows."""
    if label is None:
        raise UserError(f'{where}: a task of type {category} needs "label" (a list of answers), got none')
    if isinstance(label, str) and label.startswith("["):
        try:
            rows = literal_eval(_DECIMAL.sub(r"\1", label))
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return (label,)
        return tuple(str(value) for row in rows for value in (row if isinstance(row, tuple) else (row,)))
    values = tuple(label) if isinstance(label, list) else (label,)
    if any(isinstance(value, list | dict) for value in values):
        raise UserError(f'{where}: expected "label" to list plain values, got {list(values)!r}')
    return values


def _answer_md5(value: object, category: str, gold_sql: str | None, where: str) -> str | None:
    """Return the hash as AgentBench's check query shows it; None if it is to come from the gold SQL."""
    if isinstance(value, list) and len(value) <= 1:
        value = value[0] if value else ""
    if not value and gold_sql:
        return None
    if not isinstance(value, str) or not value:
        raise UserError(f'{where}: a task of type {category} needs "answer_md5" (a string), got {value!r}')
    return f"[('{value}',)]" if _MD5.fullmatch(value) else value


def _gold_sql(record: dict[str, Any], modifies: bool, where: str) -> str | None:
    gold = record.get("gold_sql")
    if gold is None and modifies:
        query, label = record.get("sql"), record.get("label")
        gold = query.get("query") if isinstance(query, dict) else query
        if not gold and isinstance(label, list) and len(label) == 1:
            gold = label[0]
    if gold is not None and not isinstance(gold, str):
        raise UserError(f'{where}: expected "gold_sql" to be a string, got {gold!r}')
    return gold or None


def _refuse_lone_surrogates(value: object, where: str) -> None:
    """Look through a whole record: neither SQLite nor a server takes text that is not Unicode."""
    if isinstance(value, str):
        refuse_lone_surrogates(value, where)
    elif isinstance(value, dict):
        for key, item in value.items():
            refuse_lone_surrogates(key, f"{where}: a key")
            _refuse_lone_surrogates(item, f"{where}: {key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _refuse_lone_surrogates(item, f"{where}[{index}]")


def describe_table(table: Table) -> str:
    """Return AgentBench's standard sentence about a table."""
    headers = ",".join(table.columns)
    return f"The name of this table is {table.name}, and the headers of this table are {headers}."


def _records(path: Path) -> Iterator[tuple[str, object]]:
    if path.suffix != ".json":
        yield from read_records(path)
        return
    try:
        records = json.loads(require_file(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: expected a JSON list of database tasks: {error}") from error
    if not isinstance(records, list):
        raise UserError(f"{path}: expected a JSON list of database tasks, got {type(records).__name__}")
    for index, record in enumerate(records):
        yield f"{path} item {index}", record


def _text(record: dict[str, object], key: str, where: str) -> str:
    value = record.get(key)
    if not isinstance(value, str) or not value:
        raise UserError(f'{where}: expected "{key}" to be a non-empty string, got {value!r}')
    return value


def _table(value: object, where: str) -> Table:
    info = value.get("table_info") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(info, dict):
        raise UserError(f'{where}: expected "table" to hold "table_name" and "table_info", got {str(value)[:80]!r}')
    name = _text(value, "table_name", where)
    columns = info.get("columns")
    if not isinstance(columns, list) or not columns:
        raise UserError(f'{where}: expected "table_info.columns" to be a non-empty list, got {str(columns)[:80]!r}')
    names: list[str] = []
    for column in columns:
        column = column.get("name") if isinstance(column, dict) else column
        if not isinstance(column, str):
            raise UserError(f"{where}: expected every column to have a name, got {column!r}")
        names.append(column)
    rows = info.get("rows")
    if not isinstance(rows, list):
        raise UserError(f'{where}: expected "table_info.rows" to be a list, got {type(rows).__name__}')
    for index, row in enumerate(rows):
        if not isinstance(row, list):
            raise UserError(f"{where}: expected row {index} to be a list of cells, got {type(row).__name__}")
        if any(isinstance(cell, list | dict) for cell in row):
            raise UserError(f"{where}: expected row {index} to hold plain values, got a nested one")
    uneven = [index for index, row in enumerate(rows) if len(row) != len(names)]
    if uneven:
        _LOG.warning(
            "%s: row %d of table %r has %d cells for %d columns; as in AgentBench, whose one INSERT of all rows fails, "
            "the task is played with an empty table",
            where,
            uneven[0],
            name,
            len(rows[uneven[0]]),
            len(names),
        )
        rows = []
    table = Table(name, tuple(names), tuple(tuple(str(cell) for cell in row) for row in rows))
    if not table.creatable:
        _LOG.warning(
            "%s: MySQL cannot create table %r (an empty, blank-ended or repeated column name in %r); "
            "as in AgentBench the task is played with an empty database",
            where,
            name,
            names,
        )
    return table
