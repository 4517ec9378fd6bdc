"""Impossible actions: what is named must be there; few false alarms on real rows, most exchanged replies found."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from data_prep.agentinstruct.audit_actions import impossible_actions
from megatron_agent.chat.conversation import Conversation, parse_conversation
from tests.data_prep.conftest import record
from tests.data_prep.agentinstruct.test_match_evaluator import PAGE, QUESTION

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
    assert why("webshop_0", *good[:5], f"{SHOP}click[trigger]") == ["'trigger' cannot be clicked on the page"]
    assert why("webshop_0", *good[:5], f"{SHOP}search[y]") == ["search on a page without a search bar"]


def test_knowledge_graph() -> None:
    made = "Observation: variable #0, which are instances of x"
    call = "Thought: x\nAction: "
    good = (*KG, f"{call}get_relations(chess)", SEEN, f"{call}get_neighbors(chess, game.kind)", made)
    assert why("kg_0", *good, f"{call}get_relations(#0)") == []
    assert why("kg_0", *good, f"{call}get_relations(#1)") == ["variable #1 was not made before"]
    assert why("kg_0", *good, f"{call}get_neighbors(#0, a.b)") == ["relation 'a.b' stands in no observation"]
    assert why("kg_0", *KG, f"{call}get_relations(Kerosene)") == ["entity 'Kerosene' is not in the question's list"]


def test_alfworld() -> None:
    assert why("alfworld_0", *ROOM, "ACTION: go to drawer 12") == []
    assert why("alfworld_0", *ROOM, "ACTION: go to drawer 1") == ["'drawer 1' stands in no observation"]


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
