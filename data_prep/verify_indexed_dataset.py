"""Verify indexed datasets: hashes, lengths against the `.bin` file, loss flags, ids."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from megatron_agent.dataset.indexed import ConversationDataset
from megatron_agent.errors import EXIT_BAD_INPUT, UserError, run_command

DESCRIPTION = """\
Check that PREFIX.bin, PREFIX.idx and PREFIX.manifest.json are what was written: sizes and sha256 of both files, the
lengths and offsets of the index against the .bin file, loss flags, counts against the manifest, every token id
against the vocabulary, at least one trained token in every conversation. Training makes the same checks when it
starts, but for the last two. Exits with status 2 when any dataset fails; all are looked at."""

EPILOG = """\
example:
  python -m data_prep.verify_indexed_dataset --prefix runs/indexed/agentinstruct runs/indexed/sharegpt"""

CHUNK = 1 << 24  # tokens looked at at a time


def verify_indexed_dataset(prefix: str | Path) -> ConversationDataset:
    """Return the dataset at `prefix` after all checks; `UserError` names the file and the first thing wrong."""
    dataset = ConversationDataset(prefix)
    vocab_size, longest = dataset.manifest.vocab_size, dataset.manifest.max_length
    for start in range(0, len(dataset.tokens), CHUNK):
        ids = dataset.tokens[start : start + CHUNK]
        wrong = np.flatnonzero((ids < 0) | (ids >= vocab_size))
        if len(wrong):
            at = start + int(wrong[0])
            number = int(np.searchsorted(dataset.borders, at, side="right")) - 1
            raise UserError(
                f"{prefix}.bin: conversation {number} holds token id {dataset.tokens[at]}, expected 0 to "
                f"{vocab_size - 1:,}; build it again with the tokenizer of the manifest"
            )
    for what, wrong in (
        ("no trained token", np.flatnonzero(dataset.trained_lengths == 0)),
        (f"more than max_length, {longest:,} tokens", np.flatnonzero(dataset.lengths > longest)),
    ):
        if len(wrong):
            raise UserError(f"{prefix}.idx: conversation {wrong[0]} (and {len(wrong) - 1:,} others) has {what}")
    return dataset


def verify_all(prefixes: Sequence[str | Path]) -> bool:
    """Verify datasets one after the other and print a line for each; return whether all are whole."""
    whole = True
    for prefix in prefixes:
        try:
            manifest = verify_indexed_dataset(prefix).manifest
        except UserError as error:
            whole = False
            print(f"error: {error}", file=sys.stderr)
        else:
            print(
                f"{prefix}: whole: {manifest.num_documents:,} conversations, {manifest.num_tokens:,} tokens, "
                f"{manifest.num_trained_tokens:,} trained, sha256 {manifest.bin_sha256[:16]}..."
            )
    return whole


def main(argv: list[str] | None = None) -> None:
    """Command line of the verification."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.verify_indexed_dataset",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--prefix", required=True, nargs="+", metavar="P", help="prefixes of the datasets")
    if not verify_all(parser.parse_args(argv).prefix):
        sys.exit(EXIT_BAD_INPUT)


if __name__ == "__main__":
    run_command(main)
