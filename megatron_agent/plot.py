"""Command: draw training runs side by side from the files they write, also while they go on."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from megatron_agent.errors import UserError, run_command
from megatron_agent.files import check_writable, shortest_names
from megatron_agent.training.run_curves import RunCurves, read_run, summary_table

DESCRIPTION = """\
Draw training runs side by side and print a line of figures about each.

RUN is the output_dir of a run. metrics.jsonl and validation.jsonl are read there; the run may still be going on. The
picture has the loss, learning rate and gradient norm, the loss of each data source (line: training, smoothed; circles:
held-out conversations), throughput and MFU, and the shares of the time of a step. A cross at the foot of the loss
marks a step that was skipped because its loss or gradient norm was not finite.
"""
EXAMPLE = """\
examples:
  python -m megatron_agent.plot runs/agentlm-7b
  python -m megatron_agent.plot runs/eta-0.0 runs/eta-0.2 runs/eta-1.0 --x tokens --smooth 50 --output eta.png
"""
SUFFIXES = (".png", ".pdf", ".svg")


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    result = argparse.ArgumentParser(
        prog="python -m megatron_agent.plot",
        description=DESCRIPTION,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("runs", nargs="+", metavar="RUN", help="output_dir of a training run")
    result.add_argument(
        "--output", default="plot.png", metavar="FILE", help="picture to write: .png, .pdf or .svg (plot.png)"
    )
    result.add_argument(
        "--x",
        choices=("step", "tokens", "hours"),
        default="step",
        help="x axis: optimizer steps, tokens with padding, or hours with evaluation and checkpoints (step)",
    )
    result.add_argument(
        "--smooth",
        type=int,
        metavar="N",
        help="steps in the moving mean of every curve; 1 draws it as it is (a fiftieth of the run's steps)",
    )
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the runs, print the table, draw the picture."""
    options = parser().parse_args(arguments)
    output = Path(options.output)
    if output.suffix not in SUFFIXES:
        raise UserError(f"--output {output}: expected a name that ends in {', '.join(SUFFIXES)}")
    if options.smooth is not None and options.smooth < 1:
        raise UserError(f"--smooth must be at least 1, got {options.smooth}")
    check_writable(output, "--output")
    runs = [read_run(folder) for folder in options.runs]
    print(summary_table(named(runs)))

    from megatron_agent.training.run_figure import draw_runs  # imports matplotlib: only after --help and the checks

    draw_runs(named(runs), output, options.x, options.smooth)
    print(f"\n{output}")


def named(runs: list[RunCurves]) -> dict[str, RunCurves]:
    """Return the runs by the shortest names that tell them apart: the ends of their paths."""
    paths = [run.folder.resolve() for run in runs]
    if len(set(paths)) < len(paths):
        raise UserError("RUN: the same folder is given twice; give each run once")
    return dict(zip(shortest_names(paths), runs, strict=True))


if __name__ == "__main__":
    run_command(main)
