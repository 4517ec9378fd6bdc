"""The mask pictures: right text, right colour, nothing the text could break out with."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from megatron_agent.chat.conversation import Conversation, Turn
from megatron_agent.chat.template import TEMPLATES, Span, encode_conversation, flatten
from megatron_agent.chat.tokenizer import Tokenizer
from megatron_agent.chat.visualize import (
    CONTEXT_ANSI,
    RESET_ANSI,
    TRAINED_ANSI,
    decode_spans,
    render_terminal,
    show_control_characters,
    token_texts,
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


@pytest.mark.parametrize("kind", ["llama", "smol"])
@given(texts=st.lists(st.text(max_size=40), max_size=4))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_token_texts_join_to_the_document(request: pytest.FixtureRequest, kind: str, texts: list[str]) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(kind)
    ids = [token for text in texts for token in (tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id)]
    found = token_texts(ids, tokenizer)
    assert len(found) == len(ids)
    assert "".join(found) == tokenizer.decode(ids)


@pytest.mark.parametrize("kind", ["llama", "smol"])
def test_a_character_of_several_tokens_belongs_to_the_last(request: pytest.FixtureRequest, kind: str) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(kind)
    found = token_texts(tokenizer.encode("a🎉b\ufffdc"), tokenizer)
    assert [text for text in found if text] in (["a", "🎉", "b", "\ufffd", "c"], ["a", "🎉", "b", "\ufffdc"])
    assert found.index("🎉") >= 4  # three empty tokens between a and the last of its four bytes


@pytest.mark.parametrize("kind", ["llama", "smol"])
def test_replacement_characters_are_decoded_a_few_at_a_time(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Badly decoded files are full of them; decoding all of a run for each took its length squared."""
    tokenizer: Tokenizer = request.getfixturevalue(kind)
    decode, sizes = tokenizer.decode, []
    monkeypatch.setattr(tokenizer, "decode", lambda ids: sizes.append(len(ids)) or decode(ids))
    for text in ("\ufffd" * 200, "a\ufffd🎉\ufffd\ufffd🎉🎉\ufffd b\ufffd\ufffd " * 20):
        ids = tokenizer.encode(text)
        found = token_texts(ids, tokenizer)
        assert max(sizes) < 20
        assert "".join(found) == decode(ids)
        assert max(map(len, found)) <= 3


def test_characters_that_act_are_shown() -> None:
    assert show_control_characters("plain\ttext\n日本語 é 🎉\u00a0") == "plain\ttext\n日本語 é 🎉\u00a0"
    assert show_control_characters("\0\x1b[2J\r\x7f") == "␀␛[2J␍␡"
    shown = show_control_characters("\x9b\u202ex\u2069\u200b\u200f\ufeff\u2028\ud800\U000e0041")
    assert shown == "[U+009B][U+202E]x[U+2069][U+200B][U+200F][U+FEFF][U+2028][U+D800][U+E0041]"
