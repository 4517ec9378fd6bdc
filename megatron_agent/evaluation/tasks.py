"""The tasks `python -m megatron_agent.evaluate --task` knows."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_agent.environments.base import Environment
from megatron_agent.environments.database import INSTRUCTIONS, DatabaseEnvironment, read_database_tasks
from megatron_agent.environments.database.scoring import category_scores
from megatron_agent.errors import UserError


@dataclass(frozen=True)
class TaskKind:
    """How one kind of task is read, played and scored.

    `make_environment` takes an instruction's name, one of `instructions` (the first is the default).
    `metrics` turns (category, reward) pairs into the paper's own scores, of which `main_metric` is the one it reports
    for the task. `repetition_limit` identical replies in a
    row end an episode, as the benchmark itself has it (0: never).
    """

    name: str
    read_tasks: Callable[[Path], list[Any]]
    make_environment: Callable[[str], Environment]
    instructions: tuple[str, ...]
    metrics: Callable[[Iterable[tuple[str, float]]], dict[str, float]]
    main_metric: str
    repetition_limit: int = 0


TASK_KINDS = {
    "database": TaskKind(
        name="database",
        read_tasks=read_database_tasks,
        make_environment=DatabaseEnvironment,
        instructions=tuple(INSTRUCTIONS),
        metrics=category_scores,
        main_metric="overall_cat_accuracy",
        repetition_limit=0,  # AgentBench plays all 15 rounds
    )
}


def get_task_kind(name: str) -> TaskKind:
    """Return a kind of task by name; UserError lists the known ones."""
    if name not in TASK_KINDS:
        raise UserError(f"--task: expected one of {', '.join(TASK_KINDS)}, got {name!r}")
    return TASK_KINDS[name]
