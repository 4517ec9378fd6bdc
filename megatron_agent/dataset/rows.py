"""Packed rows: what the training loop reads."""

import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from megatron_agent.dataset.config import DataConfig
from megatron_agent.dataset.draws import DrawSource, draws_for_token_shares, split_documents
from megatron_agent.dataset.indexed import ConversationDataset
from megatron_agent.dataset.packing import best_fit
from megatron_agent.dataset.plan import cached_plan
from megatron_agent.dataset.summary import summarize
from megatron_agent.errors import UserError

PADDING_ID = 0  # attended to by nothing but other padding, never trained

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PackedRow:
    """One row of `s` tokens holding whole conversations, one after the other, then padding.

    `cu_seqlens` `[n + 1]` are the borders of its `n` segments, from 0 to `s`; padding, where there is any, is the
    last segment. Attention must not cross a border. Labels are already shifted, inside each conversation:
    `labels[j] = tokens[j + 1]` and `loss_mask[j] = 1` where token `j + 1` is trained; the last token of a
    conversation predicts nothing.
    """

    tokens: IntArray
    labels: IntArray
    loss_mask: npt.NDArray[np.float32]
    position_ids: IntArray
    cu_seqlens: npt.NDArray[np.int32]
    segment_sources: IntArray
    """`[n]`: index into `PackedRows.source_names`, -1 for padding."""


class PackedRows:
    """The rows of a training run: `row(i)` is a pure function of (data files, configuration, i).

    Opening checks the configuration, the data files, that all sources were built with one tokenizer, template
    and system prompt, and that every conversation fits into a row; it then makes or loads the plan. Raises
    :class:`UserError`.
    """

    def __init__(self, config: DataConfig, num_rows: int) -> None:
        config.check()
        if num_rows < 1:
            raise UserError(f"at least one row is needed, got {num_rows} (train_iters * global_batch_size)")
        self.config = config
        self.num_rows = num_rows
        self.source_names = [source.name for source in config.sources()]
        self.datasets = [ConversationDataset(s.prefix, config.verify, s.name) for s in config.sources()]
        _check_agreement(self.datasets)
        _check_lengths(self.datasets, config.seq_length)
        self.vocab_size = self.datasets[0].manifest.vocab_size
        self.tokenizer_sha256 = self.datasets[0].manifest.tokenizer_sha256
        self.template = self.datasets[0].manifest.template
        self.validation_documents: dict[str, IntArray] = {}
        self._draw_sources: list[DrawSource] = []  # with the weights of the configuration
        groups = ["agent"] * len(config.agent) + ["general"] * len(config.general)
        for group, source, dataset in zip(groups, config.sources(), self.datasets, strict=True):
            training, held_out = split_documents(len(dataset), config.validation_fraction, config.seed, source.name)
            self._draw_sources.append(DrawSource(source.name, group, source.weight, training))
            self.validation_documents[source.name] = held_out
        self._make_plan()

    def _make_plan(self) -> None:
        self.draw_sources, self.draw_eta = self._draw_sources, self.config.eta
        if self.config.eta_per == "token":
            lengths = [dataset.lengths for dataset in self.datasets]
            self.draw_sources, self.draw_eta = draws_for_token_shares(self._draw_sources, lengths, self.config.eta)
        self.plan = cached_plan(self.config, self.draw_sources, self.datasets, self.draw_eta, self.num_rows)

    def at_eta(self, eta: float) -> "PackedRows":
        """Return the rows at another eta, of the same open data files and held-out conversations."""
        other = copy.copy(self)
        other.config = replace(self.config, eta=eta)
        other.config.check()
        other._make_plan()
        return other

    def __len__(self) -> int:
        return self.num_rows

    def row(self, i: int) -> PackedRow:
        """Return training row `i`."""
        if not 0 <= i < self.num_rows:
            raise UserError(f"row {i} asked for, expected 0 to {self.num_rows - 1:,} (train_iters * global_batch_size)")
        return self._build(*self.plan.row(i))

    def lengths_of_rows(self, start: int, stop: int) -> IntArray:
        """Return the lengths of all conversations in rows `start` to `stop - 1`, from the index: no token is read."""
        inside = slice(self.plan.offsets[start], self.plan.offsets[stop])
        sources, documents = self.plan.sources[inside], self.plan.documents[inside]
        lengths = np.empty(len(sources), dtype=np.int64)
        for number, dataset in enumerate(self.datasets):
            chosen = sources == number
            lengths[chosen] = dataset.lengths[documents[chosen]]
        return lengths

    def validation_rows(self, source_name: str) -> list[PackedRow]:
        """Return all held-out conversations of a source, packed; none of them is ever in a training row."""
        if source_name not in self.validation_documents:
            raise UserError(f"no source {source_name!r}, expected one of {', '.join(self.source_names)}")
        number = self.source_names.index(source_name)
        documents = self.validation_documents[source_name]
        packed = best_fit(self.datasets[number].lengths[documents].tolist(), self.config.seq_length)
        return [self._build(np.full(len(items), number), documents[items]) for items in packed]

    def summary(self) -> dict[str, Any]:
        """Return realised shares, passes and packing figures, ready for JSON (see `summary.summarize`)."""
        lengths = [dataset.lengths for dataset in self.datasets]
        trained_lengths = [dataset.trained_lengths for dataset in self.datasets]
        counts = summarize(
            self.plan, self.draw_sources, self.draw_eta, lengths, trained_lengths, self.config.seq_length
        )
        return {"eta": self.config.eta, "eta_per": self.config.eta_per, **counts}

    def _build(self, sources: IntArray, documents: IntArray) -> PackedRow:
        pieces = [self.datasets[s].document(d) for s, d in zip(sources.tolist(), documents.tolist(), strict=True)]
        return build_row(pieces, sources, self.config.seq_length)


