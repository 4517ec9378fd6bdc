"""Show which tokens a model is trained on: one colour for trained tokens, another for context.

The most useful check of a chat data set is to look at it (nanochat's `visualize_tokenization` is the model).
"""

import functools
import unicodedata
from collections.abc import Sequence

from megatron_agent.chat.template import Span
from megatron_agent.chat.tokenizer import Tokenizer

REST_OF_CHARACTER = 3  # tokens: UTF-8 has at most 4 bytes
TRAINED_ANSI, CONTEXT_ANSI, RESET_ANSI = "\x1b[1;32m", "\x1b[2m", "\x1b[0m"


def token_texts(ids: Sequence[int], tokenizer: Tokenizer) -> list[str]:
    """Return the text of each token as it reads in the document; the texts join to the decoded document.

    A token decoded alone would lose the blank before it (SentencePiece), so its text is what it adds to the one
    before. A character that is spread over several tokens (byte pieces) belongs to the last of them; the others are
    empty.
    """
    decode = functools.lru_cache(maxsize=1 << 18)(tokenizer.decode)  # pairs of tokens recur
    texts: list[str] = []
    start = 0  # tokens from here are decoded again, as the context of the next one
    done = 0  # tokens before this one have their text
    for end in range(1, len(ids) + 1):
        whole = decode(tuple(ids[start:end]))
        added = whole[len(decode(tuple(ids[start:done]))) :]
        if added.endswith("\ufffd") and end < len(ids) and ids[end] not in tokenizer.control_ids:
            # The first bytes of a character, or a real U+FFFD: the former reads otherwise once the character is whole.
            following = [tuple(ids[end : end + more]) for more in range(1, REST_OF_CHARACTER + 1)]
            if any(decode((*ids[start:end], *after)) != whole + decode(after) for after in following):
                texts.append("")
                continue
        texts.append(added)
        start, done = done, end
    return texts


def decode_spans(spans: Sequence[Span], tokenizer: Tokenizer) -> list[str]:
    """Decode each span as it reads inside its exchange; the texts join to the decoded document."""
    texts = iter(token_texts([token for span in spans for token in span.ids.tolist()], tokenizer))
    return ["".join(next(texts) for _ in span.ids) for span in spans]


def render_terminal(spans: Sequence[Span], tokenizer: Tokenizer) -> str:
    """Return the document with ANSI colours: trained tokens bold green, context dim.

    Control characters of the text (escape sequences of recorded terminals) are shown as symbols, never sent.
    """
    coloured = (
        f"{TRAINED_ANSI if span.trained else CONTEXT_ANSI}{show_control_characters(text)}{RESET_ANSI}"
        for span, text in zip(spans, decode_spans(spans, tokenizer), strict=True)
    )
    return "".join(coloured)


def show_control_characters(text: str) -> str:
    """Replace characters that act instead of being seen by visible symbols; tabs and newlines stay.

    ASCII controls become their pictures (ESC becomes U+241B). Other controls, characters that turn the direction of
    writing around, zero-width ones, line separators and lone surrogates become `[U+202E]` and the like.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_visible, text))


@functools.cache
def _visible(character: str) -> str:
    code = ord(character)
    if character in "\t\n":
        return character
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    hidden = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    return f"[U+{code:04X}]" if hidden else character
