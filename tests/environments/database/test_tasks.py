"""Reading dbbench files."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from megatron_agent.environments.database.scoring import (
    answer_is_correct,
    answer_says_the_same,
    category_scores,
    parse_answer,
)
from megatron_agent.environments.database.task import Table, read_database_tasks
from megatron_agent.environments.task_kind import EpisodeScore
from megatron_agent.errors import UserError


def row(**changes: Any) -> dict[str, Any]:
    record = {
        "description": "Who?",
        "add_description": "The name of this table is t, and the headers of this table are a,b.",
        "label": ["x"],
        "type": ["other"],
        "table": {
            "table_name": "t",
            "table_info": {"columns": [{"name": "a"}, {"name": "b"}], "rows": [["1", 2], [None, 2.5]]},
        },
    }
    record.update(changes)
    return record


def table(columns: Any = ("a",), rows: Any = (), name: Any = "t") -> dict[str, Any]:
    return {"table_name": name, "table_info": {"columns": columns, "rows": rows}}


def write(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def test_agentbench_dev(shared_data: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        tasks = read_database_tasks(shared_data / "agentbench/db/dev.jsonl")
    assert len(tasks) == 60
    assert tasks[0].id == "dev_0"
    assert sum(task.modifies for task in tasks) == 40
    assert len(caplog.records) == 1  # row 6 has a column without a name, which MySQL refuses too
    assert "dev.jsonl:6: MySQL cannot create table 'historic_sites'" in caplog.text


def test_uneven_rows_leave_the_table_empty_as_in_agentbench(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Two tasks of AgentTuning's std file have such a row; the released INSERT of all rows fails, the table stays."""
    uneven = row(table=table(["a", "b"], [["1", "2"], ["3"], []]))
    with caplog.at_level(logging.WARNING):
        (task,) = read_database_tasks(write(tmp_path / "x.jsonl", uneven))
    assert (task.table.rows, task.table.creatable) == ((), True)
    assert "x.jsonl:1: row 1 of table 't' has 1 cells for 2 columns; as in AgentBench" in caplog.text


def test_irregular_fields(tmp_path: Path) -> None:
    regular, bare, null = read_database_tasks(
        write(
            tmp_path / "x.jsonl",
            row(),
            row(id="mine", type="counting", label=3, add_description=None, table=table(["a"], [["1"]])),
            row(id=None),
        )
    )
    assert null.id == "x_2"
    assert regular.id == "x_0"
    assert regular.table.rows == (("1", "2"), ("None", "2.5"))  # AgentBench stores str(cell)
    assert (bare.id, bare.category, bare.label) == ("mine", "counting", (3,))
    assert bare.table_description == "The name of this table is t, and the headers of this table are a."
    as_list = tmp_path / "x.json"
    as_list.write_text(json.dumps([row(), row(type=["UPDATE"], answer_md5="[('0',)]")]))
    assert [task.category for task in read_database_tasks(as_list)] == ["other", "UPDATE"]


def test_gold_statements(tmp_path: Path) -> None:
    """Where AgentBench's files and this project's keep them; the `sql` of its queries is not trusted."""
    records = [
        row(gold_sql="SELECT 1"),
        row(sql={"query": "SELECT [a] FROM t", "length": 17}),
        row(type=["UPDATE"], answer_md5="[('0',)]", label=["UPDATE t SET a = 1"]),
        row(type=["UPDATE"], answer_md5="[('0',)]", label=[], sql={"query": "UPDATE t SET a = 2", "length": 18}),
        row(type=["UPDATE"], answer_md5="[('0',)]", label=None, sql="UPDATE t SET a = 3"),
        row(type=["UPDATE"], answer_md5="[('0',)]", label=[]),
    ]
    gold = [task.gold_sql for task in read_database_tasks(write(tmp_path / "x.jsonl", *records))]
    assert gold == ["SELECT 1", None, "UPDATE t SET a = 1", "UPDATE t SET a = 2", "UPDATE t SET a = 3", None]


def test_agentbenchs_train_layout(tmp_path: Path) -> None:
    """Rows as data/dbbench/db_out_new.jsonl of AgentBench's main branch has them: bare hashes, labels as text."""
    md5 = "0123456789abcdef" * 2
    sql = {"query": "UPDATE t SET a = 1", "length": 18}
    names, grouped, counted, empty, plain, changed, computed = read_database_tasks(
        write(
            tmp_path / "db_out_new.jsonl",
            row(type=["SELECT"], label="[('A',), ('B',)]", answer_md5=[], index=0),
            row(type=["SELECT"], label="[('England', 6), (None, Decimal('2.5'))]", answer_md5=[], index=1),
            row(type=["SELECT"], label="[(3,)]", answer_md5=[], index=2),
            row(type=["SELECT"], label="[]", answer_md5=[], index=3),
            row(type=["SELECT"], label="[sic", answer_md5=[], index=4),
            row(type=["UPDATE"], label=[], answer_md5=[md5], sql=sql, index=5),
            row(type=["INSERT"], label=[], answer_md5="", sql=sql, index=6),
        )
    )
    assert names.label == ("A", "B")
    assert grouped.label == ("England", "6", "None", "2.5")
    assert (counted.label, empty.label, plain.label) == (("3",), (), ("[sic",))
    assert changed.answer_md5 == f"[('{md5}',)]"
    assert (computed.answer_md5, computed.gold_sql, computed.id) == (None, "UPDATE t SET a = 1", "db_out_new_6")


