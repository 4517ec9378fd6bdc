"""Tiny tokenizers and conversation files for the data commands."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.chat.tiny_tokenizers import train_chatml, train_sentencepiece


@pytest.fixture(scope="session")
def sentencepiece_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama-like `tokenizer.model`."""
    return train_sentencepiece(tmp_path_factory.mktemp("sentencepiece"))


@pytest.fixture(scope="session")
def chatml_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny SmolLM2-like tokenizer folder."""
    return train_chatml(tmp_path_factory.mktemp("chatml"))


@pytest.fixture
def write_jsonl(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes records as JSONL (surrogates escaped) and returns the path."""

    def write(name: str, *records: object) -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
        return path

    return write


def record(identifier: str, *texts: str, **fields: Any) -> dict[str, Any]:
    """A record whose turns alternate human, gpt; a text starting with `!` is a gpt turn of context only."""
    turns = []
    for i, text in enumerate(texts):
        loss = None if i % 2 == 0 else not text.startswith("!")
        turns.append({"from": "gpt" if i % 2 else "human", "loss": loss, "value": text.removeprefix("!")})
    return {"conversations": turns, "id": identifier, **fields}
