"""The Database task as the harness knows it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from megatron_agent.environments.database.environment import INSTRUCTIONS, DatabaseEnvironment
from megatron_agent.environments.database.scoring import category_scores
from megatron_agent.environments.database.task import read_database_tasks
from megatron_agent.environments.task_files import find_tasks
from megatron_agent.environments.task_kind import TaskKind, World, WorldOptions

SHIPPED = Path(__file__).with_name("shipped.jsonl")
SPLITS = {
    "dev": ("dbbench/dev.jsonl",),
    "std": ("dbbench/standard.jsonl",),
    "train": ("dbbench/db_out_new.jsonl",),
}


@contextmanager
def open_database(options: WorldOptions) -> Iterator[World]:
    """Read the tasks; every environment has a database of its own."""
    tasks = read_database_tasks(find_tasks(options, SHIPPED, SPLITS))
    yield World(tasks, lambda: DatabaseEnvironment(options.prompt_style), {"engine": "sqlite"})


TASK_KIND = TaskKind(
    name="database",
    title="Database",
    options=WorldOptions,
    open=open_database,
    metrics=category_scores,
    main_metric="overall_cat_accuracy",
    weight=12.0,
    prompt_styles=tuple(INSTRUCTIONS),
)