@pytest.mark.parametrize("name", ["a" * 65, "a ", "a\0", "a\U0001f600"])
def test_names_mysql_refuses(name: str) -> None:
    assert Table("t", ("a",), ()).creatable
    assert not Table("t", ("a", name), ()).creatable
    assert not Table(name, ("a",), ()).creatable


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([], "expected a JSON object with a database task"),
        (row(description=None), '"description"'),
        (row(type=[]), '"type"'),
        (row(type=["other", "counting"]), '"type"'),
        (row(label=None), 'needs "label"'),
        (row(label=[["x"]]), '"label" to list plain values'),
        (row(type=["INSERT"], label=[]), 'needs "answer_md5"'),
        (row(type=["INSERT"], answer_md5=["0", "1"]), 'needs "answer_md5"'),
        (row(gold_sql=3), '"gold_sql" to be a string, got 3'),
        (row(table=None), '"table"'),
        (row(table=table(name="")), '"table_name"'),
        (row(table=table(columns=[])), "columns"),
        (row(table=table(columns=[3])), "every column to have a name"),
        (row(table=table(rows=None)), "rows"),
        (row(table=table(rows=["1"])), "row 0 to be a list of cells, got str"),
        (row(table=table(rows=[[["1"]]])), "nested"),
        (row(id=True), '"id" to be a non-empty string or a whole number, got True'),
        (row(id=""), '"id" to be a non-empty string'),
        (row(description="a\udc00"), "description: lone surrogate '\\udc00' at character 1"),
        (row(table=table(rows=[["a"], ["\ud800"]])), "table: table_info: rows[1][0]: lone surrogate"),
        (row(id="x_0"), "id 'x_0' was already used at"),
    ],
)
def test_bad_rows(tmp_path: Path, bad: Any, message: str) -> None:
    path = write(tmp_path / "x.jsonl", row(), bad)
    with pytest.raises(UserError) as error:
        read_database_tasks(path)
    assert message in str(error.value)
    assert f"{path}:2" in str(error.value)


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing\.jsonl"):
        read_database_tasks(tmp_path / "missing.jsonl")
    (tmp_path / "cut.jsonl").write_text('{"description": ')
    with pytest.raises(UserError, match=r"cut\.jsonl:1"):
        read_database_tasks(tmp_path / "cut.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(UserError, match="found none"):
        read_database_tasks(tmp_path / "empty.jsonl")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(UserError, match="expected a JSON list"):
        read_database_tasks(tmp_path / "bad.json")


@pytest.mark.parametrize(
    ("answer", "label", "correct"),
    [
        (' ["7"]', ["7.0"], True),
        (" [7]", ["7"], True),
        (" 7", ["7.0"], True),
        (' "7"', ["7"], True),
        (' ["none"]', ["none"], True),
        (" none", ["none"], False),  # AgentBench keeps the leading blank of an answer that is no literal
        (' ["Bob"]', ["bob"], False),
        (' ["a", "b"]', ["b", "a"], True),
        (' ["a", "a", "b"]', ["b", "a"], True),
        (" [1, 2]", ["1", "2"], False),  # sets compare text with text
        (' ["a"]', ["a", "b"], False),
        (' ("a", "b")', ["b", "a"], True),
        ("", ["7"], False),
        (" [1+1]", ["2"], False),  # eval would say 2; nothing of the model's is evaluated
        (" [[1], [2]]", ["1", "2"], False),
        (" [" + "9" * 400 + "]", ["7"], False),
    ],
)
def test_answers(answer: str, label: list[str], correct: bool) -> None:
    assert answer_is_correct(answer, label) is correct


@pytest.mark.parametrize(
    ("answer", "label", "correct"),
    [
        ("Bob", ["Bob"], True),
        ('[" Bob "]', ["Bob"], True),
        ('["bob"]', ["Bob"], False),
        ("[1, 2]", ["2.0", "1"], True),
        ("7", ["7.0"], True),
        ("[None]", ["none"], True),
        ("[]", ["none"], True),
        ('["NULL"]', ["none"], True),
        ("", ["7"], False),
        ("[]", ["7"], False),
        ('["1,200"]', ["1200"], False),
        ("[[], {}]", ["7"], False),
    ],
)
def test_answers_of_the_fixed_style(answer: str, label: list[str], correct: bool) -> None:
    assert answer_says_the_same(answer, label) is correct


def test_answers_parse_as_agentbenchs_eval_does() -> None:
    for text in (' ["a", 1, 2.5, None, True]', " 'abc'", " {'a': 1}", " (1,)", " 5", " x", "\t[1]", " b'ab'", "[-1]"):
        try:
            expected = list(eval(text))
        except Exception:
            expected = [text]
        assert parse_answer(text) == expected, text


def test_category_scores() -> None:
    rewards = {"other": 1.0, "counting": 0.0, "DELETE": 1.0, "INSERT": 1.0, "UPDATE": 0.0}
    scores = category_scores([EpisodeScore(name, reward, "completed") for name, reward in rewards.items()])
    assert scores["SELECT_accuracy"] == pytest.approx(2 / 3)  # DELETE is neither INSERT nor UPDATE
    assert scores["overall_cat_accuracy"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert scores["overall_accuracy"] == pytest.approx(3 / 5)
    assert category_scores([]) == {"overall_cat_accuracy": 0.0, "overall_accuracy": 0.0}
