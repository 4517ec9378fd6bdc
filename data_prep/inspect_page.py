"""Conversations and packed rows as things to look at: in the terminal, and as one self-contained HTML page."""

import base64
import hashlib
import html
import itertools
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from megatron_agent.chat.template import Span
from megatron_agent.chat.tokenizer import Tokenizer
from megatron_agent.chat.visualize import render_terminal, show_control_characters, token_texts
from megatron_agent.dataset.indexed import ConversationDataset
from megatron_agent.dataset.rows import PackedRow, PackedRows, build_row
from megatron_agent.files import atomic_write

HISTOGRAM_BARS = 40
PREVIEW_CHARACTERS = 80


@dataclass(frozen=True)
class View:
    """A packed row, or one conversation laid out as a row of its own."""

    title: str
    number: int | None
    """Number of the packed row; None for a conversation."""
    row: PackedRow
    """Its `segment_sources` index the datasets shown."""
    conversations: list[int]
    """`[segments without padding]`: number of each segment's conversation in its dataset."""


def view_conversation(datasets: Sequence[ConversationDataset], source: int, conversation: int) -> View:
    """Return a conversation of `datasets[source]` as a row without padding."""
    dataset = datasets[source]
    document = dataset.document(conversation)
    row = build_row([document], np.array([source]), len(document[0]))
    title = f"{show_control_characters(dataset.name)}, conversation {conversation:,}"
    return View(title, None, row, [conversation])


def view_row(rows: PackedRows, number: int) -> View:
    """Return training row `number` as the training loop reads it."""
    row = rows.row(number)
    return View(f"row {number:,}", number, row, rows.plan.row(number)[1].tolist())


def trained_tokens(row: PackedRow) -> np.ndarray:
    """Return `[tokens]`, whether the loss asks for each token: whether the position before it has a loss."""
    return np.concatenate([[False], row.loss_mask[:-1] > 0])


def render_view(view: View, datasets: Sequence[ConversationDataset], tokenizer: Tokenizer) -> str:
    """Return a view for the terminal: a line at every border, then the coloured text."""
    row, trained = view.row, trained_tokens(view.row)
    lines = [f"{view.title}: {len(row.tokens):,} tokens, {int(row.loss_mask.sum()):,} trained"]
    for number, source in enumerate(row.segment_sources.tolist()):
        start, stop = int(row.cu_seqlens[number]), int(row.cu_seqlens[number + 1])
        where = f"tokens {start:,} to {stop - 1:,} ({stop - start:,})"
        if source == -1:
            lines.append(f"──── padding: {where}, no loss")
            continue
        if view.number is not None:
            lines.append(
                f"──── segment {number + 1}: {show_control_characters(datasets[source].name)}, "
                f"conversation {view.conversations[number]:,}, {where}, "
                f"{int(row.loss_mask[start:stop].sum()):,} trained; attends to itself only"
            )
        cuts = np.flatnonzero(np.diff(trained[start:stop])) + 1
        runs = zip(np.split(row.tokens[start:stop], cuts), np.split(trained[start:stop], cuts), strict=True)
        lines.append(render_terminal([Span(ids, bool(flags[0])) for ids, flags in runs], tokenizer))
    return "\n".join(lines)


def write_page(
    path: str | Path,
    views: Iterable[View],
    datasets: Sequence[ConversationDataset],
    tokenizer: Tokenizer,
    total: int,
    mixture: dict[str, Any] | None = None,
) -> None:
    """Write the page of `views`, chosen from `total` rows or conversations, whole or not at all.

    `mixture` is the summary of the plan when the views are packed rows. The page reads nothing from the network and
    runs no script but its own: the texts are JSON in which `<` is escaped, the page puts them into text nodes only,
    and its content security policy names the hash of its script.
    """
    folder = Path(__file__).parent
    script = (folder / "inspect_page.js").read_text(encoding="utf-8")
    kind = "conversation" if mixture is None else "row"
    data = {
        "kind": kind,
        "total": total,
        "sources": [source_statistics(dataset, mixture) for dataset in datasets],
        "items": [pack_view(view, tokenizer) for view in views],
    }
    names = ", ".join(dataset.name for dataset in datasets)
    script_hash = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    parts = {
        "title": html.escape(show_control_characters(f"{kind.capitalize()}s of {names}")),
        "script_hash": f"sha256-{script_hash}",
        "script": script,
        "data": json.dumps(data, separators=(",", ":")).replace("<", "\\u003c").replace(">", "\\u003e"),
    }
    template = (folder / "inspect_page.html").read_text(encoding="utf-8")
    page = re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)
    with atomic_write(path) as handle:
        handle.write(page)


