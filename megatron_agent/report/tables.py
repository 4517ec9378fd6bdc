"""The one place that writes a report down: tables for the console and as Markdown, and all figures as JSON."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from megatron_agent.evaluation.overall import SHOWN_MODELS
from megatron_agent.evaluation.paper_scores import PAPER_OVERALL, PAPER_SCORES, TASKS
from megatron_agent.report.collect import Report, RunResult
from megatron_agent.report.scores import Score, overall_of

Interval = tuple[float, float]


@dataclass
class Text:
    """A table as text: its title, head, rows, and a line that explains it. The first column is the run."""

    title: str
    head: list[str]
    rows: list[list[str]]
    caption: str


def report_tables(report: Report) -> list[Text]:
    """Return the tables of a report; one without rows is left out."""
    tables = [_scores(report), _metrics(report), _training(report), _held_out(report)]
    return [table for table in tables if table.rows]


def missing_lines(report: Report) -> list[str]:
    """Return a line for every expected run without a trace and every run that lacks something."""
    lines = [f"eta {eta:g}: no run" for eta in report.missing_eta]
    return lines + [f"{run.name}: {'; '.join(run.lacks)}" for run in report.runs if run.lacks]


def _scores(report: Report) -> Text:
    head = ["run", "eta", *report.tasks]
    caption = "successes/tasks = success rate in % [95 % interval]; *: the training is not complete"
    several = len(report.tasks) > 1
    if several:
        head.append("mean")
        caption += "; mean: over the tasks, for runs with one score on each"
    rows = []
    for run in report.runs:
        if run.scores:
            cells = [_score_cell(run.scores[task]) if task in run.scores else "-" for task in report.tasks]
            mean = report.mean(run)
            cells += [_rate_cell(*mean) if mean else "-"] if several else []
            rows.append([run.name, _eta(run), *cells])
    return Text("Scores", head, rows, caption)


def _training(report: Report) -> Text:
    rows = []
    for run in report.runs:
        if training := run.training:
            steps = f"{training.steps:,}/{'?' if training.train_iters is None else format(training.train_iters, ',')}"
            gpu_hours = "-" if training.gpu_hours is None else f"{training.gpu_hours:,.2f}"
            rows.append(
                [
                    run.name,
                    _eta(run),
                    Path(run.model).name if run.model else "-",
                    steps if run.complete else f"{steps} *",
                    f"{training.trained_tokens:,}",
                    f"{training.hours:.2f}",
                    gpu_hours,
                ]
            )
    return Text(
        "Training",
        ["run", "eta", "model", "steps", "trained tokens", "hours", "GPU-hours"],
        rows,
        "*: not complete; trained tokens: those with a loss; hours: with evaluation and checkpoints; GPU-hours: none "
        "on CPUs",
    )


def _held_out(report: Report) -> Text:
    rows = []
    for run in report.runs:
        training = run.training
        if training is not None and training.last_measured is not None:
            best, last = training.best_step, training.last_measured
            losses = [(training.held_out(source, best), training.held_out(source, last)) for source in report.sources]
            cells = [f"{_loss(at_best)} / {_loss(at_last)}" for at_best, at_last in losses]
            rows.append([run.name, _eta(run), f"{'-' if best is None else format(best, ',')} / {last:,}", *cells])
    return Text(
        "Held-out loss",
        ["run", "eta", "step", *report.sources],
        rows,
        "loss per trained token at the best / last measured step; best: of the lowest mean over the sources",
    )


def _metrics(report: Report) -> Text:
    """Return what the paper reports of the runs that have it: main metrics, the overall; below it the paper's own."""
    order = {task: number for number, task in enumerate(TASKS)}
    found = [
        (order.get(score.task, len(order)), name, score.task, score.main_metric)
        for run in report.runs
        for name, score in run.scores.items()
        if score.main_metric is not None
    ]
    columns = {name: task for _, name, task, _ in sorted(found)}
    metrics = dict.fromkeys(f"{task} {metric}" for _, _, task, metric in sorted(found))
    rows = []
    for run in report.runs:
        scores = [run.scores.get(name) for name in columns]
        values = [score.reported if score else None for score in scores]
        if any(value is not None for value in values):
            overall = overall_of(run.scores.values())
            rows.append([run.name, _eta(run), *map(_points, values), overall.text() if overall else "-"])
    tasks = list(columns.values())
    held = [score for run in report.runs for score in run.scores.values() if score.task in TASKS]
    part = dict.fromkeys(score.task for score in held if not score.whole_std_split)
    split = f"std split, which was not played as a whole of {', '.join(part)}" if part else "std split"
    if any(task in paper for task in tasks for paper in PAPER_SCORES.values()):
        for model in SHOWN_MODELS:
            printed = [PAPER_SCORES[model].get(task) for task in tasks]
            rows.append([f"{model} (paper)", "-", *map(_points, printed), f"{PAPER_OVERALL[model]:.2f}"])
    return Text(
        "The benchmarks' own metrics",
        ["run", "eta", *columns, "overall"],
        rows,
        f"in %: {', '.join(metrics)}; the paper's on AgentBench's {split}; overall: mean of score / weight over the "
        "six held-in tasks, partial where some are missing",
    )


