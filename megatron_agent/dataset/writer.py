"""Conversations to disk, in Megatron-core's IndexedDataset form.

A *document* is a conversation, a *sequence* is a maximal span of tokens with one loss flag, and the sequence's int8
*mode* is that flag (1 trained, 0 context). Tokens and loss mask live in one file pair, so they cannot drift apart,
and any Megatron reader opens it with `IndexedDataset(prefix, multimodal=True)`.
"""

import contextlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from megatron_agent.chat.template import Span
from megatron_agent.dataset.index_file import Index, token_dtype, write_index
from megatron_agent.dataset.manifest import Manifest, dataset_file, manifest_path, write_manifest
from megatron_agent.errors import UserError
from megatron_agent.files import exclusive, fsync_directory, naming, sha256_file

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class DocumentBatch:
    """Conversations laid out one after the other, ready to be appended to a dataset."""

    ids: npt.NDArray[np.integer]
    """`[tokens]`, in the dtype of the files."""
    span_lengths: IntArray
    """`[spans]`, tokens."""
    modes: IntArray
    """`[spans]`: 1 trained, 0 context."""
    document_spans: IntArray
    """`[documents]`: number of spans of each conversation."""


def lay_out(documents: Iterable[list[Span]], vocab_size: int, max_length: int, first: int = 0) -> DocumentBatch:
    """Check conversations, given as maximal spans of one loss flag (`join_spans`), and lay them out.

    Raises :class:`UserError` for a conversation that is empty, has nothing to train on, is longer than `max_length`
    tokens or holds an id outside the vocabulary; `first` is the number that its message gives the first one.
    """
    documents = list(documents)
    document_spans = np.array([len(spans) for spans in documents], dtype=np.int64)
    flat = [span for spans in documents for span in spans]
    span_lengths = np.array([len(span.ids) for span in flat], dtype=np.int64)
    modes = np.array([span.trained for span in flat], dtype=np.int64)
    ids = np.concatenate([np.zeros(0, dtype=np.int64), *(span.ids for span in flat)])
    span_borders = np.concatenate([[0], np.cumsum(document_spans)])
    token_borders = np.concatenate([[0], np.cumsum(span_lengths)])[span_borders]
    lengths = np.diff(token_borders)
    # a conversation's first token has nothing before it to predict it from
    trained = np.diff(np.concatenate([[0], np.cumsum(span_lengths * modes)])[span_borders])
    first_modes = np.concatenate([modes, [0]])[span_borders[:-1]]
    for bad, message in (
        (lengths == 0, "has 0 tokens; drop it, or look at what the template made of it"),
        (
            lengths > max_length,
            f"has {{length:,}} tokens, expected at most {max_length:,}; split or drop it, or raise --seq-length",
        ),
        (trained - first_modes <= 0, "has 0 trained tokens; at least one assistant turn must be trained, or drop it"),
    ):
        if bad.any():
            number = int(np.argmax(bad))
            text = message.format(length=int(lengths[number]))
            raise UserError(f"conversation {first + number} of the stream {text}")
    wrong = np.flatnonzero((ids < 0) | (ids >= vocab_size))
    if len(wrong):
        number = int(np.searchsorted(token_borders, wrong[0], side="right")) - 1
        raise UserError(
            f"conversation {first + number} of the stream holds token id {ids[wrong[0]]}, expected 0 to "
            f"{vocab_size - 1:,}; the tokenizer and the vocabulary size given do not belong together"
        )
    return DocumentBatch(ids.astype(token_dtype(vocab_size)), span_lengths, modes, document_spans)