def pack_view(view: View, tokenizer: Tokenizer) -> dict[str, Any]:
    """Return a view as JSON for the page, its arrays compact but complete: `unpack` in inspect_page.js is the inverse.

    `text` is what the tokens read as, control characters made visible; token `i` has the next `widths[i]` UTF-16 units
    of it. `loss_mask_runs` are lengths of runs of 0, 1, 0 ...; `position_runs` are (first, length) of runs that count
    up by one; `labels` are given where they are not the next token.
    """
    row = view.row
    n = len(row.tokens)
    texts = []
    for source, start, stop in zip(row.segment_sources, row.cu_seqlens, row.cu_seqlens[1:], strict=False):
        segment = row.tokens[start:stop].tolist()
        texts += [""] * len(segment) if source == -1 else token_texts(segment, tokenizer)
    texts = [show_control_characters(text) for text in texts]
    text = "".join(texts)
    trained = np.flatnonzero(trained_tokens(row))
    next_tokens = np.append(row.tokens[1:], 0)
    odd = np.flatnonzero(row.labels != next_tokens)
    mask = row.loss_mask.astype(np.int64)
    mask_cuts = np.concatenate([[0] if mask[0] == 0 else [0, 0], np.flatnonzero(np.diff(mask)) + 1, [n]])
    jumps = np.concatenate([[0], np.flatnonzero(np.diff(row.position_ids) != 1) + 1, [n]])
    start = int(trained[0]) if len(trained) else 0
    preview = "".join(texts[start : start + PREVIEW_CHARACTERS])
    return {
        "title": view.title,
        "numbers": view.conversations if view.number is None else [view.number],
        "preview": " ".join(preview.split())[:PREVIEW_CHARACTERS],
        "conversations": view.conversations,
        "segment_sources": row.segment_sources.tolist(),
        "cu_seqlens": row.cu_seqlens.tolist(),
        "tokens": row.tokens.tolist(),
        "labels_that_are_not_the_next_token": [[int(i), int(row.labels[i])] for i in odd],
        "position_runs": [[int(row.position_ids[i]), int(j - i)] for i, j in itertools.pairwise(jumps)],
        "loss_mask_runs": np.diff(mask_cuts).tolist(),
        "widths": [len(part) + sum(character > "\uffff" for character in part) for part in texts],
        "text": text,
    }


def source_statistics(dataset: ConversationDataset, mixture: dict[str, Any] | None) -> dict[str, Any]:
    """Return name, tables (of strings) and histogram of lengths of a dataset for the page."""
    manifest, lengths = dataset.manifest, dataset.lengths
    quantiles = np.quantile(lengths, [0.05, 0.5, 0.95], method="nearest").tolist()
    trained = dataset.trained_lengths.sum() / lengths.sum()
    tables = [
        [
            ["conversations", "tokens", "trained", "share", "mean", "5 %", "median", "95 %", "longest"],
            [
                *(f"{value:,}" for value in (len(lengths), lengths.sum(), dataset.trained_lengths.sum())),
                f"{trained:.1%}",
                *(f"{value:,.0f}" for value in (lengths.mean(), *quantiles, lengths.max())),
            ],
        ],
        [
            ["template", manifest.template],
            ["system prompt", manifest.system_prompt],
            ["tokenizer", f"{manifest.tokenizer_name}, sha256 {manifest.tokenizer_sha256[:16]}..."],
        ]
        + [["input", f"{name}, sha256 {str(digest)[:16]}..."] for name, digest in manifest.source.items()]
        + [["dropped", rule, f"{number:,}"] for rule, number in sorted(manifest.dropped.items())]
        + [["repaired", rule, f"{number:,}"] for rule, number in sorted(manifest.repaired.items())],
    ]
    if mixture is not None:
        source = mixture["sources"][dataset.name]
        shares = [source[f"{kind}_share"] for kind in ("conversation", "token", "trained_token")]
        tables.insert(
            1,
            [
                [f"in {mixture['rows']:,} rows:", "drawn", "of conversations", "of tokens", "of trained", "passes"],
                [
                    source["group"],
                    f"{source['conversations']:,}",
                    *(f"{share:.2%}" for share in shares),
                    f"{source['passes']:.2f}",
                ],
            ],
        )
    top = int(lengths.max()) + 1
    edges = np.unique(np.linspace(int(lengths.min()), top, min(HISTOGRAM_BARS, top) + 1).astype(np.int64))
    counts, _ = np.histogram(lengths, edges)
    return {
        "name": show_control_characters(dataset.name),
        "prefix": show_control_characters(dataset.prefix),
        "tables": [[[show_control_characters(cell) for cell in line] for line in table] for table in tables],
        "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
    }
