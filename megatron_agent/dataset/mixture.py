"""Command: what a mixture comes to, before any training: shares, passes over each source, packing fill."""

import argparse
import json
from pathlib import Path
from typing import Any

from megatron_agent.configuration import config_parser, read_yaml
from megatron_agent.dataset.config import DataConfig
from megatron_agent.errors import UserError, run_command
from megatron_agent.files import atomic_write, check_writable

DESCRIPTION = """\
Plan the mixture of agent and general conversations and print what it comes to: realised shares by conversation,
token and trained token, passes over every source, and how full the packed rows are.

Reads two sections of a training configuration: `data` (sources, weights, eta, seq_length, seed) and `training`
(train_iters and global_batch_size, which make the number of rows). Nothing is trained; it takes seconds.
"""
EXAMPLE = """\
example:
  python -m megatron_agent.dataset.mixture --config launch/configs/quickstart.yaml --eta 0.5 --plot shares.png
"""


ROW_DEFAULTS = {"train_iters": 2000, "global_batch_size": 64}
"""What makes the number of rows, with the training command's defaults."""


def load_config(path: str | Path, eta: float | None = None) -> tuple[DataConfig, int]:
    """Read `(data configuration, number of rows)` from a training YAML; `eta` replaces the file's.

    Values are read as the training command reads them. Unknown keys of the `data` section are errors; other
    sections are left to the training command, but for `training.train_iters` and `training.global_batch_size`,
    whose defaults are that command's.
    """
    import jsonargparse

    content = read_yaml(path)
    for section in ("data", "training"):
        if not isinstance(content.get(section, {}), dict):
            raise UserError(f"{path}: section `{section}` must be a mapping, got {content[section]!r}")
    parser = config_parser(prog=str(path))
    parser.add_class_arguments(DataConfig, "data", fail_untyped=True)
    for name, default in ROW_DEFAULTS.items():
        parser.add_argument(f"--training.{name}", type=int, default=default)
    training = {name: value for name, value in content.get("training", {}).items() if name in ROW_DEFAULTS}
    try:
        namespace = parser.parse_object({"data": content.get("data", {}), "training": training})
        config: DataConfig = parser.instantiate(namespace).data
    except jsonargparse.ArgumentError as error:
        raise UserError(f"{path}: {' '.join((error.message or str(error)).split())}") from error
    rows = 1
    for name in ROW_DEFAULTS:
        value = namespace[f"training.{name}"]
        if value < 1:
            raise UserError(f"{path}: training.{name} must be at least 1, got {value}")
        rows *= value
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

    if arguments.plot:
        check_writable(arguments.plot, "--plot")
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
