"""Impossible actions: what is named must be there; few false alarms on real rows, most exchanged replies found."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from data_prep.agentinstruct.audit import audit
from data_prep.agentinstruct.audit_actions import impossible_actions
from megatron_agent.chat.conversation import Conversation, parse_conversation
from tests.data_prep.agentinstruct.test_match_evaluator import PAGE, QUESTION
from tests.data_prep.conftest import record

SHOP = "Thought:\nx\n\nAction:\n"
KG = ("i", "!Yes.", "A new question: x\nEntities: [Fair division, chess]")
SEEN = "Observation: [game.class, game.kind]"
ROOM = ("i", "!OK.", "You see a bed 1, and a drawer 12.\nYour task is to: x")
CHOICES = QUESTION.replace("B. <a id=0> x", "B. <select id=0> <option> Red </option>\nC. <input id=1 text city />")


def why(identifier: str, *texts: str) -> list[str]:
    return [finding.why for finding in impossible_actions(parse_conversation(record(identifier, *texts), "row"))]


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("Thought: x\nAnswer: B.\nAction: SELECT\nValue: Red", []),
        ("Thought: x\nAnswer: C.\nAction: TYPE\nValue: the city", []),
        ("Thought: x\nAnswer: A.", []),
        ("Thought: x\nAnswer: F.\nAction: CLICK", ["choice F is not among A, B, C"]),
        ("Thought: x\nAnswer: B.\nAction: SET", ["action 'SET' is none of CLICK, SELECT, TYPE"]),
        ("Thought: x\nAnswer: C.\nAction: SELECT\nValue: city", ["SELECT on a <input>"]),
        ("Thought: x\nAnswer: B.\nAction: TYPE\nValue: red", ["TYPE on a <select>"]),
        ("Thought: x\nAnswer: C.\nAction: TYPE\nValue: Bears", ["no word of the value 'Bears' stands in task or page"]),
    ],
)
def test_mind2web(reply: str, expected: list[str]) -> None:
    assert why("mind2web_0", CHOICES, reply) == expected


def test_webshop() -> None:
    results = "Instruction: [SEP] x [SEP] Back to Search [SEP] Page 1 (Total results: 1) [SEP] Next > [SEP] "
    results += "B000000000 [SEP] t [SEP] $1"
    good = ("i", "!Ok.", PAGE, f"{SHOP}search[x]", results, f"{SHOP}click[B000000000]")
    assert why("webshop_0", *good) == []
    wrapped = f"Observation:\n{results}\n\nAvailable Actions:\n{{}}"
    assert why("webshop_0", *good[:4], wrapped, f"{SHOP}click[trigger]") == ["'trigger' cannot be clicked on the page"]
    assert why("webshop_0", *good[:5], f"{SHOP}click[trigger]") == ["'trigger' cannot be clicked on the page"]
    assert why("webshop_0", *good[:5], f"{SHOP}search[y]") == ["search on a page without a search bar"]


def test_knowledge_graph() -> None:
    made = "Observation: variable #0, which are instances of x"
    call = "Thought: x\nAction: "
    good = (*KG, f"{call}get_relations(chess)", SEEN, f"{call}get_neighbors(chess, game.kind)", made)
    assert why("kg_0", *good, f"{call}get_relations(#0)") == []
    escaped = (*KG, "Thought: x\nAction: get\\_relations(chess)", "Observation: [game.a_kind]")
    assert why("kg_0", *escaped, f"{call}get_neighbors(chess, game.a\\_kind)") == []
    assert why("kg_0", *KG, "Action: get\\_relations(Kerosene)") == ["entity 'Kerosene' is not in the question's list"]
    assert why("kg_0", *good, f"{call}get_relations(#1)") == ["variable #1 was not made before"]
    assert why("kg_0", *good, f"{call}get_neighbors(#0, a.b)") == ["relation 'a.b' stands in no observation"]
    assert why("kg_0", *KG, f"{call}get_relations(Kerosene)") == ["entity 'Kerosene' is not in the question's list"]


def test_rows_that_cannot_be_judged_are_noted() -> None:
    rows = [
        parse_conversation(record("webshop_0", "i", "!Ok.", PAGE, "x", "an unknown page", "x"), "row"),
        parse_conversation(record("webshop_1", "i", "!Ok.", PAGE, "x"), "row"),
        parse_conversation(record("kg_0", *KG, "x"), "row"),
        parse_conversation(record("kg_1", "i", "!Yes.", "a question", "x"), "row"),
    ]
    assert audit(rows).notes == [
        "impossible_action: 1 rows of webshop are not in the released form",
        "impossible_action: 1 rows of kg are not in the released form",
    ]


def test_alfworld() -> None:
    assert why("alfworld_0", *ROOM, "ACTION: go to drawer 12") == []
    assert why("alfworld_0", *ROOM, "ACTION: go to drawer 1") == ["'drawer 1' stands in no observation"]


@pytest.mark.parametrize(
    ("sql", "missing"),
    [
        ("SELECT * FROM `Student Scores`", None),
        ("select * from student_scores", None),
        ("SELECT * FROM `school`.`Student Scores`", None),
        ("SELECT * FROM school.student_scores JOIN x ON 1", None),
        ("SELECT table_name FROM information_schema.tables", None),
        ("SELECT table_name FROM `INFORMATION_SCHEMA`.`COLUMNS`", None),
        ("SELECT 1", None),
        ("SELECT a FROM (SELECT a FROM medals) t", "medals"),
        ("UPDATE school.medals SET a = 1", "medals"),
    ],
)
def test_tables_of_a_statement(sql: str, missing: str | None) -> None:
    question = "How many? The name of this table is Student Scores, and the headers of this table are a."
    found = why("db_0", "i", "!Ok.", question, f"x\nAction: Operation\n```sql\n{sql}\n```")
    assert found == ([f"none of the tables {missing} stands in an earlier turn"] if missing else [])


def test_database(shared_data: Path) -> None:
    """Truth: the released rows fit by construction; of rows that answer another's question most are found."""
    path = shared_data / "agentinstruct" / "db.jsonl"
    rows = [parse_conversation(json.loads(line), "row") for line in path.open()]
    assert [finding for row in rows for finding in impossible_actions(row)] == []
    moved = random.Random(0).sample(range(len(rows)), 160)
    exchanged: list[Conversation] = [
        replace(rows[a], turns=rows[a].turns[:3] + rows[b].turns[3:])
        for a, b in zip(moved, moved[1:] + moved[:1], strict=True)
    ]
    assert sum(bool(list(impossible_actions(row))) for row in exchanged) > 0.85 * len(moved)


def test_webshop_rows(shared_data: Path) -> None:
    path = shared_data / "agenttraj" / "webshop.jsonl"
    rows = [parse_conversation(json.loads(line), "row") for line in path.open()]
    assert [finding for row in rows for finding in impossible_actions(row)] == []
