"""Templates against truth from outside: Meta's rule, FastChat's text, transformers' chat template."""

from pathlib import Path

import pytest

from megatron_agent.chat.conversation import Conversation, Turn, split_turns
from megatron_agent.chat.template import (
    TEMPLATES,
    Exchange,
    Span,
    check_template_fits,
    count_tokens,
    encode_conversation,
    encode_conversations,
    encode_exchanges_as_first,
    encode_prompt,
    flatten,
    get_template,
)
from megatron_agent.chat.tokenizer import Tokenizer, load_tokenizer
from megatron_agent.chat.visualize import decode_spans
from megatron_agent.errors import UserError

LLAMA, CHATML = TEMPLATES["llama-2"], TEMPLATES["chatml"]
SYSTEM = "You are a helpful, respectful and honest assistant."

# SmolLM2-135M-Instruct's chat template, as its tokenizer_config.json has it.
SMOLLM2_JINJA = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}"
    "{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

# Meta-Llama-3-8B-Instruct's.
LLAMA3_JINJA = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + "
    "message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}"
    "{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)

CONVERSATION = Conversation(
    "demo",
    (
        Turn("human", " Read the rules.\n"),
        Turn("gpt", "Ok.", loss=False),
        Turn("human", "How many rows are there?\n\n    two  blanks"),
        Turn("gpt", "\n  There are 12 rows.\n", loss=True),
        Turn("human", "Sure? {gpt} {system} 漢 🙂"),
        Turn("gpt", "Yes {human}, é.", loss=None),
    ),
)


def ids_of(exchanges: list[Exchange]) -> list[int]:
    return [token for exchange in exchanges for span in exchange for token in span.ids]


def trained_text(exchanges: list[Exchange], tokenizer: Tokenizer) -> list[str]:
    return [tokenizer.decode(span.ids) for exchange in exchanges for span in exchange if span.trained]


def fastchat_llama2(system: str, turns: list[str], open_slot: bool) -> str:
    """FastChat v0.2.31 `Conversation.get_prompt`, style LLAMA2, written from its description."""
    separators = [" ", " </s><s>"]
    text = f"[INST] <<SYS>>\n{system}\n<</SYS>>\n\n" if system else "[INST] "
    for i, message in enumerate(turns):
        tag = ("[INST]", "[/INST]")[i % 2]
        text += f"{message} " if i == 0 else f"{tag} {message}{separators[i % 2]}"
    return text + "[/INST]" if open_slot else text


def test_llama2_ids_are_metas_rule(llama: Tokenizer) -> None:
    """Meta's `chat_completion`: BOS + encode("[INST] u [/INST] a") + EOS, each exchange one string."""
    encoded = encode_conversation(CONVERSATION, LLAMA, llama)
    system, pairs = split_turns(CONVERSATION)
    assert system is None
    for number, ((human, gpt), exchange) in enumerate(zip(pairs, encoded, strict=True)):
        block = f"<<SYS>>\n{SYSTEM}\n<</SYS>>\n\n" if number == 0 else ""
        joint = llama.encode(f"[INST] {block}{human.value.strip()} [/INST] {gpt.value.strip()}")
        assert ids_of([exchange]) == [llama.bos_id, *joint, llama.eos_id]
        # Meta's trailing blank, left out on purpose, would be exactly one id before EOS
        with_blank = llama.encode(f"[INST] {block}{human.value.strip()} [/INST] {gpt.value.strip()} ")
        assert with_blank[:-1] == joint


def test_llama2_flags_and_end_tokens(llama: Tokenizer) -> None:
    encoded = encode_conversation(CONVERSATION, LLAMA, llama)
    assert [[span.trained for span in exchange] for exchange in encoded] == [[False], [False, True], [False, True]]
    assert trained_text(encoded, llama) == ["There are 12 rows.</s>", "Yes {human}, é.</s>"]
    assert encoded[0][-1].ids[-1] == llama.eos_id  # the context answer ends too, untrained
    spans = flatten(encoded)
    assert [span.trained for span in spans] == [False, True, False, True]  # maximal: no equal neighbours
    assert count_tokens(spans) == len(ids_of(encoded))