def _eta(run: RunResult) -> str:
    eta = "-" if run.eta is None else f"{run.eta:g}"
    return eta if run.complete else f"{eta} *"


def _score_cell(score: Score) -> str:
    return f"{score.successes}/{score.tasks} = {_rate_cell(score.rate, score.interval)}"


def _rate_cell(rate: float, interval: Interval) -> str:
    return f"{100 * rate:.1f} [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def _points(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _loss(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def printable(text: str) -> str:
    """Return a text on one line in which characters that a terminal or UTF-8 would not show stand as escapes."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def print_report(report: Report) -> None:
    """Print the tables, what is missing, and the remarks."""
    console = Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:  # a file or pipe, for which rich takes 80 columns
        console.width = 150
    for text in report_tables(report):
        table = Table(title=text.title, caption=text.caption, caption_justify="left", box=box.SIMPLE_HEAD)
        for number, heading in enumerate(text.head):
            table.add_column(printable(heading), justify="left" if number == 0 else "right", overflow="fold")
        for row in text.rows:
            name, *cells = map(printable, row)
            table.add_row(name, *(cell.replace(" [", "\n[") for cell in cells))  # intervals, before they are broken
        console.print(table)
    for title, lines in (("Missing", missing_lines(report)), ("Remarks", report.remarks)):
        if lines:
            console.print(f"{title}:")
            for line in lines:
                console.print(f"  {printable(line)}", soft_wrap=True)


def report_markdown(report: Report, pictures: list[str]) -> str:
    """Return the report as Markdown; `pictures` are shown by their addresses."""
    parts = [f"# Report on {len(report.runs)} run{'s' if len(report.runs) > 1 else ''}"]
    parts += [f"![{Path(picture).stem}]({picture})" for picture in pictures]
    for text in report_tables(report):
        lines = [text.head, ["---"] + ["---:"] * (len(text.head) - 1), *text.rows]
        body = "\n".join(f"| {' | '.join(map(_escaped, line))} |" for line in lines)
        parts.append(f"## {text.title}\n\n{body}\n\n{_escaped(text.caption)}")
    for title, found in (("Missing", missing_lines(report)), ("Remarks", report.remarks)):
        if found:
            parts.append(f"## {title}\n\n" + "\n".join(f"- {_escaped(line)}" for line in found))
    return "\n\n".join(parts) + "\n"


def _escaped(text: str) -> str:
    """Return a text as Markdown shows it, whatever is in it."""
    if set(text) <= set("-:"):
        return text
    return "".join(f"\\{character}" if character in "\\`*_{}[]<>|#!$~&" else character for character in printable(text))


def report_json(report: Report) -> dict[str, Any]:
    """Return all figures of a report as plain values; what is not known or not finite is null."""
    return {
        "runs": [_run_json(report, run) for run in report.runs],
        "tasks": report.tasks,
        "expected_eta": report.expected_eta,
        "missing_eta": report.missing_eta,
        "failed": report.failed,
        "remarks": report.remarks,
    }


def _run_json(report: Report, run: RunResult) -> dict[str, Any]:
    mean = report.mean(run)
    overall = overall_of(run.scores.values())
    training = run.training
    return {
        "name": run.name,
        "folder": str(run.folder),
        "eta": run.eta,
        "model": run.model,
        "complete": run.complete,
        "lacks": run.lacks,
        "scores": {task: _score_json(score) for task, score in run.scores.items()},
        "overall": overall.value if overall and overall.complete else None,
        "partial_overall": overall.value if overall and not overall.complete else None,
        "overall_of": overall.tasks if overall else [],
        "mean_success_rate": mean[0] if mean else None,
        "mean_success_rate_95": list(mean[1]) if mean else None,
        "training": training
        and {
            "steps": training.steps,
            "train_iters": training.train_iters,
            "checkpoint_step": training.checkpoint_step,
            "trained_tokens": training.trained_tokens,
            "hours": training.hours,
            "gpu_hours": training.gpu_hours,
            "best_step": training.best_step,
            "held_out_best": {source: training.held_out(source, training.best_step) for source in report.sources},
            "last_measured": training.last_measured,
            "held_out_last": {source: training.held_out(source, training.last_measured) for source in report.sources},
        },
    }


def _score_json(score: Score) -> dict[str, Any]:
    return {
        "task": score.task,
        "folder": str(score.folder),
        "tasks": score.tasks,
        "successes": score.successes,
        "success_rate": score.rate,
        "success_rate_95": list(score.interval),
        "score": score.reported,
        "main_metric": score.main_metric,
        "metrics": score.metrics,
        "settings": score.settings,
    }
