"""Command: put the results of runs beside each other: training, held-out losses, scores; the curve of an eta scan."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from megatron_agent.errors import UserError, run_command
from megatron_agent.files import atomic_write, check_writable

if TYPE_CHECKING:
    from megatron_agent.report.collect import Report

DESCRIPTION = """\
Put the results of training runs and evaluations beside each other.

DIR is the output folder of megatron_agent.train or megatron_agent.evaluate, or any folder above such ones. An
evaluation inside the output folder of a run belongs to that run; the scores of a model evaluated elsewhere stand by
themselves. Runs that are not finished are marked.
"""
EXAMPLE = """\
examples:
  python -m megatron_agent.report runs/agentlm-7b --output runs/agentlm-7b/report
  python -m megatron_agent.report runs/eta_scan --output runs/eta_scan/report --expect-task held-in \\
      --expect-eta 0.0 0.1 0.2 0.3 0.4 0.5 0.6 0.7 0.8 0.9 1.0

--output writes report.md, report.json and pictures: scan.png (scores and held-out losses over eta, where there are two
values or more), curves.png (training), scores.png (no scan).

exit status: 0; 1 when something expected is missing (the report is written, and says what); 2 for bad input.
"""
EXIT_MISSING = 1


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    result = argparse.ArgumentParser(
        prog="python -m megatron_agent.report",
        description=DESCRIPTION,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = result.add_argument
    add("folders", nargs="+", type=Path, metavar="DIR", help="folder with results in it or below")
    add("--output", type=Path, metavar="FOLDER", help="folder for report.md, report.json and pictures")
    add("--json", type=Path, metavar="F.json", help="file for all figures")
    add("--markdown", type=Path, metavar="F.md", help="file for the tables")
    add("--plot", type=Path, metavar="F.png", help="file for the picture: the scan, else training, else scores")
    add("--by", choices=("eta",), help="draw the scan even where all runs have the same eta")
    add("--expect-eta", nargs="+", type=float, default=[], metavar="E", help="values of eta that need a complete run")
    add("--expect-task", nargs="+", default=[], metavar="T",
        help="tasks on which every run needs a score; held-in for the six")  # fmt: skip
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Read, print, write; return the exit status."""
    options = parser().parse_args(arguments)
    _check(options)

    from megatron_agent.evaluation.paper_scores import TASKS
    from megatron_agent.report.collect import collect
    from megatron_agent.report.figure import pictures
    from megatron_agent.report.tables import print_report

    expected = [task for name in options.expect_task for task in (TASKS if name == "held-in" else [name])]
    report = collect(options.folders, options.expect_eta, expected)
    if options.by == "eta" and not report.etas:
        raise UserError("--by eta: no run below DIR has an eta: no complete checkpoint, and no folder named after one")
    drawings = pictures(report, scan=options.by == "eta" or len(report.etas) > 1)
    if options.plot and not drawings:
        raise UserError(f"--plot {options.plot}: there is nothing to draw: no finished step, no score")
    for path in _write(report, drawings, options):
        print(path)
    print_report(report)
    return EXIT_MISSING if report.failed else 0


def _write(report: "Report", drawings: Mapping[str, Callable[[Path], None]], options: argparse.Namespace) -> list[Path]:
    """Write the files asked for; return their paths."""
    from megatron_agent.report.tables import report_json, report_markdown

    figures = json.dumps(report_json(report), indent=2, allow_nan=False) + "\n"
    texts: dict[Path, str] = {}
    images: dict[Path, Callable[[Path], None]] = {}
    if options.json:
        texts[options.json] = figures
    if options.plot:
        images[options.plot] = next(iter(drawings.values()))
    if options.markdown:
        shown = [os.path.relpath(options.plot, options.markdown.parent)] if options.plot else []
        texts[options.markdown] = report_markdown(report, shown)
    if options.output:
        images |= {options.output / f"{name}.png": draw for name, draw in drawings.items()}
        texts[options.output / "report.md"] = report_markdown(report, [f"{name}.png" for name in drawings])
        texts[options.output / "report.json"] = figures
    for path, draw in images.items():
        draw(path)
    for path, text in texts.items():
        with atomic_write(path) as handle:
            handle.write(text)
    return [*images, *texts]


def _check(options: argparse.Namespace) -> None:
    """Refuse options that cannot work before anything is read."""
    for eta in options.expect_eta:
        if not 0 <= eta <= 1:  # refuses NaN too
            raise UserError(f"--expect-eta: expected values from 0 to 1, got {eta:g}")
    if options.plot and options.plot.suffix != ".png":
        raise UserError(f"--plot {options.plot}: expected a name that ends in .png")
    if options.output:
        check_writable(options.output / "report.json", "--output")
    for flag in ("json", "markdown", "plot"):
        path = getattr(options, flag)
        if path is not None:
            check_writable(path, f"--{flag}")


if __name__ == "__main__":
    run_command(lambda: sys.exit(main()))