@pytest.mark.parametrize("system", [SYSTEM, "", "Answer in {human} <</SYS>> words."])
def test_llama2_text_is_fastchats(llama: Tokenizer, system: str) -> None:
    """Equal as text, but for the blank that FastChat writes before `</s>`."""
    turns = [turn.value.strip() for turn in CONVERSATION.turns]
    complete = llama.decode(ids_of(encode_conversation(CONVERSATION, LLAMA, llama, system)))
    expected = fastchat_llama2(system, turns, open_slot=False).replace(" </s><s>", "</s><s>")
    assert complete + "<s>" == "<s>" + expected
    prompt = llama.decode(encode_prompt(CONVERSATION.turns[:5], LLAMA, llama, system))
    assert prompt == "<s>" + fastchat_llama2(system, turns[:5], open_slot=True).replace(" </s><s>", "</s><s>")


@pytest.mark.parametrize("own_system", [None, "Be brief, please."])
def test_chatml_ids_are_transformers(smol: Tokenizer, chatml_folder: object, own_system: str | None) -> None:
    """Truth: `apply_chat_template` of SmolLM2's template with the same tokenizer."""
    from transformers import PreTrainedTokenizerFast

    reference = PreTrainedTokenizerFast.from_pretrained(str(chatml_folder))
    turns = CONVERSATION.turns if own_system is None else (Turn("system", own_system), *CONVERSATION.turns)
    roles = {"human": "user", "gpt": "assistant", "system": "system"}
    messages = [{"role": roles[turn.speaker], "content": turn.value.strip()} for turn in turns]

    def apply(count: int, generation: bool) -> list[int]:
        ids: list[int] = reference.apply_chat_template(
            messages[:count],
            chat_template=SMOLLM2_JINJA,
            add_generation_prompt=generation,
            tokenize=True,
            return_dict=False,
        )
        return ids

    encoded = encode_conversation(Conversation("x", turns), CHATML, smol)
    assert ids_of(encoded) == apply(len(messages), generation=False)
    assert encode_prompt(turns[:-1], CHATML, smol) == apply(len(messages) - 1, generation=True)
    assert trained_text(encoded, smol) == ["There are 12 rows.<|im_end|>", "Yes {human}, é.<|im_end|>"]
    assert [[span.trained for span in e] for e in encoded] == [[False], [False, True, False], [False, True, False]]


@pytest.mark.parametrize("system", ["", "Be brief, please."])
def test_llama3_ids_are_transformers(llama3_folder: Path, system: str) -> None:
    """Truth: `apply_chat_template` of Llama-3's template with the same tokenizer."""
    from transformers import PreTrainedTokenizerFast

    reference = PreTrainedTokenizerFast.from_pretrained(str(llama3_folder))
    tokenizer = load_tokenizer(llama3_folder)
    roles = {"human": "user", "gpt": "assistant"}
    messages = [{"role": "system", "content": system}] if system else []
    messages += [{"role": roles[turn.speaker], "content": turn.value.strip()} for turn in CONVERSATION.turns]

    def apply(count: int, generation: bool) -> list[int]:
        ids: list[int] = reference.apply_chat_template(
            messages[:count],
            chat_template=LLAMA3_JINJA,
            add_generation_prompt=generation,
            tokenize=True,
            return_dict=False,
        )
        return ids

    template = TEMPLATES["llama-3"]
    encoded = encode_conversation(CONVERSATION, template, tokenizer, system)
    assert ids_of(encoded) == apply(len(messages), generation=False)
    assert encode_prompt(CONVERSATION.turns[:-1], template, tokenizer, system) == apply(len(messages) - 1, True)
    assert trained_text(encoded, tokenizer) == ["There are 12 rows.<|eot_id|>", "Yes {human}, é.<|eot_id|>"]


