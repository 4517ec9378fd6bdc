"""A kind of task: how its tasks are read, its world opened, its episodes scored. One `TASK_KIND` a task module."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from megatron_agent.environments.base import Environment, Message, Status

Fact = str | int | float | bool | None
"""A value that compares equal after a round trip through JSON."""

Expert = Callable[[Sequence[Message]], str]
"""Replies to one episode of one task: messages so far in, next reply out. A new one is made for every episode."""


@dataclass(frozen=True)
class WorldOptions:
    """What a user may choose when a world is opened.

    A kind of task with choices of its own subclasses this; every field needs a default, `metadata["help"]`, and a
    name no other kind uses: `python -m megatron_agent.evaluate` makes flags of them (`database_url` is
    `--database-url`).
    """

    tasks: Path | None = field(
        default=None, metadata={"help": "task file, or AgentBench's data folder (default: the set shipped here)"}
    )
    split: str | None = field(default=None, metadata={"help": "dev, std or train: which file of AgentBench's folder"})
    prompt_style: str = field(
        default="paper",
        metadata={"help": "paper: as the released evaluator; fixed: its traps mended (docs/environments.md)"},
    )
    prompt_file: Path | None = field(
        default=None,
        metadata={"help": "the messages before the task: AgentBench's JSON file, or AgentInstruct's split (.jsonl)"},
    )


@dataclass(frozen=True)
class World:
    """An opened kind of task: its tasks, and environments that share what was opened (catalogue, store, pool).

    `facts` are what scores depend on beside tasks and prompt: the engine behind the environment, the hash of a
    catalogue, whether an optional library was found. A resumed run must find them unchanged.
    """

    tasks: Sequence[Any]
    make_environment: Callable[[], Environment]
    facts: Mapping[str, Fact] = field(default_factory=dict)


@dataclass(frozen=True)
class EpisodeScore:
    """What the scores of a task are made of."""

    category: str
    reward: float
    status: Status
    scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskKind:
    """How one kind of task is opened, played and scored.

    `open(options)` is a context manager: it reads tasks, starts or connects to what they need, gives a
    :class:`World`, and releases everything at its end. Raises UserError naming the flag, file or package at fault.
    `metrics` turns the episodes into the benchmark's scores, each in [0, 1]; the paper reports
    `100 * main_metric`, and its overall score divides that by `weight` (Table 3; None: no part of the overall).
    `expert(task)` replays the task's gold solution; None where tasks carry none. `repetition_limit` identical
    replies in a row end an episode in the loop (0: never, or the environment itself sees to it).
    `prompt_styles` are the texts and parsing rules there are, `paper` first.
    """

    name: str
    title: str
    options: type[WorldOptions]
    open: Callable[[Any], AbstractContextManager[World]]
    metrics: Callable[[Sequence[EpisodeScore]], dict[str, float]]
    main_metric: str
    weight: float | None = None
    expert: Callable[[Any], Expert] | None = None
    repetition_limit: int = 0
    prompt_styles: tuple[str, ...] = ("paper", "fixed")
