"""Tables for the terminal and PNG pictures of mixture summaries (`summary.summarize`)."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from megatron_agent.dataset.summary import group_share
from megatron_agent.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_WITHOUT_SOURCES, WIDTH_OF_A_SOURCE = 23, 19  # of the table of an eta scan: `100.0/100.0/100.0` and two blanks
LONGEST_LABEL = 32  # characters of a name in a picture
SHARES = {"conversation_share": "conversations", "token_share": "tokens", "trained_token_share": "trained tokens"}


def print_summary(summary: dict[str, Any]) -> None:
    """Print the mixture at one eta as tables."""
    unit = summary["eta_per"]
    shares = _table(
        f"Mixture at eta = {summary['eta']:g} per {unit}: {summary['rows']:,} rows of {summary['seq_length']:,} tokens",
        ["source", "group", "expected", *SHARES.values()],
        f"expected, from eta and the weights: share of {unit}s; the others: realised shares",
    )
    passes = _table(
        "Passes and repeats",
        ["source", "drawn", "held out", "paper", "passes", "repeats", "run", "row run"],
        "paper: passes by its own arithmetic, one conversation a row and none held out; passes: realised, over "
        "what is not held out; repeats: of the conversation drawn most often; run: most conversations in "
        "succession from this source, in the order of training; row run: most rows in succession with nothing else",
    )
    for name, source in summary["sources"].items():
        realised = [f"{source[kind]:.2%}" for kind in SHARES]
        shares.add_row(name, source["group"], f"{source[f'expected_{unit}_share']:.2%}", *realised)
        passes.add_row(
            name,
            f"{source['conversations']:,}",
            f"{source['validation_conversations']:,}",
            f"{source['paper_passes']:.2f}",
            f"{source['passes']:.2f}",
            f"{source['most_repeats']:,}",
            f"{source['longest_run']:,}",
            f"{source['longest_run_rows']:,}",
        )
    console = _console()
    console.print(shares)
    console.print(passes)
    console.print(
        f"{summary['conversations']:,} conversations, {summary['tokens']:,} tokens, {summary['trained_tokens']:,} "
        f"trained; rows {summary['fill']:.2%} full, {summary['conversations_per_row']:.2f} conversations a row "
        f"(at most {summary['most_conversations_in_a_row']})",
        highlight=False,
    )


def print_scan(scan: list[dict[str, Any]]) -> None:
    """Print the mixtures of an eta scan as tables, one line an eta, as many sources beside each other as fit."""
    console = _console()
    names = list(scan[0]["sources"])
    at_once = max((console.width - WIDTH_WITHOUT_SOURCES) // WIDTH_OF_A_SOURCE, 1)
    groups = [names[start : start + at_once] for start in range(0, len(names), at_once)]
    for group in groups:
        shares = _table(
            f"Eta per {scan[0]['eta_per']}: {scan[0]['rows']:,} rows of {scan[0]['seq_length']:,} tokens",
            ["eta", "fill", "a row", *group],
            f"a row: conversations; sources: realised share, in %, of {'/'.join(SHARES.values())}",
        )
        for summary in scan:
            sources = [summary["sources"][name] for name in group]
            realised = ["/".join(f"{100 * source[kind]:.1f}" for kind in SHARES) for source in sources]
            packing = f"{summary['fill']:.2%}", f"{summary['conversations_per_row']:.2f}"
            shares.add_row(f"{summary['eta']:.1f}", *packing, *realised)
        console.print(shares)
    for group in groups:
        passes = _table(
            "Passes", ["eta", *group], "the paper's arithmetic (one conversation a row) -> realised after packing"
        )
        for summary in scan:
            sources = [summary["sources"][name] for name in group]
            counts = [f"{source['paper_passes']:.2f} -> {source['passes']:.2f}" for source in sources]
            passes.add_row(f"{summary['eta']:.1f}", *counts)
        console.print(passes)


def plot_summary(summary: dict[str, Any], path: str | Path) -> None:
    """Draw the mixture at one eta into a PNG: shares, passes, and how many conversations a row holds."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    sources = summary["sources"]
    colours = _colours(list(sources))
    passes_height = max(3.3, 0.33 * len(sources))  # inches
    figure = Figure(figsize=(10, 3.7 + passes_height), layout="constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=[3.3, passes_height])
    figure.suptitle(
        f"Mixture at eta = {summary['eta']:g} per {summary['eta_per']}: {summary['rows']:,} rows of "
        f"{summary['seq_length']:,} tokens, {summary['fill']:.2%} full"
    )

    axes = figure.add_subplot(grid[0, :])
    kinds = {f"expected_{summary['eta_per']}_share": f"expected ({summary['eta_per']}s)", **SHARES}
    left = [0.0] * len(kinds)
    for name, source in sources.items():
        shares = [source[kind] for kind in kinds]
        bars = axes.barh(list(kinds.values()), shares, left=left, color=colours[name])
        axes.bar_label(bars, [f"{share:.1%}" if share > 0.04 else "" for share in shares], label_type="center")
        left = [start + share for start, share in zip(left, shares, strict=True)]
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), title="Shares of the sources")
    axes.xaxis.set_major_formatter("{x:.0%}")

    axes = figure.add_subplot(grid[1, 0])
    for at, (name, source) in enumerate(sources.items()):
        for offset, kind, alpha in ((-0.2, "paper_passes", 0.45), (0.2, "passes", 1.0)):
            bars = axes.barh(at + offset, source[kind], 0.38, color=colours[name], alpha=alpha)
            axes.bar_label(bars, [f"{source[kind]:.2f}"], padding=3)
    axes.set_yticks(range(len(sources)), [_label(name) for name in sources], parse_math=False)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set(title="Passes (pale: the paper's arithmetic, unpacked)", xlabel="passes over the source")

    axes = figure.add_subplot(grid[1, 1])
    rows = summary["rows_by_conversations"]
    axes.bar(range(1, len(rows)), [count / summary["rows"] for count in rows[1:]], color="0.45")
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(left=0.4)
    axes.set(
        title=f"{summary['conversations_per_row']:.2f} conversations a row, at most "
        f"{summary['most_conversations_in_a_row']}",
        xlabel="conversations in a row",
        ylabel="share of rows",
    )
    _legend(figure, colours)
    _save(figure, path)


