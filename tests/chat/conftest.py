"""Tokenizers for the chat tests: two tiny ones, and a real SentencePiece model when it is installed."""

import importlib.util
from pathlib import Path

import pytest

from megatron_agent.chat.tokenizer import Tokenizer, load_tokenizer
from tests.chat.tiny_tokenizers import train_chatml, train_llama3, train_sentencepiece


@pytest.fixture(scope="session")
def sentencepiece_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama-like `tokenizer.model`."""
    return train_sentencepiece(tmp_path_factory.mktemp("sentencepiece"))


@pytest.fixture(scope="session")
def llama(sentencepiece_file: Path) -> Tokenizer:
    """The tiny Llama-like tokenizer."""
    return load_tokenizer(sentencepiece_file)


@pytest.fixture(scope="session")
def chatml_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny SmolLM2-like tokenizer folder."""
    return train_chatml(tmp_path_factory.mktemp("chatml"))


@pytest.fixture(scope="session")
def smol(chatml_folder: Path) -> Tokenizer:
    """The tiny SmolLM2-like tokenizer."""
    return load_tokenizer(chatml_folder)


@pytest.fixture(scope="session")
def llama3_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama-3-like tokenizer folder."""
    return train_llama3(tmp_path_factory.mktemp("llama3"))


@pytest.fixture(scope="session")
def real_sentencepiece() -> Tokenizer:
    """A real 32,000-piece model of Llama-2's shape: `tokenizer.model.v1` in the package mistral-common."""
    spec = importlib.util.find_spec("mistral_common")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("mistral-common is not installed; pip install --no-deps mistral-common==1.13.1")
    return load_tokenizer(Path(spec.submodule_search_locations[0]) / "data" / "tokenizer.model.v1")
