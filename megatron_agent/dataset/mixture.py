"""Command: what a mixture comes to, before any training: shares, passes over each source, packing fill."""

import argparse
import json
from pathlib import Path
from typing import Any

from megatron_agent.dataset.config import DataConfig, parse_data_config
from megatron_agent.errors import UserError, run_command

DESCRIPTION = """\
Plan the mixture of agent and general conversations and print what it comes to: realised shares by conversation,
token and trained token, passes over every source, and how full the packed rows are.

Reads two sections of a training configuration: `data` (sources, weights, eta, seq_length, seed) and `training`
(train_iters and global_batch_size, which make the number of rows). Nothing is trained; it takes seconds.
"""
EXAMPLE = """\
example:
  python -m megatron_agent.dataset.mixture --config launch/configs/llama2_7b.yaml --eta 0.5 --plot shares.png
"""


def load_config(path: str | Path, eta: float | None = None) -> tuple[DataConfig, int]:
    """Read `(data configuration, number of rows)` from a training YAML; `eta` replaces the file's.

    Unknown keys of the `data` section are errors; other sections are left to the training command.
    """
    import yaml

    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read the configuration {path}: {error.strerror}; check --config") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected sections `data` and `training`, got {content!r}")
    for section in ("data", "training"):
        if not isinstance(content.get(section), dict):
            raise UserError(f"{path}: section `{section}` is missing or not a mapping")
    rows = 1
    for name in ("train_iters", "global_batch_size"):
        value = content["training"].get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError(f"{path}: training.{name} must be a whole number above 0, got {value!r}")
        rows *= value
    config = parse_data_config(content["data"], str(path))
    if eta is not None:
        config.eta = eta
    config.check()
    return config, rows


def print_summary(summary: dict[str, Any]) -> None:
    """Print a mixture summary as a table in the terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    title = f"Mixture at eta = {summary['eta']:g}: {summary['rows']:,} rows of {summary['seq_length']:,} tokens"
    table = Table(
        title=title,
        caption="expected, drawn: share of conversations; tokens, trained: share of (trained) tokens",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("source", overflow="fold")
    for heading in ("group", "count", "expected", "drawn", "tokens", "trained", "passes", "held out"):
        table.add_column(heading, justify="right", overflow="fold")
    for name, source in summary["sources"].items():
        table.add_row(
            name,
            source["group"],
            f"{source['conversations']:,}",
            f"{source['expected_share']:.2%}",
            f"{source['conversation_share']:.2%}",
            f"{source['token_share']:.2%}",
            f"{source['trained_token_share']:.2%}",
            f"{source['passes']:.2f}",
            f"{source['validation_conversations']:,}",
        )
    console = Console()
    console.print(table)
    console.print(
        f"{summary['conversations']:,} conversations, {summary['tokens']:,} tokens, {summary['trained_tokens']:,} "
        f"trained; rows {summary['fill']:.2%} full, {summary['conversations_per_row']:.2f} conversations a row "
        f"(at most {summary['most_conversations_in_a_row']})"
    )


def plot_summary(summary: dict[str, Any], path: str | Path) -> None:
    """Draw the shares of the sources by conversation, token and trained token as stacked bars into a PNG."""
    from matplotlib.figure import Figure

    from megatron_agent.files import atomic_write

    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    kinds = ["expected_share", "conversation_share", "token_share", "trained_token_share"]
    left = [0.0] * len(kinds)
    for name, source in summary["sources"].items():
        shares = [source[kind] for kind in kinds]
        axes.barh(["expected", "conversations", "tokens", "trained tokens"], shares, left=left, label=name)
        left = [start + share for start, share in zip(left, shares, strict=True)]
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_title(f"Shares at eta = {summary['eta']:g}")
    figure.legend(loc="outside lower center", ncols=4)
    with atomic_write(path, "wb") as handle:
        figure.savefig(handle, format="png", dpi=150)


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m megatron_agent.dataset.mixture",
        description=DESCRIPTION,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", required=True, help="training configuration (YAML) with sections data and training")
    parser.add_argument("--eta", type=float, help="use this eta, the share of agent draws, instead of the file's")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON instead of a table")
    parser.add_argument("--plot", metavar="PNG", help="also draw the shares as stacked bars into this file")
    arguments = parser.parse_args(argv)

    from megatron_agent.dataset.rows import PackedRows

    config, num_rows = load_config(arguments.config, arguments.eta)
    summary = PackedRows(config, num_rows).summary()
    if arguments.plot:
        plot_summary(summary, arguments.plot)
    if arguments.json:
        print(json.dumps(summary, indent=1))
    else:
        print_summary(summary)


if __name__ == "__main__":
    run_command(main)
