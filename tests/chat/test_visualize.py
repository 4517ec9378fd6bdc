"""The mask pictures: right text, right colour, nothing the text could break out with."""

import re
from html import unescape

import pytest

from megatron_agent.chat.conversation import Conversation, Turn
from megatron_agent.chat.template import TEMPLATES, Span, encode_conversation, flatten
from megatron_agent.chat.tokenizer import Tokenizer
from megatron_agent.chat.visualize import (
    CONTEXT_ANSI,
    RESET_ANSI,
    TRAINED_ANSI,
    decode_spans,
    render_html,
    render_terminal,
)

HOSTILE = Conversation(
    "h",
    (
        Turn("human", "\x1b[31mred\x07 <script>alert(1)</script> </span> \x9b2J"),
        Turn("gpt", "Ok.", loss=False),
        Turn("human", "go"),
        Turn("gpt", "é\n\tdone"),
    ),
)


@pytest.fixture
def spans(llama: Tokenizer) -> list[Span]:
    return flatten(encode_conversation(HOSTILE, TEMPLATES["llama-2"], llama, system_prompt=""))


def test_spans_read_as_in_the_document(llama: Tokenizer, spans: list[Span]) -> None:
    assert decode_spans(spans, llama)[1] == " é\n\tdone</s>"  # with the blank after [/INST]
    assert "".join(decode_spans(spans, llama)) == llama.decode([i for span in spans for i in span.ids])


def test_terminal_colours_and_harmless_text(llama: Tokenizer, spans: list[Span]) -> None:
    shown = render_terminal(spans, llama)
    assert f"{TRAINED_ANSI} é\n\tdone</s>{RESET_ANSI}" in shown
    assert shown.startswith(f"{CONTEXT_ANSI}<s>[INST] ␛[31mred␇")
    assert shown.count("\x1b") == 4  # ours only
    assert "\x9b" not in shown


def test_html_is_escaped_and_counted(llama: Tokenizer, spans: list[Span]) -> None:
    page = render_html([("<title & more>", spans), ("second", spans)], llama)
    assert "<script>" not in page
    assert "&lt;title &amp; more&gt;" in page
    total, trained = (sum(len(s.ids) for s in spans if s.trained or not only) for only in (False, True))
    assert page.count(f"{total:,} tokens, {trained:,} trained") == 2
    body = re.findall(
        r'<pre><span class="context">(.*?)</span><span class="trained">(.*?)</span></pre>', page, re.DOTALL
    )
    assert len(body) == 2
    assert unescape(body[0][1]) == " é\n\tdone</s>"
