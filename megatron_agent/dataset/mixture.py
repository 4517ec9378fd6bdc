"""Command: what a mixture comes to, before any training: shares, passes over each source, repeats, packing fill."""

import argparse
import json
from pathlib import Path
from typing import Any

from megatron_agent.configuration import config_parser, read_yaml
from megatron_agent.dataset.config import DataConfig
from megatron_agent.errors import UserError, run_command
from megatron_agent.files import check_writable

DESCRIPTION = """\
Plan the mixture of agent and general conversations and print what it comes to: realised shares by conversation,
token and trained token, passes over every source, repeats, and how full the packed rows are.

Reads two sections of a training configuration: `data` (sources, weights, eta, eta_per, seq_length, seed) and
`training` (train_iters and global_batch_size, which make the number of rows). Nothing is trained; it takes seconds.
--eta-scan plans eta 0.0, 0.1 ... 1.0 from the same indexed datasets.
"""
EXAMPLE = """\
example:
  python -m megatron_agent.dataset.mixture --config launch/configs/quickstart.yaml --eta 0.5 --plot mixture.png
  python -m megatron_agent.dataset.mixture --config launch/configs/quickstart.yaml --eta-scan --plot scan.png
"""

SCAN = [step / 10 for step in range(11)]
"""The values of eta of AgentTuning's scan on the 7B model."""

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


def scan_eta(config: DataConfig, num_rows: int) -> list[dict[str, Any]]:
    """Return the summary of the mixture at each eta of `SCAN`; the datasets are opened, and hashed, once.

    Raises :class:`UserError` when a group has no source: both are drawn from somewhere in the scan.
    """
    from tqdm import tqdm

    from megatron_agent.dataset.rows import PackedRows

    for group in ("agent", "general"):
        if not getattr(config, group):
            raise UserError(f"data.{group} must name at least one source: --eta-scan goes from eta 0 to eta 1")
    config.eta = SCAN[0]
    rows = PackedRows(config, num_rows)
    summaries = [rows.summary()]
    for eta in tqdm(SCAN[1:], desc="eta scan", unit="eta", initial=1, total=len(SCAN), disable=None):
        summaries.append(rows.at_eta(eta).summary())
    return summaries


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m megatron_agent.dataset.mixture",
        description=DESCRIPTION,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", required=True, help="training configuration (YAML) with sections data and training")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--eta", type=float, help="use this eta, the share of the agent sources, instead of the file's")
    which.add_argument("--eta-scan", action="store_true", help="compare eta 0.0, 0.1 ... 1.0")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON instead of tables")
    parser.add_argument("--plot", metavar="PNG", help="also draw the figures into this file")
    arguments = parser.parse_args(argv)

    if arguments.plot:
        check_writable(arguments.plot, "--plot")
    config, num_rows = load_config(arguments.config, arguments.eta)
    from megatron_agent.dataset import mixture_report
    from megatron_agent.dataset.rows import PackedRows

    if arguments.eta_scan:
        scan = scan_eta(config, num_rows)
        if arguments.plot:
            mixture_report.plot_scan(scan, arguments.plot)
        if not arguments.json:
            mixture_report.print_scan(scan)
    else:
        summary = PackedRows(config, num_rows).summary()
        if arguments.plot:
            mixture_report.plot_summary(summary, arguments.plot)
        if not arguments.json:
            mixture_report.print_summary(summary)
    if arguments.json:
        print(json.dumps(scan if arguments.eta_scan else summary, indent=1))


if __name__ == "__main__":
    run_command(main)
