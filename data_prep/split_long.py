"""Over-long conversations, split at the borders of exchanges; nothing is ever cut inside an answer."""

from collections import Counter

from megatron_agent.chat.template import Exchange, Span, count_tokens, flatten


def split_at_exchanges(
    exchanges: list[Exchange], as_first: list[Exchange], limit: int
) -> tuple[list[list[Span]], Counter[str]]:
    """Split one conversation greedily into parts of at most `limit` tokens.

    `exchanges` are encoded as they follow each other, `as_first[k]` is exchange k encoded with the system prompt
    before it: the form in which it opens a part. Returns the parts as documents, and what was left out by rule:

    * `exchange_over_length`: an exchange that is longer than `limit` on its own (the part before it ends there);
    * `part_without_trained_turn`: a part in which every answer is context only.
    """
    parts: list[list[Exchange]] = []
    dropped: Counter[str] = Counter()
    room = 0  # in the part that is open; 0 when none is
    for following, opening in zip(exchanges, as_first, strict=True):
        length = count_tokens(following)
        if room and length <= room:
            parts[-1].append(following)
            room -= length
        elif count_tokens(opening) <= limit:
            parts.append([opening])
            room = limit - count_tokens(opening)
        else:
            dropped["exchange_over_length"] += 1
            room = 0
    documents = [flatten(part) for part in parts]
    kept = [spans for spans in documents if any(span.trained for span in spans)]
    dropped["part_without_trained_turn"] += len(documents) - len(kept)
    return kept, +dropped
