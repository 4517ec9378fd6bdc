"""Flags made from the options of kinds, and options made from flags."""

import argparse
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from megatron_agent.environments.registry import get_task_kind
from megatron_agent.environments.task_kind import TaskKind, WorldOptions
from megatron_agent.errors import UserError
from megatron_agent.evaluation.world_options import add_world_options, read_world_options


@dataclass(frozen=True)
class OneOptions(WorldOptions):
    one_url: str | None = field(default=None, metadata={"help": "address, 100% needed"})
    one_rows: int = field(default=7, metadata={"help": "rows"})
    one_fast: bool = field(default=False, metadata={"help": "hurry"})
    one_folder: Path | None = field(default=None, metadata={"help": "folder"})
    prompt_style: str = field(default="short", metadata={"help": "style"})


@dataclass(frozen=True)
class TwoOptions(WorldOptions):
    two_share: float = field(default=0.5, metadata={"help": "share"})


BASE = get_task_kind("database")
ONE = replace(BASE, name="one", options=OneOptions, prompt_styles=("paper", "short"))
TWO = replace(BASE, name="two", options=TwoOptions, prompt_styles=("paper", "fixed"))


def read(kinds: list[TaskKind], *words: str) -> list[Any]:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_world_options(parser, kinds)
    parser.format_help()  # a `%` in a help text must not break it
    return read_world_options(kinds, parser.parse_args(words))


def test_defaults_are_those_of_each_kind() -> None:
    assert read([ONE, TWO]) == [OneOptions(), TwoOptions()]


def test_values_have_the_types_of_the_fields() -> None:
    words = ["--one-url=u", "--one-rows=3", "--one-fast", "--one-folder=f", "--two-share=0.25", "--prompt-style=paper"]
    assert read([ONE, TWO], *words) == [
        OneOptions(prompt_style="paper", one_url="u", one_rows=3, one_fast=True, one_folder=Path("f")),
        TwoOptions(prompt_style="paper", two_share=0.25),
    ]
    assert read([ONE], "--no-one-fast")[0].one_fast is False


def test_one_task_takes_its_path_with_or_without_a_name() -> None:
    for value in ("x=y.jsonl", "one=x=y.jsonl"):
        assert read([ONE], "--tasks", value, "--split", "dev") == [OneOptions(tasks=Path("x=y.jsonl"), split="dev")]


def test_several_tasks_share_a_folder_and_name_their_files(tmp_path: Path) -> None:
    """A file has no splits, and a task without a path plays its shipped set."""
    (tmp_path / "two.jsonl").touch()
    database = replace(BASE, name="operating_system")
    named = ["--tasks", f"two={tmp_path}/two.jsonl"]
    one, two, system = read([ONE, TWO, database], "--tasks", str(tmp_path), "--split", "std", *named)
    assert (one.tasks, one.split) == (tmp_path, "std")
    assert (two.tasks, two.split) == (tmp_path / "two.jsonl", None)
    assert (system.tasks, system.split) == (tmp_path, "std")
    one, two = read([ONE, TWO], *named, "--prompt-file", "one=p.json")
    assert (one.tasks, one.prompt_file) == (None, Path("p.json"))
    assert (two.tasks, two.prompt_file) == (tmp_path / "two.jsonl", None)
    short = read([ONE, database], "--tasks", "os=x.jsonl", "--tasks", "one=y.jsonl")
    assert [options.tasks for options in short] == [Path("y.jsonl"), Path("x.jsonl")]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tasks", "x.jsonl"], "AgentBench's data folder, or NAME=PATH for the 2 tasks one, two, got a path where"),
        (["--tasks", "one=x", "--tasks", "one=y"], "--tasks: one is given twice"),
        (["--tasks", "kg=x"], "--tasks kg=x: knowledge_graph is not played; --task names one, two"),
        (["--tasks", "x", "--tasks", "y"], "--tasks: got x and y; name the task of each"),
        (["--prompt-file", "p.json"], "p.json: expected NAME=PATH for the 2 tasks one, two, got a path where"),
        (["--split", "std"], "--split std: needs --tasks with AgentBench's data folder"),
        (["--prompt-style", "short"], "--prompt-style: expected one of paper, fixed for two, got 'short'"),
    ],
)
def test_what_does_not_fit_several_tasks_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read([ONE, TWO], *words)


def test_flags_of_two_kinds_must_differ() -> None:
    with pytest.raises(UserError, match="--task three: its option --two-share is taken already"):
        read([TWO, replace(TWO, name="three")])
