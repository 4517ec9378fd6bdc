"""Conversations on disk, in Megatron-core's IndexedDataset form.

A *document* is a conversation, a *sequence* is a maximal span of tokens with one loss flag, and the
sequence's int8 *mode* is that flag (1 trained, 0 context). Tokens and loss mask live in one file pair, so they
cannot drift apart, and any Megatron reader opens it with `IndexedDataset(prefix, multimodal=True)`.

Files are written with Megatron-core's own builder. They are read here with numpy alone: core checks neither
the size of the `.bin` file nor anything in the `.idx` file beyond its magic number, its views crash the
interpreter once the dataset object is gone, and importing it loads torch, which a plan does not need.
"""

import contextlib
import fcntl
import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from megatron_agent.chat.template import Span
from megatron_agent.dataset.manifest import (
    REBUILD,
    Manifest,
    dataset_file,
    manifest_path,
    read_manifest,
    write_manifest,
)
from megatron_agent.errors import UserError
from megatron_agent.files import fsync_directory, sha256_file

INDEX_HEADER = struct.Struct("<9sQBQQ")  # magic, version, dtype code, sequences, document boundaries
INDEX_MAGIC = b"MMIDIDX\x00\x00"
INDEX_DTYPES: dict[int, type[np.number]] = {4: np.int32, 8: np.uint16}  # by Megatron-core's code

IntArray = npt.NDArray[np.int64]


