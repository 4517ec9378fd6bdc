"""Small indexed datasets made on the spot."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from megatron_agent.chat.template import Span
from tests.indexed_datasets import write_spans

MANIFEST_FIELDS = {
    "vocab_size": 1000,
    "tokenizer_name": "tiny",
    "tokenizer_sha256": "a" * 64,
    "template": "llama-2",
    "system_prompt": "Be kind.",
    "max_length": 128,
}


def random_document(generator: np.random.Generator, longest: int = 60) -> list[Span]:
    """One to four exchanges of a context span and an answer that is trained, except perhaps the first."""
    spans = []
    exchanges = int(generator.integers(1, 5))
    for exchange in range(exchanges):
        sizes = generator.integers(1, longest // (2 * exchanges) + 1, 2)
        spans.append(Span(generator.integers(0, 1000, sizes[0]).tolist(), False))
        trained = exchange == exchanges - 1 or bool(generator.integers(0, 2))
        spans.append(Span(generator.integers(0, 1000, sizes[1]).tolist(), trained))
    return spans


@pytest.fixture
def make_dataset(tmp_path: Path) -> Callable[..., str]:
    """Return a function that writes `count` random conversations under a name and returns their prefix."""

    def make(name: str, count: int, seed: int = 0, longest: int = 60, **fields: object) -> str:
        generator = np.random.default_rng([seed, *name.encode()])
        documents = [random_document(generator, longest) for _ in range(count)]
        prefix = tmp_path / name
        write_spans(prefix, documents, **{**MANIFEST_FIELDS, **fields})  # type: ignore[arg-type]
        return str(prefix)

    return make
