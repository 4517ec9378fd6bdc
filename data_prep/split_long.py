"""Over-long conversations, split at the borders of exchanges; nothing is ever cut inside an answer."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TypeVar

from megatron_agent.chat.conversation import Conversation
from megatron_agent.chat.template import (
    Exchange,
    Span,
    check_template_fits,
    count_tokens,
    encode_conversations,
    encode_exchanges_as_first,
    flatten,
    get_template,
)
from megatron_agent.chat.tokenizer import load_tokenizer
from megatron_agent.errors import UserError

BATCH = 256  # conversations encoded at once: some 2 MB of ShareGPT
Tag = TypeVar("Tag")


@dataclass(frozen=True)
class SplitSettings:
    """How over-long conversations are split: in tokens of the dataset that will be built."""

    max_length: int
    tokenizer: str | Path
    template: str
    system_prompt: str | None = None


@dataclass(frozen=True)
class SplitResult:
    """What became of one conversation."""

    tokens: int
    """Of the whole."""
    parts: list[Conversation]
    """The conversation itself when it is short enough; empty when none of its exchanges is."""
    exchanges_over_length: int = 0
    """Exchanges left out because each is too long on its own."""


def part_borders(lengths: Sequence[int], as_first: Sequence[int], limit: int) -> list[range]:
    """Split exchanges greedily into parts of at most `limit` tokens; each part is a range of exchange numbers.

    `lengths` are the tokens of the exchanges as they follow each other, `as_first` those of each one with the system
    prompt before it: the form in which it opens a part. An exchange that is longer than `limit` on its own is in no
    part; the part before it ends there.
    """
    parts: list[range] = []
    room = 0  # in the part that is open; 0 when none is
    for number, (following, opening) in enumerate(zip(lengths, as_first, strict=True)):
        if room and following <= room:
            parts[-1] = range(parts[-1].start, number + 1)
            room -= following
        elif opening <= limit:
            parts.append(range(number, number + 1))
            room = limit - opening
        else:
            room = 0
    return parts


def split_at_exchanges(
    exchanges: list[Exchange], as_first: list[Exchange], limit: int
) -> tuple[list[list[Span]], Counter[str]]:
    """Split one encoded conversation into documents of at most `limit` tokens, at `part_borders`.

    Returns the parts as documents, and what was left out by rule:

    * `exchange_over_length`: an exchange that is longer than `limit` on its own;
    * `part_without_trained_turn`: a part in which every answer is context only.
    """
    parts = part_borders([count_tokens(one) for one in exchanges], [count_tokens(one) for one in as_first], limit)
    dropped = Counter(exchange_over_length=len(exchanges) - sum(map(len, parts)))
    documents = [flatten([as_first[part.start], *exchanges[part.start + 1 : part.stop]]) for part in parts]
    kept = [spans for spans in documents if any(span.trained for span in spans)]
    dropped["part_without_trained_turn"] += len(documents) - len(kept)
    return kept, +dropped


def split_conversation(conversation: Conversation, parts: Sequence[range]) -> list[Conversation]:
    """The parts (ranges of exchange numbers) of a checked conversation as conversations of their own.

    Each has the system prompt of the whole and the id `<id>_<start>`, `start` being the number of its first turn in
    the whole, from 0 (the form of FastChat's `split_long_conversation` and of ShareGPT V3).
    """
    turns = conversation.turns
    system = turns[:1] if turns[0].speaker == "system" else ()
    split = []
    for part in parts:
        start, stop = (len(system) + 2 * number for number in (part.start, part.stop))
        part_turns = (*system, *turns[start:stop])
        split.append(replace(conversation, id=f"{conversation.id}_{start}", turns=part_turns))
    return split


def split_over_long(
    tagged: Iterator[tuple[Tag, Conversation]], settings: SplitSettings
) -> Iterator[tuple[Tag, Conversation, SplitResult]]:
    """Split the conversations of more than `settings.max_length` tokens; what comes with each one comes out with it.

    Tokens are those that `data_prep.build_indexed_dataset` writes, so that it has nothing left to split. Raises
    `UserError` for a length under 2, an unknown template, or a tokenizer that does not fit it.
    """
    if settings.max_length < 2:
        raise UserError(f"--max-length {settings.max_length}: expected at least 2 tokens")
    template = get_template(settings.template)
    tokenizer = load_tokenizer(settings.tokenizer)
    check_template_fits(template, tokenizer)
    while batch := list(islice(tagged, BATCH)):
        encoded = encode_conversations((item for _, item in batch), template, tokenizer, settings.system_prompt)
        for (tag, conversation), exchanges in zip(batch, encoded, strict=True):
            lengths = [count_tokens(exchange) for exchange in exchanges]
            if sum(lengths) <= settings.max_length:
                yield tag, conversation, SplitResult(sum(lengths), [conversation])
                continue
            opening = encode_exchanges_as_first(conversation, template, tokenizer, settings.system_prompt)
            borders = part_borders(lengths, [count_tokens(exchange) for exchange in opening], settings.max_length)
            left_out = len(exchanges) - sum(map(len, borders))
            parts = split_conversation(conversation, borders)
            yield tag, conversation, SplitResult(sum(lengths), parts, left_out)
