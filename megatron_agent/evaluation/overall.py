"""Several tasks together: the paper's normalised overall score, one summary, one table."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from megatron_agent.agents.trajectory import sum_known
from megatron_agent.evaluation.paper_scores import PAPER_OVERALL, PAPER_SCORES, TASKS

SHOWN_MODELS = tuple(model for model in PAPER_SCORES if not model.startswith("GPT"))


@dataclass(frozen=True)
class Overall:
    """The mean of score / weight over the tasks that have a weight (paper, section 3.1; AgentBench, section 4.1)."""

    value: float | None
    """None without any weighted task."""
    tasks: list[str]
    missing: list[str]
    """Held-in tasks without a score. The paper's number is of all six: with one missing the value is partial."""

    @property
    def complete(self) -> bool:
        return not self.missing

    def text(self) -> str:
        """Return the value as a reader should see it, such as `1.84 (partial: 2 of 6 tasks)`."""
        if self.value is None:
            return "none (no task with a weight)"
        partial = "" if self.complete else f" (partial: {len(self.tasks)} of {len(TASKS)} tasks)"
        return f"{self.value:.2f}{partial}"


def overall_score(scores: Mapping[str, float], weights: Mapping[str, float | None]) -> Overall:
    """Return the normalised overall of scores (100 times the main metric) by task."""
    weighted = {task: weight for task in scores if (weight := weights.get(task))}
    value = sum(scores[task] / weight for task, weight in weighted.items()) / len(weighted) if weighted else None
    return Overall(value, list(weighted), [task for task in TASKS if task not in scores])


def summarize_tasks(
    summaries: Mapping[str, dict[str, Any]], earlier: Sequence[str] = (), unfinished: Sequence[str] = ()
) -> dict[str, Any]:
    """Return one summary of the summaries of several tasks; `overall` is null unless all six are there.

    `earlier` names those that this run did not play, `unfinished` other tasks of the folder, which have no summary.
    """
    scores = {task: summary["score"] for task, summary in summaries.items()}
    overall = overall_score(scores, {task: summary["weight"] for task, summary in summaries.items()})
    statuses: Counter[str] = Counter()
    for summary in summaries.values():
        statuses.update(summary["statuses"])
    return {
        "scores": scores,
        "overall": overall.value if overall.complete else None,
        "partial_overall": None if overall.complete else overall.value,
        "overall_of": overall.tasks,
        "missing": overall.missing,
        "earlier": list(earlier),
        "unfinished": list(unfinished),
        "episodes": sum(summary["tasks"] for summary in summaries.values()),
        "statuses": dict(sorted(statuses.items())),
        **{name: sum_known(s[name] for s in summaries.values()) for name in ("prompt_tokens", "completion_tokens")},
        "cost": sum_known(summary["cost"] for summary in summaries.values()),
        "episode_seconds": round(sum(summary["episode_seconds"] for summary in summaries.values()), 3),
        "of_tasks": {
            task: {name: value for name, value in summary.items() if name != "categories"}
            for task, summary in summaries.items()
        },
        "paper": {model: {**PAPER_SCORES[model], "overall": PAPER_OVERALL[model]} for model in PAPER_SCORES},
    }


def print_scores(summary: dict[str, Any]) -> None:
    """Print the scores of several tasks beside the paper's."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    tasks: dict[str, dict[str, Any]] = summary["of_tasks"]
    overall = Overall(
        summary["partial_overall"] if summary["overall"] is None else summary["overall"],
        summary["overall_of"],
        summary["missing"],
    )
    table = Table(
        box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), title="Scores beside the paper's (Table 4, AgentBench's std split)"
    )
    for number, heading in enumerate(("task", "n", "score", *(_heading(model) for model in SHOWN_MODELS))):
        table.add_column(heading, justify="left" if number == 0 else "right", no_wrap=True)
    for task, of_task in tasks.items():
        paper = [PAPER_SCORES[model].get(task) for model in SHOWN_MODELS]
        cells = ["-" if score is None else f"{score:.1f}" for score in paper]
        table.add_row(task, str(of_task["tasks"]), f"{of_task['score']:.1f}", *cells)
    table.add_section()
    episodes = str(summary["episodes"])
    value = overall.text() if overall.complete else "-"  # the line below says what there is
    table.add_row("overall", episodes, value, *(f"{PAPER_OVERALL[model]:.2f}" for model in SHOWN_MODELS))
    Console(markup=False, emoji=False, highlight=False).print(table)
    print(f"overall: {overall.text()}" + (f"; missing: {', '.join(overall.missing)}" if overall.missing else ""))
    if remark := not_comparable(tasks):
        print(remark)
    if summary["earlier"]:
        print(f"not played now, scores of earlier runs: {', '.join(summary['earlier'])}")
    if summary["unfinished"]:
        print(f"begun by an earlier run and not finished, no scores yet: {', '.join(summary['unfinished'])}")
    for task, of_task in tasks.items():
        print(f"{task}: {endings(of_task['statuses'])}")
    print(totals(summary))
    for line in task_errors(tasks):
        print(line)


def not_comparable(summaries: Mapping[str, Mapping[str, Any]]) -> str:
    """Return what keeps summaries by task from being set beside the paper's scores; an empty text when nothing does."""
    held = {task: summary for task, summary in summaries.items() if task in TASKS}
    reasons = {
        "not AgentBench's whole std split was played": [t for t, s in held.items() if not s["whole_std_split"]],
        "another prompt style than paper": [t for t, s in held.items() if s["settings"]["prompt_style"] != "paper"],
    }
    told = "; ".join(f"{reason} of {', '.join(tasks)}" for reason, tasks in reasons.items() if tasks)
    return f"not comparable with the paper's: {told}" if told else ""


def task_errors(summaries: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield a line for each task with episodes that the machinery broke: their 0 says nothing of the model."""
    for task, summary in summaries.items():
        if number := summary["statuses"].get("task error", 0):
            why, count = Counter(summary["task_errors"]).most_common(1)[0]
            most = "" if count == number else f", {count} times"
            yield (
                f"task errors, which count 0 and are played again by the same command: {number} of {summary['tasks']} "
                f"episodes of {task} ({why}{most})"
            )


def endings(statuses: Mapping[str, int]) -> str:
    """Return how episodes ended, in one line."""
    return ", ".join(f"{name} {count}" for name, count in statuses.items()) or "no episode"


def totals(summary: Mapping[str, Any]) -> str:
    """Return tokens, cost and time of a summary in one line; what is not known is left out."""
    parts = [f"{summary['episode_seconds']:,.0f} s of play"]
    for name in ("prompt_tokens", "completion_tokens"):
        if summary[name] is not None:
            parts.append(f"{summary[name]:,} {name.replace('_', ' ')}")
    if summary["cost"] is not None:
        parts.append(f"cost {summary['cost']:.4f}")
    return ", ".join(parts)


def _heading(model: str) -> str:
    return model.replace("-chat", "").replace("-", "\n", 1)
