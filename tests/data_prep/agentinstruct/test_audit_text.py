"""Audit rules on single texts: control codes, grammar, cut rows, duplicates."""

import pytest

from data_prep.agentinstruct.audit_findings import excerpt
from data_prep.agentinstruct.audit_text import (
    duplicates,
    replies_off_grammar,
    strip_terminal_codes,
    terminal_codes,
    truncated,
)
from megatron_agent.chat.conversation import Conversation, parse_conversation
from tests.data_prep.conftest import record

ANSWER = "I count.\nAction: Answer\nFinal Answer: [1]"
SQL = "Look.\nAction: Operation\n```sql\nSELECT 1\n```"


def row(identifier: str, *texts: str) -> Conversation:
    return parse_conversation(record(identifier, *texts), identifier)


@pytest.mark.parametrize(
    ("text", "plain", "count"),
    [
        ("plain\ttext\nümlaut \u200b", "plain\ttext\nümlaut \u200b", 0),
        ("262\r\n\x1b]0;root@287e: /\x07root@287e:/# \x1b[K", "262\nroot@287e:/# ", 3),
        ("\x1b[01;31m\x1b[Kroot\x1b[m\x1b[K 1", "root 1", 4),
        ("\x1b]2;title\x1b\\a\x1b(Bb\x9b1mc\x1b=d", "abcd", 4),
        ("\x1b]0;cut title", "", 1),
        ("\x1b]0;cut title\r\nthe output\n", "\nthe output\n", 2),
        ("\x9d0;title\x9croot#\x9d0;title\x07", "root#", 2),
        ("10%\r20%\x08\x07\x00\x7f\x85", "10%\n20%", 6),
        ("\x1b", "", 1),
    ],
)
def test_control_codes(text: str, plain: str, count: int) -> None:
    assert strip_terminal_codes(text) == (plain, count)
    found = list(terminal_codes(row("os_0", text + "x", "ok")))
    assert [(finding.turn, finding.rule) for finding in found] == ([(1, "terminal_codes")] if count else [])
    assert all(finding.excerpt.isprintable() for finding in found)


def test_excerpts_are_short_and_printable() -> None:
    assert excerpt("a\x1b[Kb") == "a\\x1b[Kb"
    assert len(excerpt("x" * 1000, 500)) < 130
    assert excerpt("x" * 50 + "y" + "z" * 500, 50).startswith("..." + "x" * 20 + "y")


@pytest.mark.parametrize(
    ("task", "reply", "rule"),
    [
        ("db", ANSWER, None),
        ("db", SQL, None),
        ("db", "Action: Answer\nFinal Answer: [1]", "no_thought"),
        ("db", "I do not know.", "no_action"),
        ("os", "Think: a\n\nAct: finish", None),
        ("db", "So.\nAction: Operation\nSELECT 1", "no_action"),
        ("db", "So.\nAction: Answer\n[1]", "no_action"),
        ("os", "Think: a\n\nAct: bash\n\nls", "no_action"),
        ("os", "Think: a\n\nAct: answer 3", "no_action"),
        ("os", "Think: a\n\nAct: Answer (3)", None),
        ("os", "Think: a\n\nAct:\nbash\n\n```bash\nls\n```", None),
        ("os", "Think:\n\nAct: bash\n\n```bash\nls\n```", "no_thought"),
        ("alfworld", "THOUGHT: a\n ACTION: look", None),
        ("alfworld", "ACTION: look", "no_thought"),
        ("webshop", "Thought:\na\n\nAction: \nclick[Buy Now] ", None),
        ("webshop", "Thought:\n\n\nAction:\nclick[Buy Now]", "no_thought"),
        ("webshop", "Thought:\na\n\nAction: click[Buy Now]", "no_action"),
        ("kg", "Thought: a\nAction: get_relations(b)", None),
        ("kg", "Thought: a\nFinal Answer: #3", None),
        ("kg", "Action: get_relations(b)", "no_thought"),
        ("mind2web", "Thought: a\nAnswer: A.", None),
        ("mind2web", "Answer: B.\nAction: CLICK", "no_thought"),
        ("babyai", "go", None),
    ],
)
def test_grammar(task: str, reply: str, rule: str | None) -> None:
    found = list(replies_off_grammar(row(f"{task}_0", "i", "!Action: Ok", "q", reply)))
    assert [(finding.rule, finding.turn) for finding in found] == ([(rule, 4)] if rule else [])


@pytest.mark.parametrize(
    ("task", "replies", "why"),
    [
        ("db", (SQL, ANSWER), None),
        ("db", (ANSWER, SQL), "no final action of db"),
        ("db", (SQL.removesuffix("\n```"), ANSWER), "an open code block"),
        ("db", ("It says [TRUNCATED]", ANSWER), "ends on [TRUNCATED]"),
        ("sqlgym", ("Action:\n\n```sql SELECT 1```",), None),
        ("os", ("Think: a\n\nAct: answer(3)",), None),
        ("os", ("Think: a\n\nAct: bash\n\n```bash\nls\n```",), "no final action of os"),
        ("kg", ("Thought: a\nFinal Answer: #3",), None),
        ("kg", ("Thought: a\nFinal Answer",), "no final action of kg"),
        ("webshop", ("Thought:\na\n\nAction:\nclick[buy now]",), None),
        ("webshop", ("Thought:\na\n\nAction:\nclick[B0]",), "no final action of webshop"),
        ("mind2web", ("Thought: a and then I",), "no final action of mind2web"),
        ("alfworld", ("THOUGHT: so I need to fi",), "no final action of alfworld"),
    ],
)
def test_cut_rows(task: str, replies: tuple[str, ...], why: str | None) -> None:
    texts = [text for reply in replies for text in ("q", reply)]
    found = list(truncated(row(f"{task}_0", *texts)))
    assert len(found) == (why is not None)
    assert why is None or why in found[0].why


def test_duplicates() -> None:
    rows = [
        row("db_0", "i", "!Ok.", "How many?", SQL),
        row("db_1", "i", "!Ok.", "How many?", SQL),
        row("db_2", "i", "!Ok.", " How\nmany? ", ANSWER),
        row("os_3", "i", "!Ok.", "How many?", SQL + " "),
        row("db_4", "i", "!Ok.", "How much?", SQL),
    ]
    found = [(finding.rule, finding.id, finding.why) for finding in duplicates(rows)]
    assert found == [
        ("duplicate_row", "db_1", "the same turns as db_0"),
        ("duplicate_instruction", "db_2", "the same task as db_0, answered otherwise"),
    ]
