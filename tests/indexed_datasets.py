"""Indexed datasets written from spans."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from megatron_agent.chat.template import Span, join_spans
from megatron_agent.dataset.manifest import Manifest
from megatron_agent.dataset.writer import DocumentBatch, lay_out, write_indexed_dataset


def write_spans(
    prefix: str | Path, documents: Iterable[list[Span]], *, vocab_size: int, max_length: int, **fields: Any
) -> Manifest:
    """Write a stream of conversations, two in a batch; neighbouring spans with the same flag become one."""

    def batches() -> Iterator[DocumentBatch]:
        stream = (join_spans((span.ids, span.trained) for span in spans) for spans in documents)
        number = 0
        while chunk := list(islice(stream, 2)):
            yield lay_out(chunk, vocab_size, max_length, number)
            number += len(chunk)

    return write_indexed_dataset(prefix, batches(), vocab_size=vocab_size, max_length=max_length, **fields)