def write_indexed_dataset(
    prefix: str | Path,
    documents: Iterable[list[Span]],
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
    """Write conversations as `<prefix>.bin`, `<prefix>.idx` and, last, `<prefix>.manifest.json`.

    `documents` is consumed once, as a stream; neighbouring spans with the same flag become one. `dropped` and
    `repaired` are read after the last document, so a generator may still be counting into them. Ids are stored
    as uint16 below a vocabulary of 65,500, as int32 from there on (Megatron-core's rule).

    Everything is written under temporary names and renamed at the end: stopped at any point, this leaves the
    old set complete, or a set without a manifest, which :class:`ConversationDataset` refuses.

    Raises :class:`UserError` for a conversation that is empty, has nothing to train on, is longer than
    `max_length` or holds an id outside the vocabulary; for no conversations at all; and when another process
    writes the same set.
    """
    import megatron.core
    from megatron.core.datasets.indexed_dataset import DType, IndexedDatasetBuilder

    manifest_path(prefix)  # refuses a prefix without a name
    prefix = Path(prefix)
    prefix.parent.mkdir(parents=True, exist_ok=True)
    temporary = {end: prefix.parent / f".{prefix.name}{end}.tmp" for end in (".bin", ".idx")}
    with _exclusive(temporary[".bin"], prefix):
        try:
            builder = IndexedDatasetBuilder(
                str(temporary[".bin"]), dtype=DType.optimal_dtype(vocab_size), multimodal=True
            )
            num_documents = num_spans = num_tokens = num_trained_tokens = 0
            with builder.data_file:  # closed even when a document is refused
                for number, spans in enumerate(documents):
                    ids, lengths, modes = _document_arrays(spans, number, vocab_size, max_length)
                    builder.add_document(ids, lengths.tolist(), modes.tolist())
                    num_documents += 1
                    num_spans += len(lengths)
                    num_tokens += len(ids)
                    num_trained_tokens += int(lengths[modes == 1].sum())
            if num_documents == 0:
                raise UserError(
                    f"no conversations left for {prefix}: expected at least one; dropped by rule: {dict(dropped or {})}"
                )
            builder.finalize(str(temporary[".idx"]))
            for path in temporary.values():
                _sync(path)
            manifest = Manifest(
                num_documents=num_documents,
                num_spans=num_spans,
                num_tokens=num_tokens,
                num_trained_tokens=num_trained_tokens,
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
                megatron_core_version=megatron.core.__version__,
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


class ConversationDataset:
    """The conversations at `prefix`, memory-mapped; opened only when the three files agree.

    Always checked: the manifest, the sizes of both files and the consistency of the index. With `verify`, the
    sha256 of both files too (about 1 GB/s). Raises :class:`UserError` naming the file and the mend.

    `lengths` and `trained_lengths` hold tokens per conversation, int64.
    """

    def __init__(self, prefix: str | Path, verify: bool = True, name: str | None = None) -> None:
        self.prefix = str(prefix)
        self.name = name or Path(prefix).name
        self.manifest = read_manifest(prefix)
        bin_path, idx_path = dataset_file(prefix, ".bin"), dataset_file(prefix, ".idx")
        _check_size(bin_path, self.manifest.bin_bytes)
        _check_size(idx_path, self.manifest.idx_bytes)
        if verify:
            _check_sha256(bin_path, self.manifest.bin_sha256)
            _check_sha256(idx_path, self.manifest.idx_sha256)
        dtype, self.span_lengths, pointers, self.span_borders, self.modes = _read_index(idx_path)
        itemsize = np.dtype(dtype).itemsize
        token_borders = np.concatenate([[0], np.cumsum(self.span_lengths)])
        self.borders = token_borders[self.span_borders]  # [documents + 1], in tokens
        self.lengths: IntArray = np.diff(self.borders)
        trained_borders = np.concatenate([[0], np.cumsum(self.span_lengths * self.modes)])
        self.trained_lengths: IntArray = np.diff(trained_borders[self.span_borders])

        manifest = self.manifest
        found = {
            "bytes of tokens": (manifest.bin_bytes, int(token_borders[-1]) * itemsize),
            "conversations": (manifest.num_documents, len(self.lengths)),
            "spans": (manifest.num_spans, len(self.span_lengths)),
            "tokens": (manifest.num_tokens, int(token_borders[-1])),
            "trained tokens": (manifest.num_trained_tokens, int(trained_borders[-1])),
        }
        for what, (expected, got) in found.items():
            if expected != got:
                raise UserError(f"{idx_path}: expected {expected:,} {what}, the index gives {got:,}; {REBUILD}")
        if not np.array_equal(pointers, token_borders[:-1] * itemsize):
            raise UserError(f"{idx_path}: its offsets do not follow from its lengths; {REBUILD}")
        self.tokens: npt.NDArray[np.integer] = np.memmap(bin_path, dtype=dtype, mode="r")
        if read_manifest(prefix) != manifest:
            raise UserError(f"{manifest_path(prefix)}: changed while the dataset was being opened; run this again")

    def __len__(self) -> int:
        return len(self.lengths)

    def document(self, i: int) -> tuple[IntArray, npt.NDArray[np.bool_]]:
        """Return conversation `i` as `(ids, trained)`, both `[n]`: token ids and whether each is trained."""
        self._check_number(i)
        spans = slice(self.span_borders[i], self.span_borders[i + 1])
        ids = self.tokens[self.borders[i] : self.borders[i + 1]].astype(np.int64)
        return ids, np.repeat(self.modes[spans] == 1, self.span_lengths[spans])

    def spans(self, i: int) -> list[Span]:
        """Return conversation `i` as its maximal spans of one loss flag."""
        self._check_number(i)
        spans = slice(self.span_borders[i], self.span_borders[i + 1])
        ids = self.tokens[self.borders[i] : self.borders[i + 1]]
        pieces = np.split(ids, np.cumsum(self.span_lengths[spans])[:-1])
        return [Span(piece.tolist(), bool(mode)) for piece, mode in zip(pieces, self.modes[spans], strict=True)]

    def _check_number(self, i: int) -> None:
        if not 0 <= i < len(self):
            raise UserError(f"{self.prefix}: conversation {i} asked for, expected 0 to {len(self) - 1:,}")


def _document_arrays(
    spans: list[Span], number: int, vocab_size: int, max_length: int
) -> tuple[IntArray, IntArray, IntArray]:
    """Check one conversation; return its ids, and the lengths and modes of its maximal spans."""
    ids = np.array([token for span in spans for token in span.ids], dtype=np.int64)
    flags = np.repeat([int(span.trained) for span in spans], [len(span.ids) for span in spans])
    where = f"conversation {number} of the stream"
    if len(ids) == 0:
        raise UserError(f"{where} has 0 tokens; drop it, or look at what the template made of it")
    if len(ids) > max_length:
        raise UserError(
            f"{where} has {len(ids):,} tokens, expected at most {max_length:,}; split or drop it, or raise --seq-length"
        )
    if not flags[1:].any():  # a conversation's first token has nothing before it to predict it from
        raise UserError(f"{where} has 0 trained tokens; at least one assistant turn must be trained, or drop it")
    if ids.min() < 0 or ids.max() >= vocab_size:
        wrong = int(ids[(ids < 0) | (ids >= vocab_size)][0])
        raise UserError(
            f"{where} holds token id {wrong}, expected 0 to {vocab_size - 1:,}; the tokenizer and the "
            "vocabulary size given do not belong together"
        )
    borders = np.concatenate([[0], np.flatnonzero(np.diff(flags)) + 1, [len(flags)]])
    return ids, np.diff(borders), flags[borders[:-1]]


@contextlib.contextmanager
def _exclusive(path: Path, prefix: Path) -> Iterator[None]:
    """Lock the temporary file at `path`, so that two writers never share it; a dead writer's lock is gone."""
    with open(path, "ab") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"another process is writing the dataset {prefix} now ({path} is locked); wait for it, "
                "or choose another --output-prefix"
            ) from None
        yield


def _sync(path: Path) -> None:
    with open(path, "rb") as handle:
        os.fsync(handle.fileno())


def _check_size(path: Path, expected: int) -> None:
    if not path.exists():
        raise UserError(f"{path}: missing, its manifest expects {expected:,} bytes; {REBUILD}")
    if path.stat().st_size != expected:
        raise UserError(
            f"{path}: expected {expected:,} bytes, got {path.stat().st_size:,}: the file was cut; {REBUILD}"
        )


def _check_sha256(path: Path, expected: str) -> None:
    found = sha256_file(path)
    if found != expected:
        raise UserError(
            f"{path}: expected sha256 {expected[:16]}..., got {found[:16]}...: altered after it was written; " + REBUILD
        )


def _read_index(path: Path) -> tuple[type[np.number], IntArray, IntArray, IntArray, IntArray]:
    """Read a `.idx` file: dtype, span lengths, span offsets (bytes), document borders (spans), modes."""
    content = path.read_bytes()
    if len(content) < INDEX_HEADER.size:
        raise UserError(f"{path}: {len(content)} bytes are too few for a Megatron index; {REBUILD}")
    magic, version, code, num_spans, num_borders = INDEX_HEADER.unpack_from(content)
    if magic != INDEX_MAGIC or version != 1 or code not in INDEX_DTYPES:
        raise UserError(f"{path}: not a Megatron index of token ids (magic, version or dtype differ); {REBUILD}")
    expected = INDEX_HEADER.size + num_spans * (4 + 8 + 1) + num_borders * 8
    if len(content) != expected:
        raise UserError(f"{path}: its header promises {expected:,} bytes, got {len(content):,}; {REBUILD}")
    offset = INDEX_HEADER.size
    arrays = []
    layout = ((np.int32, num_spans), (np.int64, num_spans), (np.int64, num_borders), (np.int8, num_spans))
    for dtype, count in layout:
        arrays.append(np.frombuffer(content, dtype, count, offset).astype(np.int64))
        offset += count * np.dtype(dtype).itemsize
    lengths, pointers, borders, modes = arrays
    if (
        num_borders < 2
        or borders[0] != 0
        or borders[-1] != num_spans
        or (np.diff(borders) <= 0).any()
        or (lengths <= 0).any()
        or not np.isin(modes, (0, 1)).all()
    ):
        raise UserError(f"{path}: lengths, borders or loss flags are out of range; {REBUILD}")
    return INDEX_DTYPES[code], lengths, pointers, borders, modes
