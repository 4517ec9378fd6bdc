"""Look at a conversation of an indexed dataset: which tokens are trained, which are context."""

import argparse
from pathlib import Path

from data_prep.build_indexed_dataset import format_manifest
from megatron_agent.chat.template import Span, count_tokens
from megatron_agent.chat.tokenizer import Tokenizer, load_tokenizer
from megatron_agent.chat.visualize import render_html, render_terminal
from megatron_agent.dataset.indexed import ConversationDataset
from megatron_agent.dataset.manifest import Manifest
from megatron_agent.errors import UserError, run_command
from megatron_agent.files import atomic_write

DESCRIPTION = """\
Show conversations of an indexed dataset with trained tokens in bold green and context dim, after a summary of
the manifest; --html writes the same as a page. What is shown is decoded from the ids on disk."""

EPILOG = """\
example:
  python -m data_prep.inspect_dataset --prefix runs/indexed/agentinstruct --index 0 7 --html runs/masked.html"""


def inspect_dataset(
    prefix: str | Path, indices: list[int], tokenizer_path: str | Path | None = None, html: str | Path | None = None
) -> str:
    """Return the summary and the coloured conversations `indices`; write them to the page `html` if given.

    The tokenizer is `tokenizer_path`, else the one the manifest names. Raises `UserError` for a dataset that is
    missing or altered, an index out of range, and a tokenizer other than the dataset's.
    """
    dataset = ConversationDataset(prefix)
    tokenizer = matching_tokenizer(dataset.manifest, prefix, tokenizer_path)
    examples: list[tuple[str, list[Span]]] = [
        (f"{Path(prefix).name}, conversation {index}", dataset.spans(index)) for index in indices
    ]
    lines = [format_manifest(dataset.manifest)]
    for title, spans in examples:
        trained = count_tokens(span for span in spans if span.trained)
        lines += ["", f"{title}: {count_tokens(spans):,} tokens, {trained:,} trained"]
        lines.append(render_terminal(spans, tokenizer))
    if html is not None:
        with atomic_write(html) as handle:
            handle.write(render_html(examples, tokenizer))
        lines += ["", f"wrote {html}"]
    return "\n".join(lines)


def matching_tokenizer(manifest: Manifest, prefix: str | Path, path: str | Path | None) -> Tokenizer:
    """Load the dataset's tokenizer and compare its hash with the manifest's."""
    if path is None and not Path(manifest.tokenizer_name).exists():
        raise UserError(
            f"{prefix}: its tokenizer was at {manifest.tokenizer_name}, which is not there now; give --tokenizer"
        )
    tokenizer = load_tokenizer(path or manifest.tokenizer_name)
    if tokenizer.sha256 != manifest.tokenizer_sha256:
        raise UserError(
            f"{prefix}: built with a tokenizer of sha256 {manifest.tokenizer_sha256[:16]}..., "
            f"{tokenizer.name} has {tokenizer.sha256[:16]}...; give --tokenizer with the one it was built with"
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
    parser.add_argument("--prefix", required=True, metavar="P", help="path of the dataset, without an ending")
    parser.add_argument(
        "--index", type=int, nargs="+", default=[0], metavar="I", help="conversations to show (default: 0)"
    )
    parser.add_argument(
        "--tokenizer", metavar="T", help="tokenizer folder or file (default: the one the manifest names)"
    )
    parser.add_argument("--html", metavar="F", help="page to write")
    arguments = parser.parse_args(argv)
    print(inspect_dataset(arguments.prefix, arguments.index, arguments.tokenizer, arguments.html))


if __name__ == "__main__":
    run_command(main)
