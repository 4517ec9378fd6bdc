"""Look at conversations of indexed datasets, or at packed rows: what is trained, what is context, where rows border."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.build_indexed_dataset import format_manifest
from data_prep.inspect_page import render_view, view_conversation, view_row, write_page
from megatron_agent.chat.tokenizer import Tokenizer, load_tokenizer
from megatron_agent.chat.visualize import show_control_characters
from megatron_agent.dataset.draws import permutation
from megatron_agent.dataset.indexed import ConversationDataset
from megatron_agent.dataset.mixture import load_config
from megatron_agent.dataset.rows import PackedRows
from megatron_agent.errors import UserError, run_command
from megatron_agent.files import check_writable

DESCRIPTION = """\
Show conversations of indexed datasets (--prefix), or the packed rows of a training configuration (--config), with
trained tokens in bold green and context dim. What is shown is decoded from the ids on disk; a row is what the training
loop reads, with the borders that attention does not cross.

--html writes one page for a browser, without network: search, statistics of every source, ids, labels and loss mask of
every token, the attention blocks of a row. Without --index or --row the page holds a random sample."""

EPILOG = """\
examples:
  python -m data_prep.inspect_dataset --prefix runs/indexed/agentinstruct --index 0 7
  python -m data_prep.inspect_dataset --prefix runs/indexed/agentinstruct runs/indexed/sharegpt --html runs/look.html
  python -m data_prep.inspect_dataset --config launch/configs/quickstart.yaml --row 0 1 --html runs/rows.html"""

SAMPLE = 200


def inspect_conversations(
    prefixes: list[str],
    indices: list[int] | None = None,
    tokenizer_path: str | Path | None = None,
    html: str | Path | None = None,
    sample: int = SAMPLE,
    seed: int = 0,
) -> str:
    """Return a summary of each dataset and its coloured conversations `indices`; write them to the page `html`.

    Without `indices`, the page holds `sample` conversations drawn from all datasets together (all of them when there
    are no more), and the text holds the summaries; without a page the text shows conversation 0. The tokenizer is
    `tokenizer_path`, else the one that the manifest names. Raises :class:`UserError` for a dataset that is missing or
    altered, an index out of range, and a tokenizer other than the datasets'.
    """
    datasets = [ConversationDataset(prefix) for prefix in prefixes]
    for dataset in datasets:
        for index in indices or []:
            if not 0 <= index < len(dataset):
                raise UserError(
                    f"--index {index}: {dataset.prefix} has conversations 0 to {len(dataset) - 1:,}; choose among these"
                )
    tokenizer = matching_tokenizer(datasets, tokenizer_path)
    total = sum(len(dataset) for dataset in datasets)
    if indices is not None or html is None:
        chosen = [(source, index) for source in range(len(datasets)) for index in indices or [0]]
    else:
        borders = np.cumsum([0, *(len(dataset) for dataset in datasets)])
        picked = choose(total, sample, seed)
        sources = np.searchsorted(borders, picked, side="right") - 1
        chosen = list(zip(sources.tolist(), (picked - borders[sources]).tolist(), strict=True))
    views = [view_conversation(datasets, source, index) for source, index in chosen]
    # a manifest that came with the data is text of others too
    summaries = [f"{dataset.prefix}:\n{format_manifest(dataset.manifest)}\n" for dataset in datasets]
    lines = [show_control_characters(summary) for summary in summaries]
    if indices is not None or html is None:
        lines += [line for view in views for line in (render_view(view, datasets, tokenizer), "")]
    if html is not None:
        write_page(html, views, datasets, tokenizer, total)
        lines.append(f"wrote {html}: {len(views):,} of {total:,} conversations")
    return "\n".join(lines).rstrip("\n")


def inspect_rows(
    config_path: str | Path,
    numbers: list[int] | None = None,
    tokenizer_path: str | Path | None = None,
    html: str | Path | None = None,
    sample: int = SAMPLE,
    seed: int = 0,
) -> str:
    """Return the packed rows `numbers` of a training configuration, coloured; write them to the page `html` if given.

    Without `numbers`, the page holds `sample` rows of the plan; without a page the text shows row 0. Raises
    :class:`UserError` as :func:`inspect_conversations` does, and for a configuration that cannot be meant.
    """
    config, num_rows = load_config(config_path)
    for number in numbers or []:
        if not 0 <= number < num_rows:
            raise UserError(
                f"--row {number}: {config_path} has rows 0 to {num_rows - 1:,} (training.train_iters x "
                "training.global_batch_size); choose among these"
            )
    rows = PackedRows(config, num_rows)
    tokenizer = matching_tokenizer(rows.datasets, tokenizer_path)
    shown = numbers if numbers is not None else [0] if html is None else choose(num_rows, sample, seed).tolist()
    views = [view_row(rows, number) for number in shown]
    lines = []
    if numbers is not None or html is None:
        lines = [line for view in views for line in (render_view(view, rows.datasets, tokenizer), "")]
    if html is not None:
        write_page(html, views, rows.datasets, tokenizer, num_rows, rows.summary())
        lines.append(f"wrote {html}: {len(views):,} of {num_rows:,} rows")
    return "\n".join(lines).rstrip("\n")


def choose(total: int, sample: int, seed: int) -> np.ndarray:
    """Return `sample` numbers below `total`, ascending: the same for the same seed; all when there are no more."""
    return np.sort(permutation(total, seed, "inspect_dataset")[:sample])


def matching_tokenizer(datasets: list[ConversationDataset], path: str | Path | None) -> Tokenizer:
    """Load `path`, or the tokenizer that the first dataset was built with, and compare its hash with all datasets."""
    named = datasets[0].manifest.tokenizer_name
    if path is None and not Path(named).exists():
        raise UserError(f"{datasets[0].prefix}: its tokenizer was at {named}, which is not there now; give --tokenizer")
    tokenizer = load_tokenizer(path or named)
    for dataset in datasets:
        expected = dataset.manifest.tokenizer_sha256
        if tokenizer.sha256 != expected:
            raise UserError(
                f"{dataset.prefix}: built with a tokenizer of sha256 {expected[:16]}..., {tokenizer.name} has "
                f"{tokenizer.sha256[:16]}...; give --tokenizer with the one it was built with (and datasets of "
                "different tokenizers one at a time)"
            )
    return tokenizer


def main(argv: list[str] | None = None) -> None:
    """Command line of the inspection."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.inspect_dataset",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--prefix", nargs="+", metavar="P", help="paths of datasets, without an ending")
    what.add_argument("--config", metavar="C.yaml", help="training configuration: show packed rows")
    parser.add_argument(
        "--index", type=int, nargs="+", metavar="I", help="conversations of every --prefix (default: 0, or a sample)"
    )
    parser.add_argument("--row", type=int, nargs="+", metavar="R", help="rows of --config (default: 0, or a sample)")
    parser.add_argument(
        "--tokenizer", metavar="T", help="tokenizer folder or file (default: the one the manifest names)"
    )
    parser.add_argument("--html", metavar="F", help="page to write")
    parser.add_argument(
        "--sample", type=int, metavar="N", help=f"conversations or rows of the page (default: {SAMPLE})"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the sample (default: 0)")
    arguments = parser.parse_args(argv)
    check_flags(arguments)
    options = (arguments.tokenizer, arguments.html, arguments.sample or SAMPLE, arguments.seed)
    if arguments.config is not None:
        print(inspect_rows(arguments.config, arguments.row, *options))
    else:
        print(inspect_conversations(arguments.prefix, arguments.index, *options))


def check_flags(arguments: Any) -> None:
    """Raise :class:`UserError` for flags that contradict each other, and for a page that cannot be written."""
    if arguments.config is not None and arguments.index is not None:
        raise UserError("--index chooses conversations of --prefix; with --config give --row")
    if arguments.prefix is not None and arguments.row is not None:
        raise UserError("--row chooses packed rows of --config; with --prefix give --index")
    if arguments.sample is not None:
        if arguments.sample < 1:
            raise UserError(f"--sample must be at least 1, got {arguments.sample}")
        if arguments.html is None or (arguments.index or arguments.row) is not None:
            raise UserError("--sample is for a page (--html) of conversations or rows not named by --index or --row")
    if arguments.html is not None:
        check_writable(arguments.html, "--html")


if __name__ == "__main__":
    run_command(main)
