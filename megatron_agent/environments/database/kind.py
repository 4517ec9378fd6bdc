"""The Database task as the harness knows it."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from megatron_agent.environments.database.environment import DatabaseEnvironment
from megatron_agent.environments.database.expert import gold_expert
from megatron_agent.environments.database.instructions import INSTRUCTIONS
from megatron_agent.environments.database.scoring import category_scores
from megatron_agent.environments.database.task import read_database_tasks
from megatron_agent.environments.prompts import read_prompt
from megatron_agent.environments.task_files import TaskSet
from megatron_agent.environments.task_kind import TaskKind, World, WorldOptions
from megatron_agent.errors import UserError

TASK_SET = TaskSet(
    shipped=Path(__file__).with_name("shipped.jsonl"),
    splits={
        "dev": ("dbbench/dev.jsonl",),
        "std": ("dbbench/standard.jsonl",),
        "train": ("dbbench/db_out_new.jsonl",),
    },
)


@dataclass(frozen=True)
class DatabaseOptions(WorldOptions):
    """The server, if any. The address may hold a password: it is in no text made of the options."""

    database_url: str = field(
        default="sqlite",
        repr=False,
        metadata={
            "help": "sqlite, in memory, or mysql://user:password@host:port for MySQL or MariaDB; the password may be "
            "in the variable AGENTLM_DATABASE_PASSWORD instead"
        },
    )
    database_connections: int = field(
        default=64, metadata={"help": "episodes at once on a MySQL or MariaDB server; more wait for their turn"}
    )


@contextmanager
def open_database(options: DatabaseOptions) -> Iterator[World]:
    """Read the tasks and connect to the server, if one is named; every environment has a database of its own."""
    if options.database_connections < 1:
        raise UserError(f"--database-connections: expected at least 1, got {options.database_connections}")
    tasks = read_database_tasks(TASK_SET.find(options))
    prompt = read_prompt(options.prompt_file) if options.prompt_file else None
    style = options.prompt_style
    if options.database_url == "sqlite":
        facts = {"engine": "sqlite", "server_version": sqlite3.sqlite_version}
        yield World(tasks, lambda: DatabaseEnvironment(style, prompt=prompt), facts)
        return
    try:
        from megatron_agent.environments.database.connections import parse_database_url
        from megatron_agent.environments.database.mysql_backend import MySqlBackend
        from megatron_agent.environments.database.server import open_server
    except ImportError as error:
        raise UserError(
            f"--database-url: a server needs PyMySQL ({error}); pip install 'agentlm-megatron[database]'"
        ) from error
    with open_server(parse_database_url(options.database_url), options.database_connections) as server:
        yield World(
            tasks,
            lambda: DatabaseEnvironment(style, MySqlBackend(server), prompt=prompt),
            {"engine": server.engine, "server_version": server.version},
        )


TASK_KIND = TaskKind(
    name="database",
    title="Database",
    options=DatabaseOptions,
    open=open_database,
    metrics=category_scores,
    main_metric="overall_cat_accuracy",
    weight=12.0,
    expert=gold_expert,
    prompt_styles=tuple(INSTRUCTIONS),
)
