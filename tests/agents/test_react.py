"""The parts of replies, in the grammars of the six tasks."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_agent.agents.react import split_reply


def short(text: str) -> list[tuple[str, str]]:
    return [(part.kind, part.text.strip()) for part in split_reply(text)]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", []),
        ("I refuse.", [("text", "I refuse.")]),
        # ALFWorld
        (
            "THOUGHT: To the desk.\n ACTION: go to desk 1\n",
            [("thought", "THOUGHT: To the desk."), ("action", "ACTION: go to desk 1")],
        ),
        ("THOUGHT: To it. ACTION: look", [("thought", "THOUGHT: To it."), ("action", "ACTION: look")]),
        ("ACTION: look", [("action", "ACTION: look")]),
        # WebShop
        (
            "Thought:\nSearch first.\n\nAction:\nsearch[shoe]",
            [("thought", "Thought:\nSearch first."), ("action", "Action:\nsearch[shoe]")],
        ),
        # Mind2Web
        (
            "Thought: The button.\nAnswer: C.\nAction: TYPE\nValue: Rome",
            [("thought", "Thought: The button."), ("action", "Answer: C.\nAction: TYPE\nValue: Rome")],
        ),
        # Knowledge Graph
        (
            "Thought: Relations first.\nAction: get_relations(Rome)",
            [("thought", "Thought: Relations first."), ("action", "Action: get_relations(Rome)")],
        ),
        ("Thought: Done.\nFinal Answer: #3", [("thought", "Thought: Done."), ("action", "Final Answer: #3")]),
        # Operating System
        (
            "Think: List.\n\nAct: bash\n\n```bash\n# Think: no label\nls\n```\nThat is it.",
            [
                ("thought", "Think: List."),
                ("action", "Act: bash\n\n```bash\n# Think: no label\nls\n```"),
                ("text", "That is it."),
            ],
        ),
        ("Think: Known.\n\nAct: answer(5)", [("thought", "Think: Known."), ("action", "Act: answer(5)")]),
        # Database
        (
            "I count.\nAction: Operation\n```sql\nSELECT 1\n```",
            [("text", "I count."), ("action", "Action: Operation\n```sql\nSELECT 1\n```")],
        ),
        (
            'It is known.\nAction: Answer\nFinal Answer: ["1"]',
            [("text", "It is known."), ("action", 'Action: Answer\nFinal Answer: ["1"]')],
        ),
        ("```ls```\nThought: so", [("action", "```ls```"), ("thought", "Thought: so")]),
        ("Activity: none\nValues: 3", [("text", "Activity: none\nValues: 3")]),
    ],
)
def test_grammars(text: str, parts: list[tuple[str, str]]) -> None:
    assert short(text) == parts
    assert "".join(part.text for part in split_reply(text)) == text


PIECES = [
    "THOUGHT:",
    "Thought: ",
    "Think :",
    " ACTION:",
    "Action: x",
    "Act:",
    "Value:",
    "```",
    "\n",
    "\r",
    "\u2028",
    " ",
]


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=5)).map("".join))
def test_parts_are_the_reply(text: str) -> None:
    parts = split_reply(text)
    assert "".join(part.text for part in parts) == text
    assert all(part.text for part in parts)
    assert all(one.kind != other.kind for one, other in itertools.pairwise(parts))


@pytest.mark.parametrize(
    "piece", [" ", "\n", "Thought:", "Thought: ACTION", "Action :", "```", "\n```", "A", "Final Answer "]
)
def test_hostile_replies_take_linear_time(piece: str) -> None:
    """A million characters: a quadratic parser would need hours."""
    text = piece * (1_000_000 // len(piece))
    assert "".join(part.text for part in split_reply(text)) == text
