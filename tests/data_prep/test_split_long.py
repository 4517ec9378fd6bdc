"""Borders of the parts of over-long conversations: every exchange that fits is in one part, and no part is longer."""

import random
from pathlib import Path

import pytest

from data_prep.split_long import SplitSettings, part_borders, split_conversation, split_over_long
from megatron_agent.chat.conversation import Conversation, Turn
from megatron_agent.errors import UserError


def test_parts_hold_every_exchange_that_fits() -> None:
    generator = random.Random(0)
    for _ in range(500):
        system = generator.randrange(5)
        lengths = [generator.randrange(1, 14) for _ in range(generator.randrange(1, 12))]
        as_first = [length + system for length in lengths]
        limit = generator.randrange(2, 20)
        parts = part_borders(lengths, as_first, limit)
        sizes = [as_first[part.start] + sum(lengths[part.start + 1 : part.stop]) for part in parts]
        assert all(size <= limit for size in sizes)
        kept = [number for part in parts for number in part]
        assert kept == sorted(set(kept))
        assert all(as_first[number] > limit for number in range(len(lengths)) if number not in kept)
        for part, size, following in zip(parts, sizes, parts[1:], strict=False):  # greedy: the next one had no room
            assert following.start > part.stop or size + lengths[following.start] > limit


@pytest.mark.parametrize("system", [False, True])
def test_parts_are_conversations_of_their_own(system: bool) -> None:
    prompt = [Turn("system", "s")] if system else []
    turns = [Turn("gpt" if i % 2 else "human", str(i)) for i in range(8)]
    whole = Conversation("a", (*prompt, *turns), source="x", model="gpt-4")
    first, second = split_conversation(whole, [range(1), range(2, 4)])
    assert first == Conversation(f"a_{int(system)}", (*prompt, *turns[:2]), source="x", model="gpt-4")
    assert second == Conversation(f"a_{4 + int(system)}", (*prompt, *turns[4:]), source="x", model="gpt-4")


def test_a_length_that_cannot_be_meant_is_refused(sentencepiece_file: Path) -> None:
    with pytest.raises(UserError, match="--max-length 1: expected at least 2 tokens"):
        list(split_over_long(iter([]), SplitSettings(1, sentencepiece_file, "llama-2")))
