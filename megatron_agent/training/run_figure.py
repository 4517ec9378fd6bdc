"""The picture of runs side by side: one colour a run, one panel a question."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter, LogLocator, PercentFormatter

from megatron_agent.files import atomic_write
from megatron_agent.training.run_curves import TIME_PARTS, FloatArray, RunCurves, moving_mean

COLUMNS = 3
X_LABELS = {"step": "step", "tokens": "tokens", "hours": "hours"}
PART_COLOURS = dict(zip(TIME_PARTS, colormaps["Set2"](range(8)), strict=True))
SMALL_SHARE = 0.04  # a share below this has no room for its figure


def draw_runs(runs: Mapping[str, RunCurves], output: Path, axis: str, smooth: int | None) -> None:
    """Draw the runs, by name, to `output` (its suffix is the format).

    `axis`: "step", "tokens" or "hours". `smooth`: steps in the moving mean; None takes a fiftieth of the run.
    """
    sources = list(dict.fromkeys(source for run in runs.values() for source in run.sources))
    rows_of_sources = -(-len(sources) // COLUMNS)
    rows = 2 + rows_of_sources
    figure = Figure(figsize=(5.2 * COLUMNS, 3.4 * rows), layout="constrained")
    panels = figure.subplots(rows, COLUMNS, squeeze=False)
    colours = dict(zip(runs, _colours(len(runs)), strict=True))
    panel = iter(panels.flat)
    for field, title in (("loss", "loss per trained token"), ("lr", "learning rate"), ("grad_norm", "gradient norm")):
        axes = next(panel)
        _titled(axes, title, axis)
        for name, run in runs.items():
            raw = field != "lr"  # the learning rate has no noise to smooth
            _curve(axes, run, (field,), axis, smooth if raw else 1, colours[name])
            if field == "loss":
                _mark_skipped(axes, run, axis, colours[name])
    if all((run.values("grad_norm") > 0).any() for run in runs.values()):
        panels[0, 2].set_yscale("log")
        panels[0, 2].yaxis.set_major_formatter("{x:g}")
        panels[0, 2].yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        panels[0, 2].yaxis.set_minor_formatter("{x:g}")
    for source in sources:
        axes = next(panel)
        _titled(axes, f"loss: {source}", axis)
        for name, run in runs.items():
            _curve(axes, run, ("source_loss", source), axis, smooth, colours[name])
            x, losses = run.held_out_curve(source, axis)
            axes.plot(x, losses, "o--", color=colours[name], markersize=5, linewidth=1, markeredgecolor="white")
    for axes in panels[1 : 1 + rows_of_sources].flat[len(sources) :]:
        next(panel)
        axes.axis("off")
    _throughput(next(panel), runs, axis, smooth, colours)
    _utilisation(next(panel), runs, axis, smooth, colours)
    _time_shares(next(panel), runs)
    _legend(figure, colours, any(run.held_out for run in runs.values()))
    with atomic_write(output, "wb") as handle:
        figure.savefig(handle, format=output.suffix[1:], dpi=110)


def _colours(count: int) -> list[Any]:
    if count <= 10:
        return list(colormaps["tab10"](range(count)))
    return list(colormaps["turbo"](np.linspace(0.05, 0.95, count)))


def _legend(figure: Figure, colours: Mapping[str, Any], held_out: bool) -> None:
    handles = [Line2D([], [], color=colour, linewidth=2.5, label="run") for colour in colours.values()]
    if held_out:
        handles.append(Line2D([], [], color="grey", marker="o", linestyle="--", label="held-out"))
    legend = figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 6), frameon=False)
    for text, name in zip(legend.get_texts(), colours, strict=False):
        text.set_parse_math(False)
        text.set_text(name)  # not as a label at once: those that begin with _ are left out


def _titled(axes: Any, title: str, axis: str) -> None:
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", parse_math=False)
    axes.set_xlabel(X_LABELS[axis])
    if axis == "tokens":
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _smoothed(values: FloatArray, smooth: int | None) -> FloatArray:
    return moving_mean(values, smooth or max(1, len(values) // 50))


def _curve(axes: Any, run: RunCurves, path: tuple[str, ...], axis: str, smooth: int | None, colour: Any) -> None:
    """Draw a field: as it is, faint, and smoothed."""
    values = run.values(*path)
    known = ~np.isnan(values)  # a step need not have tokens of every source
    x, values = run.axis(axis)[known], values[known]
    smoothed = _smoothed(values, smooth)
    if not np.array_equal(smoothed, values):
        axes.plot(x, values, color=colour, alpha=0.25, linewidth=0.8)
    few = len(values) < 3  # a line through one point is invisible
    axes.plot(x, smoothed, color=colour, linewidth=1.8, marker="." if few else None)


def _mark_skipped(axes: Any, run: RunCurves, axis: str, colour: Any) -> None:
    """Mark the skipped steps at the foot of the panel."""
    x = run.axis(axis)[run.skipped()]
    axes.plot(x, np.full(len(x), 0.04), "x", color=colour, transform=axes.get_xaxis_transform())


def _throughput(
    axes: Any, runs: Mapping[str, RunCurves], axis: str, smooth: int | None, colours: Mapping[str, Any]
) -> None:
    _titled(axes, "tokens/s (dotted: trained tokens/s)", axis)
    for name, run in runs.items():
        _curve(axes, run, ("tokens_per_second",), axis, smooth, colours[name])
        trained = _smoothed(run.values("trained_tokens_per_second"), smooth)
        axes.plot(run.axis(axis), trained, ":", color=colours[name], linewidth=1.8)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(EngFormatter(sep=""))


def _utilisation(
    axes: Any, runs: Mapping[str, RunCurves], axis: str, smooth: int | None, colours: Mapping[str, Any]
) -> None:
    """MFU, or where no run has one the TFLOP/s it would be made from."""
    known = any(not np.isnan(run.values("mfu")).all() for run in runs.values())
    _titled(axes, "MFU" if known else "TFLOP/s/GPU (no peak known: no MFU)", axis)
    for name, run in runs.items():
        _curve(axes, run, ("mfu" if known else "tflops_per_gpu",), axis, smooth, colours[name])
    axes.set_ylim(bottom=0)
    if known:
        axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))


def _time_shares(axes: Any, runs: Mapping[str, RunCurves]) -> None:
    """A bar a run, divided by where its time went."""
    axes.set_title("where the time goes", loc="left", fontsize=11, fontweight="bold")
    for place, (name, run) in enumerate(runs.items()):
        label = f"{name}: {np.nanmedian(run.values('seconds')):.3g} s a step"
        axes.text(0, place - 0.32, label, fontsize=8, va="bottom", parse_math=False)
        left = 0.0
        for part, share in run.time_shares().items():
            axes.barh(place, share, left=left, color=PART_COLOURS[part], height=0.55)
            if share >= SMALL_SHARE:
                axes.text(left + share / 2, place, f"{share:.0%}", ha="center", va="center", fontsize=8)
            left += share
    axes.set_yticks([])
    axes.set_ylim(max(len(runs), 3) - 0.6, -0.6)  # one run is not drawn as a block
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(xmax=1))
    axes.spines[["top", "right", "left"]].set_visible(False)
    handles = [Patch(color=PART_COLOURS[part], label=part) for part in TIME_PARTS]
    axes.legend(handles=handles, ncols=4, fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.12), frameon=False)
