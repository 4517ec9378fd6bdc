"""Scores of a model on tasks, read from the folders that `python -m megatron_agent.evaluate` writes."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_agent.errors import UserError
from megatron_agent.evaluation.overall import Overall, overall_score
from megatron_agent.evaluation.paper_scores import WEIGHTS
from megatron_agent.evaluation.summary import wilson_interval
from megatron_agent.files import read_json_object

MEND = "evaluate again, or remove the folder"
SUMMARY_FIELDS = ("tasks", "successes", "metrics", "settings")
NOT_COMPARED = ("task", "model", "model_sha256")
"""Settings that may differ between scores of a task set beside each other."""


@dataclass(frozen=True)
class Score:
    """The success rate on a task, between 0 and 1, with its 95 % interval."""

    task: str
    folder: Path
    tasks: int
    successes: int
    metrics: dict[str, float]
    """As the benchmark of the task computes them."""
    settings: dict[str, Any]
    main_metric: str | None = None
    """Name of the metric that the paper reports."""
    task_errors: int = 0
    """Episodes that the machinery broke; they count 0."""
    whole_std_split: bool = False
    """Whether these are all tasks of AgentBench's std split, as the paper's scores are."""

    @property
    def rate(self) -> float:
        """Successes of all tasks; 0 without any."""
        return self.successes / self.tasks if self.tasks else 0.0

    @property
    def reported(self) -> float | None:
        """What the paper reports: 100 times the main metric; None where the summary names none."""
        return None if self.main_metric is None else 100 * self.metrics[self.main_metric]

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's interval of the rate at 95 %."""
        return wilson_interval(self.successes, self.tasks)


def is_evaluation(folder: Path, files: Iterable[str]) -> bool:
    """Return whether a folder with these files was written by `megatron_agent.evaluate`, finished or not."""
    names = set(files)
    if {"settings.json", "results.jsonl"} <= names:
        return True
    return "summary.json" in names and set(SUMMARY_FIELDS) <= set(read_json_object(folder / "summary.json", MEND))


def read_score(folder: Path) -> Score | None:
    """Return the score in an evaluation folder, None while it has no summary.json. UserError when it is damaged."""
    path = folder / "summary.json"
    if not path.exists():
        return None
    summary = read_json_object(path, MEND)
    tasks, successes, metrics, settings = map(summary.get, SUMMARY_FIELDS)
    task = settings.get("task") if isinstance(settings, dict) else None
    if (
        isinstance(tasks, int)
        and isinstance(successes, int)
        and 0 <= successes <= tasks
        and isinstance(settings, dict)
        and isinstance(task, str)
        and isinstance(metrics, dict)
        and all(isinstance(value, int | float) and math.isfinite(value) for value in metrics.values())
    ):
        main_metric = summary.get("main_metric")
        statuses = summary.get("statuses")
        errors = statuses.get("task error", 0) if isinstance(statuses, dict) else 0
        main_metric = main_metric if main_metric in metrics else None
        whole = summary.get("whole_std_split") is True
        return Score(task, folder, tasks, successes, metrics, settings, main_metric, errors, whole)
    raise UserError(
        f"{path}: expected a summary of megatron_agent.evaluate with the counts tasks and successes, metrics, and "
        f"settings with a task; got tasks {tasks!r}, successes {successes!r}, task {task!r}; {MEND}"
    )


def mean_with_interval(scores: Iterable[Score]) -> tuple[float, tuple[float, float]]:
    """Return the mean rate of scores and its 95 % interval.

    The distances of each rate from the ends of its interval are combined as those of independent estimates (Zou and
    Donner 2008, Statistics in Medicine 27:1693), so a mean of one score has that score's interval.
    """
    scores = list(scores)
    mean = sum(score.rate for score in scores) / len(scores)
    below = math.hypot(*(score.rate - score.interval[0] for score in scores)) / len(scores)
    above = math.hypot(*(score.interval[1] - score.rate for score in scores)) / len(scores)
    return mean, (max(0.0, mean - below), min(1.0, mean + above))


def overall_of(scores: Iterable[Score]) -> Overall | None:
    """Return the paper's overall of a run's scores; None without a held-in task, or with two scores on one."""
    held = [(score.task, score.reported) for score in scores if score.task in WEIGHTS]
    reported = {task: value for task, value in held if value is not None}
    return overall_score(reported, WEIGHTS) if reported and len(reported) == len(held) else None


def different_settings(scores: Iterable[Score]) -> list[str]:
    """Return the settings in which scores of one task differ, and should not when they are compared."""
    settings = [score.settings for score in scores]
    names = dict.fromkeys(name for held in settings for name in held if name not in NOT_COMPARED)
    return [name for name in names if any(held.get(name) != settings[0].get(name) for held in settings)]
