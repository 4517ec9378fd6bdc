"""Conversations of an indexed dataset, read from disk (`writer.py` says what the files hold).

Read with numpy alone: Megatron-core checks neither the size of the `.bin` file nor anything in the `.idx` file beyond
its magic number, its views crash the interpreter once the dataset object is gone, and importing it loads torch,
which a plan does not need.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from megatron_agent.chat.template import Span
from megatron_agent.dataset.index_file import read_index
from megatron_agent.dataset.manifest import REBUILD, dataset_file, manifest_path, read_manifest
from megatron_agent.errors import UserError
from megatron_agent.files import sha256_file

IntArray = npt.NDArray[np.int64]


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
        index = read_index(idx_path)
        self.span_lengths, self.span_borders, self.modes = index.span_lengths, index.document_borders, index.modes
        token_borders = np.concatenate([[0], np.cumsum(self.span_lengths)])
        self.borders = token_borders[self.span_borders]  # [documents + 1], in tokens
        self.lengths: IntArray = np.diff(self.borders)
        trained_borders = np.concatenate([[0], np.cumsum(self.span_lengths * self.modes)])
        self.trained_lengths: IntArray = np.diff(trained_borders[self.span_borders])

        manifest = self.manifest
        found = {
            "bytes of tokens": (manifest.bin_bytes, int(token_borders[-1]) * np.dtype(index.dtype).itemsize),
            "conversations": (manifest.num_documents, len(self.lengths)),
            "spans": (manifest.num_spans, len(self.span_lengths)),
            "tokens": (manifest.num_tokens, int(token_borders[-1])),
            "trained tokens": (manifest.num_trained_tokens, int(trained_borders[-1])),
        }
        for what, (expected, got) in found.items():
            if expected != got:
                raise UserError(f"{idx_path}: expected {expected:,} {what}, the index gives {got:,}; {REBUILD}")
        self.tokens: npt.NDArray[np.integer] = np.memmap(bin_path, dtype=index.dtype, mode="r")
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
        ids = np.array(self.tokens[self.borders[i] : self.borders[i + 1]])
        pieces = np.split(ids, np.cumsum(self.span_lengths[spans])[:-1])
        return [Span(piece, bool(mode)) for piece, mode in zip(pieces, self.modes[spans], strict=True)]

    def _check_number(self, i: int) -> None:
        if not 0 <= i < len(self):
            raise UserError(f"{self.prefix}: conversation {i} asked for, expected 0 to {len(self) - 1:,}")


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
