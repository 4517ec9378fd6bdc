"""What is wrong with ShareGPT records as they come, counted before any rule touches them.

The counts say what a file is like whatever rules are chosen; `messages_...` count messages, the others conversations.
"""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from data_prep.sharegpt.layouts import ROLES

HTML_TAG = re.compile(r"</?(?:div|span|p)\b", re.IGNORECASE)
ZERO_WIDTH_SPACE = "\u200b"
DEFECTS = (
    "starts_with_gpt",
    "starts_with_system",
    "empty_conversation",
    "single_message",
    "neighbours_of_one_speaker",
    "has_empty_message",
    "does_not_end_on_gpt",
    "exact_duplicate",
    "repeated_id",
    "messages_with_html_tags",
    "messages_with_escaped_underscore",
    "messages_with_zero_width_space",
)
"""`exact_duplicate` and `repeated_id` count every occurrence but the first, over all files."""


def count_defects(messages: Sequence[tuple[str, str]]) -> Counter[str]:
    """Count the defects that one conversation, (role, text) by message, shows on its own."""
    speakers = [ROLES.get(role.lower(), role) for role, _ in messages]
    counts: Counter[str] = Counter(
        starts_with_gpt=speakers[:1] == ["gpt"],
        starts_with_system=speakers[:1] == ["system"],
        empty_conversation=not messages,
        single_message=len(messages) == 1,
        neighbours_of_one_speaker=any(a == b for a, b in pairwise(speakers)),
        has_empty_message=any(not text.strip() for _, text in messages),
        does_not_end_on_gpt=bool(messages) and speakers[-1] != "gpt",
    )
    for _, text in messages:
        counts["messages_with_html_tags"] += "<" in text and HTML_TAG.search(text) is not None
        counts["messages_with_escaped_underscore"] += "\\_" in text
        counts["messages_with_zero_width_space"] += ZERO_WIDTH_SPACE in text
    return counts
