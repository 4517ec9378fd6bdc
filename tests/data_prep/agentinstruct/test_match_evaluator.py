"""Rows in the evaluator's form: wrapper, demonstrations as context, what stays and what cannot be rewritten."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from data_prep.agentinstruct.match_evaluator import game_type, match_evaluator
from megatron_agent.chat.conversation import Conversation, Turn, check_trainable, parse_conversation
from megatron_agent.environments.demonstrations import load_demonstrations
from tests.data_prep.conftest import record

PAGE = "WebShop [SEP] Instruction: [SEP] i want socks [SEP] Search"
SUB_PAGE = "Instruction: [SEP] i want socks [SEP] Back to Search [SEP] < Prev [SEP] Warm."
WEBSHOP = (
    "You are web shopping.",
    "!Ok.",
    PAGE,
    "Thought:\nx\n\nAction:\nsearch[socks]",
    SUB_PAGE,
    "Thought:\nx\n\nAction:\nclick[< Prev]",
)
QUESTION = (
    "'''\n<html> <a id=0> x </a> </html>\n'''\n\nBased on the HTML webpage above, try to complete the following task:"
    "\nTask: t\nPrevious actions:\nNone\nWhat should be the next action? Please select from the following choices (If "
    "the correct action is not in the page above, please select A. 'None of the above'):\n\nA. None of the above"
    "\nB. <a id=0> x"
)


def row(identifier: str, *texts: str) -> Conversation:
    return parse_conversation(record(identifier, *texts), identifier)


def alfworld(goal: str) -> Conversation:
    return row("alfworld_0", "instruction", "!OK.", f"Here is your task. A room.\nYour task is to: {goal}", "ACTION: x")


def test_each_task() -> None:
    rows = [
        row("webshop_0", *WEBSHOP),
        alfworld("heat some egg and put it in fridge."),
        row("mind2web_0", QUESTION, "Thought: t\nAnswer: B.\nAction: CLICK"),
        row("db_0", "instruction", "!Ok.", "question", "answer"),
        row("kg_0", "instruction", "!Yes.", "question", "answer"),
    ]
    result, report = match_evaluator(rows)
    assert [turn.value for turn in result[0].turns[10::2]] == [
        f"Observation:\n{PAGE}\n\nAvailable Actions:\n{{'has_search_bar': True, 'clickables': ['search']}}",
        f"Observation:\n{SUB_PAGE}\n\nAvailable Actions:\n"
        "{'has_search_bar': False, 'clickables': ['back to search', '< prev']}",
    ]
    for position, length, task, game in ((2, 8, "webshop", ""), (2, 16, "alfworld", "heat"), (0, 6, "mind2web", "")):
        before, after = rows[position_of(task)], result[position_of(task)]
        shown = after.turns[position : position + length]
        assert [turn.value for turn in shown] == [message["content"] for message in load_demonstrations(task)[game]]
        assert [turn.loss for turn in shown] == [None, False] * (length // 2)
        assert not any(turn.trained for turn in shown)
        assert len(after.turns) == len(before.turns) + length
        assert after.turns[:position] == before.turns[:position]
        trained = [turn for turn in before.turns if turn.trained]
        assert [turn for turn in after.turns if turn.trained] == trained
        check_trainable(after, task)
    assert result[3:] == rows[3:]
    assert report.rows == {"webshop": 1, "alfworld": 1, "mind2web": 1}
    assert report.wrapped_turns == {"webshop": 2}
    assert report.demonstration_turns == {"webshop": 8, "alfworld": 16, "mind2web": 6}
    assert report.as_evaluated == {"db": 1, "kg": 1}
    other = [replace(row, turns=tuple(map(reworded, row.turns))) for row in result]
    assert match_evaluator(other)[0] == other  # holds another demonstration: it does not get a second
    again, second = match_evaluator(result)
    assert again == result
    assert not second.rows


def reworded(turn: Turn) -> Turn:
    return replace(turn, value=turn.value + " ") if turn.speaker == "human" else turn


def position_of(task: str) -> int:
    return ("webshop", "alfworld", "mind2web").index(task)


@pytest.mark.parametrize(
    ("goal", "game"),
    [
        ("put some keychain on sidetable.", "put"),
        ("put a apple in fridge.", "put"),
        ("put a clean mug in cabinet.", "clean"),
        ("clean some mug and put it in cabinet.", "clean"),
        ("put a hot egg in garbagecan.", "heat"),
        ("put a cool pan in stoveburner.", "cool"),
        ("look at bowl under the desklamp.", "examine"),
        ("examine the pen with the desklamp.", "examine"),
        ("put two cellphone in dresser.", "puttwo"),
        ("find two laptop and put them in bed.", "puttwo"),
    ],
)
def test_game_types(goal: str, game: str) -> None:
    assert game_type(alfworld(goal)) == game


def test_what_cannot_be_rewritten_is_named_and_kept() -> None:
    rows = [
        row("webshop_1", "instruction", "!Ok.", "not a page", "x"),
        row("webshop_2", PAGE, "Thought: x"),
        alfworld("dance."),
        row("mind2web_3", "a question", "Answer: A."),
        row("babyai_4", "q", "a"),
    ]
    result, report = match_evaluator(rows)
    assert result == rows
    assert {name: why.split(" (")[0] for name, why in report.failed.items()} == {
        "webshop_1": "turn 3: not a page of WebShop",
        "webshop_2": "does not begin with an instruction and an acknowledgement that is not trained",
        "alfworld_0": "the goal 'dance.' is none of ALFWorld's six kinds",
        "mind2web_3": "the question is not in the released form",
        "babyai_4": "'babyai' is not a task of AgentInstruct",
    }
    assert not report.rows
    assert not report.wrapped_turns


def test_real_pages(shared_data: Path) -> None:
    path = shared_data / "agenttraj" / "webshop.jsonl"
    rows = [parse_conversation(json.loads(line), "row") for line in path.open()]
    result, report = match_evaluator(rows)
    assert (report.rows["webshop"], report.wrapped_turns["webshop"], report.failed) == (411, 2_079, {})
    assert report.undecided_pages == []
    assert all(len(after.turns) == len(before.turns) + 8 for before, after in zip(rows, result, strict=True))
