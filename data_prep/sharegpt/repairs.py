"""The repairs of `data_prep.sharegpt.cleaning_rules`: functions from turns to turns, or from a text to a text."""

import re
from collections.abc import Callable

from data_prep.sharegpt.html_markdown import UnparsableHtmlError, html_to_markdown, is_html_answer, is_html_block
from megatron_agent.chat.conversation import Turn

Turns = list[Turn]

REGENERATE_NUMBERS = re.compile(  # no quotient: not before an operator or a variable
    r"\s*(\d{1,3}) / (\d{1,3})(?:(?=[^\d\s.,:;%^)=+*/-])(?![a-z](?![A-Za-z]))|\s*\n(?!\s*[=+/^×÷]))"
)
COPY_BUTTONS = re.compile(r"^([ \t]*```)[ \t]*(?:\n[ \t]*)?([\w+#.-]*?)(?:Copy code)+[ \t]*\n?", re.MULTILINE)
COPY_CHARACTERS = re.compile(r"Copy\d+ chars / \d+ words")
ZERO_WIDTH = re.compile("[\u200b\u2060\ufeff]+")
ESCAPED_UNDERSCORE = re.compile(
    r"""
    # code
    (?P<fence>`{3,}|^~~~+) .*? (?:(?P=fence)|\Z) | ``(?!`)[^\n]*?`` | `[^`\n]*`
    # formulas
    | \$\$.*?\$\$ | \$(?=\S)[^$\n]*?(?<=\S)\$(?![0-9A-Za-z])
    | \\\[.{0,2000}?\\\] | \\\(.{0,2000}?\\\) | \\begin\{(?P<name>\w{1,20}\*?)\}.{0,2000}?\\end\{(?P=name)\}
    # a word with other backslashes: a path, a TeX command
    | (?<![^\s`$])[^\s`$]*\\[^_*\s`$][^\s`$]*
    | (?<=[0-9A-Za-z])(?P<escaped>\\_)(?=[0-9A-Za-z])
    """,
    re.DOTALL | re.MULTILINE | re.VERBOSE,
)
"""What may hold `\\_` and must stay as it is, and the group `escaped`: `\\_` elsewhere."""
BANNER = re.compile(r"\W*This (?:chat )?conversation is shared from\b", re.IGNORECASE)


class Dropped(Exception):  # noqa: N818 -- a verdict, not an error
    """Raised to leave a conversation out; its argument is the name of the rule."""


def each_value(change: Callable[[str], str]) -> Callable[[Turns], Turns]:
    """A repair that changes the text of every turn on its own."""
    return lambda turns: [with_value(turn, change(turn.value)) for turn in turns]


def with_value(turn: Turn, value: str) -> Turn:
    """The turn with another text; the same object when the text is the same."""
    return turn if value == turn.value else Turn(turn.speaker, value, turn.loss)


def converted_from_html(turns: Turns) -> Turns:
    """Convert the HTML messages of a record whose answers are the web page's; questions are plain text there."""
    if not any(turn.speaker == "gpt" and is_html_answer(turn.value) for turn in turns):
        return turns
    converted = []
    for turn in turns:
        is_html = is_html_block(turn.value) if turn.speaker == "gpt" else is_html_answer(turn.value)
        try:
            converted.append(with_value(turn, html_to_markdown(turn.value)) if is_html else turn)
        except UnparsableHtmlError as error:
            raise Dropped("unparsable_html") from error
    return converted


def without_regenerate_numbers(text: str) -> str:
    """Remove the page's "2 / 3" before a message (the second of three versions), not a quotient."""
    match = REGENERATE_NUMBERS.match(text)
    if match:
        number, count = map(int, match.groups())
        if 1 <= number <= count:
            return text[match.end() :]
    return text


def without_copy_buttons(text: str) -> str:
    """Remove the page's "Copy code" at the head of a fence and "Copy12 chars / 3 words"."""
    if "Copy" not in text:
        return text
    return COPY_CHARACTERS.sub("", COPY_BUTTONS.sub(r"\1\2\n", text))


def without_underscore_escapes(text: str) -> str:
    r"""Turn `a\_b` into `a_b` outside code, formulas and paths: there Markdown shows both alike."""
    if "\\_" not in text:
        return text
    return ESCAPED_UNDERSCORE.sub(lambda match: "_" if match["escaped"] else match[0], text)


def without_banners(turns: Turns) -> Turns:
    """Remove system turns in which TypingMind or ChatHub says that it shared the conversation."""
    return [turn for turn in turns if turn.speaker != "system" or not BANNER.match(turn.value)]


def without_leading_non_human(turns: Turns) -> Turns:
    """Remove what stands before the first human turn, but for a system prompt that opens the conversation."""
    first = next((i for i, turn in enumerate(turns) if turn.speaker == "human"), len(turns))
    return [
        *(turn for turn in turns[: min(first, 1)] if turn.speaker == "system" and first < len(turns)),
        *turns[first:],
    ]


def without_repeated_turns(turns: Turns) -> Turns:
    """Remove a turn that says what the one before it said, by the same speaker."""
    return [
        turn
        for i, turn in enumerate(turns)
        if i == 0 or (turn.speaker, turn.value) != (turns[i - 1].speaker, turns[i - 1].value)
    ]


def with_neighbours_merged(turns: Turns) -> Turns:
    """Join neighbouring human turns, and neighbouring gpt turns, with an empty line; empty ones vanish."""
    merged: Turns = []
    for turn in turns:
        if merged and turn.speaker == merged[-1].speaker != "system":
            texts = [text for text in (merged[-1].value, turn.value) if text.strip()]
            merged[-1] = with_value(merged[-1], "\n\n".join(texts))
        else:
            merged.append(turn)
    return merged


def cut_at_empty(turns: Turns) -> Turns:
    """End the conversation before the first message in which there is nothing to see; such a system prompt goes."""
    if turns and turns[0].speaker == "system" and is_blank(turns[0].value):
        turns = turns[1:]
    return next((turns[:i] for i, turn in enumerate(turns) if is_blank(turn.value)), turns)


def is_blank(text: str) -> bool:
    """Whether there is nothing to see in a text."""
    return not any(character.isprintable() and not character.isspace() for character in text)


def without_trailing_human(turns: Turns) -> Turns:
    """Remove questions at the end that nobody answered."""
    end = len(turns)
    while end and turns[end - 1].speaker == "human":
        end -= 1
    return turns[:end]