def write_indexed_dataset(
    prefix: str | Path,
    batches: Iterable[DocumentBatch],
    *,
    vocab_size: int,
    tokenizer_name: str,
    tokenizer_sha256: str,
    template: str,
    system_prompt: str,
    max_length: int,
    dropped: Mapping[str, int] | None = None,
    repaired: Mapping[str, int] | None = None,
    source: Mapping[str, str] | None = None,
) -> Manifest:
    """Write batches as `<prefix>.bin`, `<prefix>.idx` and, last, `<prefix>.manifest.json`.

    `batches` is consumed once, as a stream. `dropped`, `repaired` and `source` are read after the last batch, so a
    generator may still be counting into them. Everything is written under temporary names and renamed at the end:
    stopped at any point, this leaves the old set complete, or a set without a manifest, which is refused when opened.

    Raises :class:`UserError` for no conversations at all, and when another process writes the same set.
    """
    manifest_path(prefix)  # refuses a prefix without a name
    prefix = Path(prefix)
    prefix.parent.mkdir(parents=True, exist_ok=True)
    temporary = {end: prefix.parent / f".{prefix.name}{end}.tmp" for end in (".bin", ".idx")}
    with only_writer(temporary[".bin"], prefix):
        try:
            with naming(dataset_file(prefix, ".bin")):
                index = _write_tokens(temporary[".bin"], batches, token_dtype(vocab_size))
            if len(index.document_borders) == 1:
                raise UserError(
                    f"no conversations left for {prefix}: expected at least one; dropped by rule: {dict(dropped or {})}"
                )
            with naming(dataset_file(prefix, ".idx")), open(temporary[".idx"], "wb") as handle:
                write_index(handle, index)
            for path in temporary.values():
                _sync(path)
            manifest = Manifest(
                num_documents=len(index.document_borders) - 1,
                num_spans=len(index.span_lengths),
                num_tokens=int(index.span_lengths.sum()),
                num_trained_tokens=int((index.span_lengths * index.modes).sum()),
                vocab_size=vocab_size,
                tokenizer_name=tokenizer_name,
                tokenizer_sha256=tokenizer_sha256,
                template=template,
                system_prompt=system_prompt,
                max_length=max_length,
                bin_bytes=temporary[".bin"].stat().st_size,
                idx_bytes=temporary[".idx"].stat().st_size,
                bin_sha256=sha256_file(temporary[".bin"]),
                idx_sha256=sha256_file(temporary[".idx"]),
                dropped=dict(dropped or {}),
                repaired=dict(repaired or {}),
                source=dict(source or {}),
            )
            # The old manifest goes first: until the new one is there, the set is refused, never mixed up.
            manifest_path(prefix).unlink(missing_ok=True)
            fsync_directory(prefix.parent)
            for end, path in temporary.items():
                os.replace(path, dataset_file(prefix, end))
            fsync_directory(prefix.parent)
            write_manifest(prefix, manifest)
        finally:
            for path in temporary.values():
                path.unlink(missing_ok=True)
    return manifest


def only_writer(path: Path, prefix: Path) -> contextlib.AbstractContextManager[None]:
    """Lock the file at `path`, so that two writers of the dataset at `prefix` never share it."""
    mend = "wait for it, or choose another --output-prefix"
    return exclusive(path, f"another process is writing the dataset {prefix} now ({path} is locked); {mend}")


def _write_tokens(path: Path, batches: Iterable[DocumentBatch], dtype: type[np.integer]) -> Index:
    """Write the ids of all batches to the locked file at `path`; return the index that belongs to them."""
    span_lengths, modes, document_spans = [], [], [np.zeros(1, dtype=np.int64)]
    with open(path, "r+b") as handle:  # the locked file itself: a new one would have no lock
        handle.truncate()
        for batch in batches:
            handle.write(batch.ids.astype(dtype, copy=False).data)
            span_lengths.append(batch.span_lengths)
            modes.append(batch.modes)
            document_spans.append(batch.document_spans)
    nothing = np.zeros(0, dtype=np.int64)
    borders = np.cumsum(np.concatenate(document_spans))
    return Index(dtype, np.concatenate([nothing, *span_lengths]), borders, np.concatenate([nothing, *modes]))


def _sync(path: Path) -> None:
    with open(path, "rb") as handle:
        os.fsync(handle.fileno())
