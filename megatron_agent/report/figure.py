"""The one place that draws: the curve of an eta scan, scores beside each other, and the curves of training."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megatron_agent.files import atomic_write
from megatron_agent.report.collect import Report, RunResult
from megatron_agent.report.scores import Score
from megatron_agent.report.tables import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAPER_ETA = 0.2
MEAN_COLOUR, MISSING_COLOUR, PAPER_COLOUR = "0.15", "tab:red", "0.75"
AGENT_COLOURS = ("tab:blue", "tab:cyan", "tab:purple", "navy")
GENERAL_COLOURS = ("tab:orange", "tab:brown", "tab:olive", "tab:pink")
LONGEST_LABEL = 40  # characters of a name in a picture


def pictures(report: Report, scan: bool) -> dict[str, Callable[[Path], None]]:
    """Return what can be drawn of a report, the most telling first: by name, a function that writes the PNG."""
    drawings: dict[str, Callable[[Path], None]] = {}
    if scan:
        drawings["scan"] = lambda path: _save(scan_figure(report), path)
    curves = {run.name: run.training.curves for run in report.runs if run.training and run.training.curves}
    if curves:

        def draw_curves(path: Path) -> None:
            from megatron_agent.training.run_figure import draw_runs

            draw_runs({printable(name): curve for name, curve in curves.items()}, path, axis="step", smooth=None)

        drawings["curves"] = draw_curves
    if report.tasks and not scan:
        drawings["scores"] = lambda path: _save(scores_figure(report), path)
    return drawings


def scan_figure(report: Report) -> "Figure":
    """Draw scores and held-out losses over eta, as far as there are any, a column of panels for each model.

    Filled markers are complete runs, hollow ones unfinished; lines join the means of what has the same eta. Bars are
    95 % intervals. Expected values of eta without a run are crosses at the foot.
    """
    from matplotlib.figure import Figure

    drawn = [run for run in report.runs if run.eta is not None]
    models = list(dict.fromkeys(run.base for run in drawn))
    if None in models and len(models) == 2:  # a run that does not know is one of the others
        models.remove(None)
    rows: dict[str, Callable[[Axes, Report, list[RunResult]], None]] = {"success rate": _draw_scores}
    if report.sources:
        rows["held-out loss per trained token, last step"] = _draw_losses
        if not report.tasks:
            del rows["success rate"]
    figure = Figure(figsize=(6.0 * len(models) + 3.0, 3.8 * len(rows)), layout="constrained")
    panels = figure.subplots(len(rows), len(models), sharex=True, sharey="row", squeeze=False)
    for model, column in zip(models, panels.T, strict=True):
        runs = [run for run in drawn if run.base == model or run.base not in models]
        name = "model not known" if model is None else _label(Path(model).name)
        column[0].set_title(name, loc="left", fontsize=11, fontweight="bold", parse_math=False)
        for axes, draw in zip(column, rows.values(), strict=True):
            draw(axes, report, runs)
            _finish(axes, report)
        column[-1].set_xlabel("eta: probability that a conversation is an agent trajectory")
    for number, (label, row) in enumerate(zip(rows, panels, strict=True)):
        row[0].set_ylabel(label)
        _legend(row[-1], report, marks=number == 0)
    if "success rate" in rows:
        panels[0, 0].yaxis.set_major_formatter("{x:.0%}")
    return figure


def _draw_scores(axes: "Axes", report: Report, runs: list[RunResult]) -> None:
    several = len(report.tasks) > 1
    for number, task in enumerate(report.tasks):
        scored = [run for run in runs if task in run.scores]
        rates = [run.scores[task].rate for run in scored]
        intervals = [run.scores[task].interval for run in scored]
        if several:
            _points(axes, scored, rates, None, f"C{number % 10}", task, "-", alpha=0.55, size=4)
        else:
            _points(axes, scored, rates, intervals, MEAN_COLOUR, task, "-")
    if several:
        means = [(run, mean) for run in runs if (mean := report.mean(run)) is not None]
        scored, rates = [run for run, _ in means], [mean for _, (mean, _) in means]
        intervals = [interval for _, (_, interval) in means]
        _points(axes, scored, rates, intervals, MEAN_COLOUR, f"mean of {len(report.tasks)} tasks", "-")
    if not any(run.scores for run in runs):
        axes.text(0.5, 0.5, "no scores", transform=axes.transAxes, ha="center", va="center", color="0.5")


def _draw_losses(axes: "Axes", report: Report, runs: list[RunResult]) -> None:
    agent = {name for run in runs if run.training for name in run.training.agent_sources}
    colours = {True: iter(AGENT_COLOURS * 9), False: iter(GENERAL_COLOURS * 9)}
    for source in report.sources:
        measured, losses = [], []
        for run in runs:
            loss = run.training.held_out(source, run.training.last_measured) if run.training else None
            if loss is not None:
                measured.append(run)
                losses.append(loss)
        is_agent = source in agent
        label = source if source in ("agent", "general") else f"{source} ({'agent' if is_agent else 'general'})"
        _points(axes, measured, losses, None, next(colours[is_agent]), label, "-" if is_agent else "--")


def _points(
    axes: "Axes",
    runs: list[RunResult],
    values: list[float],
    intervals: list[tuple[float, float]] | None,
    colour: str,
    label: str,
    style: str,
    alpha: float = 1.0,
    size: float = 6.5,
) -> None:
    """Draw a value of every run over its eta, and the line through them."""
    by_eta: dict[float, list[float]] = {}
    for run, value in zip(runs, values, strict=True):
        assert run.eta is not None
        by_eta.setdefault(run.eta, []).append(value)
    etas = sorted(by_eta)
    means = [sum(by_eta[eta]) / len(by_eta[eta]) for eta in etas]
    (line,) = axes.plot(etas, means, style, color=colour, alpha=alpha, linewidth=1.8)
    line.set_gid(label)  # for the legend
    for number, (run, value) in enumerate(zip(runs, values, strict=True)):
        assert run.eta is not None
        if intervals is not None:
            low, high = intervals[number]
            bars = [[value - low], [high - value]]
            axes.errorbar(run.eta, value, bars, color=colour, elinewidth=1.2, capsize=3, alpha=0.6)
        face = colour if run.complete else "white"
        marker = "o" if style == "-" else "s"
        axes.plot(run.eta, value, marker, color=colour, markerfacecolor=face, markersize=size, alpha=alpha)


def _finish(axes: "Axes", report: Report) -> None:
    """Mark the paper's eta and the expected ones without a run; set the x axis."""
    axes.axvline(PAPER_ETA, color=PAPER_COLOUR, linewidth=6, alpha=0.5, zorder=0)
    foot = axes.get_xaxis_transform()
    axes.plot(report.missing_eta, [0.03] * len(report.missing_eta), "x", color=MISSING_COLOUR, transform=foot)
    etas = sorted({*report.etas, *report.missing_eta, PAPER_ETA})
    margin = 0.04 * max(etas[-1] - etas[0], 0.25)
    axes.set_xlim(etas[0] - margin, etas[-1] + margin)
    axes.set_xticks(etas if len(etas) <= 12 else [tenth / 10 for tenth in range(11)])
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _legend(axes: "Axes", report: Report, marks: bool) -> None:
    """Name the curves right of the panel, and with `marks` the paper's eta and the markers."""
    from matplotlib.lines import Line2D

    entries: dict[str, dict[str, Any]] = {
        str(line.get_gid()): {"color": line.get_color(), "linestyle": line.get_linestyle(), "alpha": line.get_alpha()}
        for line in axes.lines
        if line.get_gid()
    }
    if marks:
        entries[f"the paper's eta, {PAPER_ETA:g}"] = {"color": PAPER_COLOUR, "linewidth": 6, "alpha": 0.5}
        if any(run.eta is not None and not run.complete for run in report.runs):
            entries["not complete"] = {"color": "0.3", "marker": "o", "markerfacecolor": "white", "linestyle": ""}
        if report.missing_eta:
            entries["no run"] = {"color": MISSING_COLOUR, "marker": "x", "linestyle": ""}
    handles = [Line2D([], [], **style, label="entry") for style in entries.values()]
    legend = axes.legend(handles=handles, fontsize=9, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    for text, label in zip(legend.get_texts(), entries, strict=True):
        text.set_parse_math(False)
        text.set_text(_label(label))  # not as a label at once: those that begin with _ are left out


def scores_figure(report: Report) -> "Figure":
    """Draw every score as a bar with its 95 % interval, a group of bars for each task."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    runs = [run for run in report.runs if run.scores]
    colours = [colormaps["tab10"](number % 10) for number in range(len(runs))]
    height = 0.8 / len(runs)
    figure = Figure(figsize=(8, 1.6 + 0.45 * len(runs) * len(report.tasks)), layout="constrained")
    axes = figure.subplots()
    for place, task in enumerate(report.tasks):
        for number, run in enumerate(runs):
            score: Score | None = run.scores.get(task)
            if score is not None:
                y = place + (number - (len(runs) - 1) / 2) * height
                low, high = score.interval
                axes.barh(y, score.rate, 0.9 * height, color=colours[number], alpha=1 if run.complete else 0.4)
                bars = [[score.rate - low], [high - score.rate]]
                axes.errorbar(score.rate, y, xerr=bars, color="0.25", elinewidth=1.2, capsize=3)
                axes.text(high + 0.01, y, f"{score.rate:.1%} of {score.tasks}", va="center", fontsize=9)
    axes.set_yticks(range(len(report.tasks)), [_label(task) for task in report.tasks], parse_math=False)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.15)
    axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1], ["0%", "20%", "40%", "60%", "80%", "100%"])
    axes.set_xlabel(
        "success rate, with its 95 % interval" + ("" if all(r.complete for r in runs) else "; pale: unfinished")
    )
    axes.spines[["top", "right"]].set_visible(False)
    legend = figure.legend(
        handles=[Patch(color=colour, label="run") for colour in colours], loc="outside upper left", frameon=False
    )
    for text, run in zip(legend.get_texts(), runs, strict=True):
        text.set_parse_math(False)
        text.set_text(_label(run.name))
    return figure


def _label(name: str) -> str:
    """A name as it stands in a picture: the middle of a long one is left out."""
    name = printable(name)
    return name if len(name) <= LONGEST_LABEL else f"{name[: LONGEST_LABEL // 2]}...{name[-LONGEST_LABEL // 2 + 3 :]}"


def _save(figure: Any, path: Path) -> None:
    with atomic_write(path, "wb") as handle:
        figure.savefig(handle, format="png", dpi=130)
