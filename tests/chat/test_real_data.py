"""The released db split of AgentInstruct under a real 32,000-piece SentencePiece model."""

from pathlib import Path

import pytest

from megatron_agent.chat.conversation import Conversation, check_trainable, read_conversations, split_turns
from megatron_agent.chat.template import TEMPLATES, Exchange, encode_conversations
from megatron_agent.chat.tokenizer import Tokenizer

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
    assert all([*got[1:-1], blank] == ids for got, ids in zip(ours, with_blank, strict=True))
