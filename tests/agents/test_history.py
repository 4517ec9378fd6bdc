"""History truncation against a plain transcription of AgentBench's rule."""

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_agent.agents.history import count_segments, truncate_history
from megatron_agent.environments.base import Message


@pytest.mark.parametrize(
    ("text", "segments"),
    [
        ("", 0),
        (" \n ", 0),
        ("a", 1),
        ("abcdefg", 1),
        ("abcdefgh", 2),
        ("a" * 14, 2),
        ("a" * 15, 3),
        ("two words", 2),
        ("a1b", 3),
        ("1234", 4),
        ("don't", 3),
        ("tab\there", 3),
        ("日本語", 1),
    ],
)
def test_segments(text: str, segments: int) -> None:
    assert count_segments(text) == segments


@given(st.text(alphabet="ab Z\n1.\té²日") | st.text(alphabet="abcdefgh \n.0", max_size=300) | st.text())
def test_segments_of_any_text(text: str) -> None:
    """Truth: runs of letters by `itertools.groupby`, against the two ways of counting."""
    runs = [(letters, list(run)) for letters, run in itertools.groupby(text, str.isalpha)]
    others = sum(character not in " \n" for letters, run in runs if not letters for character in run)
    assert count_segments(text) == others + sum(math.ceil(len(run) / 7) for letters, run in runs if letters)


def conversation(length: int, rng: random.Random) -> list[Message]:
    return [
        {"role": "assistant" if i % 2 else "user", "content": " ".join(["word"] * rng.randint(1, 30))}
        for i in range(length)
    ]


def by_the_book(messages: list[Message], limit: int) -> list[Message]:
    """evaluation.md, section 1: newest messages while the sum stays below the limit, then no dangling user."""
    total = count_segments(messages[0]["content"])
    kept: list[Message] = []
    for message in reversed(messages[1:]):
        total += count_segments(message["content"])
        if total >= limit:
            break
        kept.insert(0, message)
    if kept and kept[0]["role"] == "user":
        kept = kept[1:]
    omitted = len(messages) - 1 - len(kept)
    notice = f"\n\n[NOTICE] {omitted} messages are omitted." if omitted else ""
    return [{"role": "user", "content": messages[0]["content"] + notice}, *kept]


def test_truncation_by_the_book() -> None:
    rng = random.Random(3)
    shortened = 0
    for _ in range(500):
        messages = conversation(rng.randrange(1, 16, 2), rng)
        before = [dict(message) for message in messages]
        limit = rng.randint(1, 250)
        kept = truncate_history(messages, limit)
        assert kept == by_the_book(messages, limit)
        assert messages == before, "the caller's history must stay whole"
        assert [m["role"] for m in kept] == (["user", "assistant"] * 8)[: len(kept)]
        shortened += len(kept) < len(messages)
    assert shortened > 100


def test_short_histories_pass_unchanged() -> None:
    messages = conversation(5, random.Random(1))
    assert truncate_history(messages) == messages


def test_roles_must_alternate() -> None:
    with pytest.raises(ValueError, match="expected user, assistant"):
        truncate_history([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}])
