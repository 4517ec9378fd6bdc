"""Steps a second of the embedded environments: recorded gold replies played again, by the whole episode loop.

    python -m tests.benchmarks.environment_speed [--task T ...] [--seconds 5] [--json F.json]

Each world is opened with its defaults. Its expert plays every shipped task once (up to --limit); then the recorded
replies are played again and again: one episode at a time on one core, and 32 at once on all cores. `loop` counts what
the harness does at a step as well (history, records); `environment` is reset, step and close alone. `loop/CPU s` is the
same steps by the processor time of this process and all below it: what a core of its own gives on a busy machine.
The kernel forgets the time of a process that is killed unwaited for: so for the Operating System, whose sandboxes end
in that way, `loop/CPU s` leaves out what the sandbox's own programs took, and only `loop` on an idle machine counts.
"""

import argparse
import contextlib
import itertools
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from megatron_agent.agents.client import ScriptedClient
from megatron_agent.agents.episode import play, play_many
from megatron_agent.environments.base import Environment
from megatron_agent.environments.registry import HELD_IN, get_task_kinds
from megatron_agent.environments.task_kind import TaskKind, World
from megatron_agent.errors import UserError, run_command

BARS = dict(zip(HELD_IN, (10, 50, 200, 300, 200, 1000), strict=True))
"""Steps a second that each environment must reach on one core."""

Replies = dict[str, list[str]]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure the tasks asked for and print a line for each."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.environment_speed")
    parser.add_argument("--task", nargs="+", default=["held-in"], help="as of megatron_agent.evaluate")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement (default: 5)")
    parser.add_argument("--limit", type=int, default=100, help="tasks of each kind (default: 100)")
    parser.add_argument("--json", type=Path, metavar="F", help="file for the figures")
    arguments = parser.parse_args(argv)
    head = (
        "task",
        "tasks",
        "steps",
        "open s",
        "environment/s",
        "loop/s",
        "loop/CPU s",
        "bar",
        "32 at once/s",
        "scales",
    )
    print("{:<18}{:>6}{:>7}{:>8}{:>15}{:>9}{:>12}{:>7}{:>14}{:>8}".format(*head))
    figures = {kind.name: measure(kind, arguments.seconds, arguments.limit) for kind in get_task_kinds(arguments.task)}
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def measure(kind: TaskKind, seconds: float, limit: int) -> dict[str, Any]:
    """Measure one kind and print its line."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})  # what the world starts inherits it
    try:
        started = time.perf_counter()
        with kind.open(kind.options()) as world:
            opened = time.perf_counter() - started
            tasks = world.tasks[:limit]
            replies = record(kind, world, tasks)
            environment, _ = steps_a_second(environment_steps(world, tasks, replies), seconds)
            loop, loop_cpu = steps_a_second(loop_steps(world, tasks, replies), seconds)
    finally:
        os.sched_setaffinity(0, cores)
    with kind.open(kind.options()) as world:
        together, _ = steps_a_second(concurrent_steps(world, tasks, replies, 32), seconds)
    steps = sum(map(len, replies.values()))
    bar = BARS.get(kind.name)
    print(
        f"{kind.name:<18}{len(tasks):>6}{steps:>7}{opened:>8.2f}{environment:>15,.0f}{loop:>9,.0f}"
        f"{loop_cpu:>12,.0f}{'-' if bar is None else bar:>7}{together:>14,.0f}{together / loop:>7.2f}x"
    )
    rates = {"environment": environment, "loop": loop, "loop_by_cpu_time": loop_cpu, "32_at_once": together}
    return {"tasks": len(tasks), "steps": steps, "open_seconds": opened, "bar": bar, "cores": len(cores), **rates}


def record(kind: TaskKind, world: World, tasks: Sequence[Any]) -> Replies:
    """Let the expert play each task and return its replies. Raises UserError when it fails one."""
    if kind.expert is None:
        raise UserError(f"--task {kind.name}: its tasks have no expert to record")
    replies = {}
    for task in tasks:
        trajectory = play(world.make_environment(), task, ScriptedClient(kind.expert(task)))
        if trajectory.reward < 1:
            raise UserError(
                f"--task {kind.name}: the expert got {trajectory.reward} on {task.id} ({trajectory.status})"
            )
        own = trajectory.messages[trajectory.context_messages :]
        replies[task.id] = [message["content"] for message in own if message["role"] == "assistant"]
    return replies


def client_of(replies: Replies, task: Any) -> ScriptedClient:
    """Return a client that gives the recorded replies of a task once more."""
    left = iter(replies[task.id])
    return ScriptedClient(lambda messages: next(left))


def environment_steps(world: World, tasks: Sequence[Any], replies: Replies) -> Iterator[int]:
    """Yield the steps of episode after episode, played without the loop."""
    environment: Environment = world.make_environment()
    for task in itertools.cycle(tasks):
        environment.reset(task)
        for reply in replies[task.id]:
            environment.step(reply)
        environment.close()
        yield len(replies[task.id])


def loop_steps(world: World, tasks: Sequence[Any], replies: Replies) -> Iterator[int]:
    """Yield the steps of episode after episode, played by the loop."""
    for task in itertools.cycle(tasks):
        yield play(world.make_environment(), task, client_of(replies, task)).rounds


def concurrent_steps(world: World, tasks: Sequence[Any], replies: Replies, concurrency: int) -> Iterator[int]:
    """Yield the steps of episodes as they end, many played at once."""
    endless: Any = itertools.cycle(tasks)
    for trajectory in play_many(endless, world.make_environment, lambda task: client_of(replies, task), concurrency):
        yield trajectory.rounds


def steps_a_second(episodes: Iterator[int], seconds: float) -> tuple[float, float]:
    """Return the steps by second and by second of processor time, over `seconds` after a first, uncounted episode."""
    next(episodes)
    started, processor = time.perf_counter(), processor_seconds()
    steps = 0
    for done in episodes:
        steps += done
        if time.perf_counter() - started > seconds:
            break
    rates = steps / (time.perf_counter() - started), steps / (processor_seconds() - processor)
    episodes.close()  # type: ignore[attr-defined]
    return rates


def processor_seconds() -> float:
    """Return the processor time of this process and of all processes below it, ended ones too."""
    total = time.process_time() + sum(os.times()[2:4])
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += sum(child.cpu_times()[:4])
    return total


if __name__ == "__main__":
    run_command(main)