@pytest.mark.parametrize(("name", "template"), [("llama", LLAMA), ("smol", CHATML)])
def test_prompt_is_what_training_puts_before_the_answer(
    name: str, template: object, request: pytest.FixtureRequest
) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(name)
    exchanges = encode_conversation(CONVERSATION, template, tokenizer)  # type: ignore[arg-type]
    before_last_answer = ids_of(exchanges[:-1]) + exchanges[-1][0].ids.tolist()
    assert encode_prompt(CONVERSATION.turns[:-1], template, tokenizer) == before_last_answer  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "template", "without"),
    [
        ("llama", "llama-2", "<s>[INST] q [/INST] a</s>"),
        ("smol", "chatml", "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n"),
    ],
)
def test_system_prompt_precedence(name: str, template: str, without: str, request: pytest.FixtureRequest) -> None:
    """The conversation's own goes before the caller's, the caller's before the template's; empty means none."""
    tokenizer: Tokenizer = request.getfixturevalue(name)
    turns = (Turn("human", "q"), Turn("gpt", "a"))
    own = Conversation("own", (Turn("system", "OWN"), *turns))
    bare = Conversation("bare", turns)

    def text(conversation: Conversation, given: str | None) -> str:
        exchanges = encode_conversation(conversation, get_template(template), tokenizer, given)
        return "".join(decode_spans(flatten(exchanges), tokenizer))

    assert "OWN" in text(own, "GIVEN")
    assert "GIVEN" not in text(own, "GIVEN")
    assert "GIVEN" in text(bare, "GIVEN")
    assert get_template(template).system_prompt in text(bare, None)
    assert text(bare, "") == without


def test_batch_is_the_one_by_one_encoding(llama: Tokenizer) -> None:
    conversations = [
        CONVERSATION,
        Conversation("b", (Turn("system", "S"), Turn("human", "Read the rules."), Turn("gpt", "Ok."))),
        CONVERSATION,
    ]
    assert encode_conversations(conversations, LLAMA, llama) == [
        encode_conversation(conversation, LLAMA, llama) for conversation in conversations
    ]
    assert encode_conversations([], LLAMA, llama) == []


def test_every_exchange_as_an_opening(llama: Tokenizer) -> None:
    as_first = encode_exchanges_as_first(CONVERSATION, LLAMA, llama)
    _, pairs = split_turns(CONVERSATION)
    for (human, gpt), exchange in zip(pairs, as_first, strict=True):
        assert [exchange] == encode_conversation(Conversation("x", (human, gpt)), LLAMA, llama)


def test_spans_are_never_shared(llama: Tokenizer) -> None:
    """Equal texts are encoded once; changing one span must not change another."""
    twice = Conversation("t", (Turn("human", "q"), Turn("gpt", "a"), Turn("human", "q"), Turn("gpt", "a")))
    first, second = encode_conversation(twice, LLAMA, llama, system_prompt="")
    first[0].ids[:] = 0
    assert second[0].ids.all()
    assert flatten([[Span([1], False)], [Span([2], False), Span([3], True)]]) == [Span([1, 2], False), Span([3], True)]


def test_misuse_is_named(llama: Tokenizer, smol: Tokenizer) -> None:
    with pytest.raises(UserError, match="unknown chat template 'vicuna'; expected one of llama-2, chatml, llama-3"):
        get_template("vicuna")
    with pytest.raises(UserError, match=r"template 'chatml' does not fit the tokenizer: .*'<\|im_start\|>'"):
        encode_conversation(CONVERSATION, CHATML, llama)
    with pytest.raises(UserError, match="template 'chatml' does not fit"):
        check_template_fits(CHATML, llama)
    check_template_fits(CHATML, smol)
    with pytest.raises(UserError, match="conversation 'g': the first turn"):
        encode_conversation(Conversation("g", (Turn("gpt", "x"),)), LLAMA, llama)
    with pytest.raises(UserError, match="expected the last turn to be human, got gpt"):
        encode_prompt(CONVERSATION.turns, LLAMA, llama)
    with pytest.raises(UserError, match="got nothing"):
        encode_prompt([], LLAMA, llama)