def plot_scan(scan: list[dict[str, Any]], path: str | Path) -> None:
    """Draw an eta scan into a PNG: agent share, trained tokens by source, passes, fill."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    etas = [summary["eta"] for summary in scan]
    names = list(scan[0]["sources"])
    colours = _colours(names)
    figure = Figure(figsize=(10, 8), layout="constrained")
    figure.suptitle(f"Eta per {scan[0]['eta_per']}: {scan[0]['rows']:,} rows of {scan[0]['seq_length']:,} tokens")
    panels: list[list[Axes]] = figure.subplots(2, 2, sharex=True).tolist()
    (share, trained), (passes, fill) = panels

    for (kind, label), style, grey in zip(SHARES.items(), ("o-", "s-", "^-"), ("0.0", "0.35", "0.6"), strict=True):
        shares = [group_share(summary, kind) for summary in scan]
        share.plot(etas, shares, style, color=grey, label=label, markersize=5)
    share.plot([0, 1], [0, 1], ":", color="0.8")
    share.set(title="Realised share of the agent sources")
    share.legend()

    by_source = [[summary["sources"][name]["trained_token_share"] for summary in scan] for name in names]
    trained.stackplot(etas, by_source, colors=[colours[name] for name in names])
    trained.set(title="Trained tokens by source", ylim=(0, 1))

    for name in names:
        for kind, style in (("passes", "o-"), ("paper_passes", "--")):
            counts = [summary["sources"][name][kind] for summary in scan]
            passes.plot(etas, counts, style, color=colours[name], markersize=4)
    passes.set_yscale("symlog", linthresh=1)  # from 0 to hundreds
    passes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    passes.set(title="Passes (dashed: the paper's arithmetic, unpacked)", xlabel="eta")

    fill.plot(etas, [summary["fill"] for summary in scan], "o-", color="0.3", markersize=4)
    for summary in scan:
        fill.annotate(
            f"{summary['conversations_per_row']:.1f}",
            (summary["eta"], summary["fill"]),
            xytext=(0, 6),
            textcoords="offset points",
            ha="center",
        )
    fill.margins(y=0.2)
    fill.set(title="Fill of the rows (numbers: conversations a row)", xlabel="eta")
    for axes in (share, trained):
        axes.yaxis.set_major_formatter("{x:.0%}")
    fill.yaxis.set_major_formatter("{x:.1%}")
    _legend(figure, colours)
    _save(figure, path)


def _console() -> Console:
    return Console(markup=False, emoji=False)  # names of sources are text: `[v2]`, `:x:`


def _table(title: str, headings: list[str], caption: str) -> Table:
    table = Table(title=title, caption=caption, caption_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if number == 0 else "right", overflow="fold")
    return table


def _colours(names: list[str]) -> dict[str, Any]:
    from matplotlib import colormaps

    if len(names) <= 10:
        return {name: colormaps["tab10"](number) for number, name in enumerate(names)}
    return {name: colormaps["turbo"](0.1 + 0.8 * number / (len(names) - 1)) for number, name in enumerate(names)}


def _legend(figure: "Figure", colours: dict[str, Any]) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(color=colour, label="source") for colour in colours.values()]
    # a column takes the width of its longest name and of its colour; 10 inches hold some 110 characters
    columns = max(110 // (max(map(len, map(_label, colours))) + 8), 1)
    legend = figure.legend(handles=handles, loc="outside lower center", ncols=columns)
    for text, name in zip(legend.get_texts(), colours, strict=True):
        text.set_parse_math(False)
        text.set_text(_label(name))  # not as a label at once: those that begin with _ are left out
    rows = -(-len(colours) // columns)
    figure.set_figheight(figure.get_figheight() + 0.25 * (rows - 1))


def _label(name: str) -> str:
    """A name as it stands in a picture: the middle of a long one is left out."""
    return name if len(name) <= LONGEST_LABEL else f"{name[: LONGEST_LABEL // 2]}...{name[-LONGEST_LABEL // 2 + 3 :]}"


def _save(figure: "Figure", path: str | Path) -> None:
    with atomic_write(path, "wb") as handle:
        figure.savefig(handle, format="png", dpi=130)