def build_row(pieces: list[tuple[IntArray, npt.NDArray[np.bool_]]], sources: IntArray, seq_length: int) -> PackedRow:
    """Lay conversations `(ids, trained)` out in one row of `seq_length` tokens."""
    lengths = [len(ids) for ids, _ in pieces]
    padding = seq_length - sum(lengths)
    if padding < 0:
        raise ValueError(f"conversations of {sum(lengths)} tokens do not fit into a row of {seq_length}")
    tokens = np.full(seq_length, PADDING_ID, dtype=np.int64)
    tokens[: seq_length - padding] = np.concatenate([ids for ids, _ in pieces])
    trained = np.zeros(seq_length, dtype=np.float32)
    trained[: seq_length - padding] = np.concatenate([flags for _, flags in pieces])
    if padding:
        lengths.append(padding)
        sources = np.append(sources, -1)
    borders = np.concatenate([[0], np.cumsum(lengths)])
    labels = np.full(seq_length, PADDING_ID, dtype=np.int64)
    labels[:-1] = tokens[1:]
    loss_mask = np.zeros(seq_length, dtype=np.float32)
    loss_mask[:-1] = trained[1:]
    labels[borders[1:] - 1] = PADDING_ID  # the next token there belongs to another conversation
    loss_mask[borders[1:] - 1] = 0.0
    position_ids = np.arange(seq_length) - np.repeat(borders[:-1], lengths)
    return PackedRow(tokens, labels, loss_mask, position_ids, borders.astype(np.int32), sources.astype(np.int64))


def _check_agreement(datasets: list[ConversationDataset]) -> None:
    first = datasets[0]
    for other in datasets[1:]:
        for name in ("tokenizer_sha256", "vocab_size", "template", "system_prompt"):
            ours, theirs = getattr(first.manifest, name), getattr(other.manifest, name)
            if ours != theirs:
                raise UserError(
                    f"sources {first.name!r} ({first.prefix}) and {other.name!r} ({other.prefix}) were built with "
                    f"different {name}: {ours!r} ({first.manifest.tokenizer_name}) and {theirs!r} "
                    f"({other.manifest.tokenizer_name}); build both with the same --tokenizer, --template and "
                    "--system-prompt (a model could tell agent and general conversations apart by their system prompts)"
                )


def _check_lengths(datasets: list[ConversationDataset], seq_length: int) -> None:
    for dataset in datasets:
        too_long = np.flatnonzero(dataset.lengths > seq_length)
        if len(too_long):
            raise UserError(
                f"source {dataset.name!r} ({dataset.prefix}): conversation {too_long[0]} has "
                f"{dataset.lengths[too_long[0]]:,} tokens and {len(too_long):,} of {len(dataset):,} do not fit into "
                f"data.seq_length {seq_length:,}; build the set with `build_indexed_dataset --seq-length "
                f"{seq_length}`, or raise data.seq_length"
            )
