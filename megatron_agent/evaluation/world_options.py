"""Flags of the chosen kinds of task, made from the fields of their option classes, and options made from the flags."""

import argparse
from collections.abc import Sequence
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

from megatron_agent.environments.registry import HELD_IN, SHORT_NAMES
from megatron_agent.environments.task_kind import TaskKind, WorldOptions
from megatron_agent.errors import UserError

PER_TASK = ("tasks", "prompt_file")
"""Options that several tasks cannot share as they are: each may be given as NAME=PATH, once a task."""


def add_world_options(parser: argparse.ArgumentParser, kinds: Sequence[TaskKind]) -> None:
    """Add a group with the options all kinds have, and one for every kind with options of its own.

    An option that was not given leaves no attribute, so that the default of the kind holds. Raises UserError where
    two kinds, or a kind and the command, want the same flag.
    """
    common = fields(WorldOptions)
    group = parser.add_argument_group("tasks and prompts")
    for option in common:
        if option.name in PER_TASK:
            group.add_argument(
                _flag(option.name),
                action="append",
                default=argparse.SUPPRESS,
                metavar="[NAME=]PATH",
                help=f"{option.metadata['help']}; with several tasks NAME=PATH, as often as needed",
            )
        else:
            _add_flag(group, option, str)
    inherited = {option.name for option in common}
    for kind in kinds:
        own = [option for option in fields(kind.options) if option.name not in inherited]
        types = get_type_hints(kind.options)
        group = parser.add_argument_group(f"options of {kind.name}") if own else group
        for option in own:
            try:
                _add_flag(group, option, types[option.name])
            except argparse.ArgumentError as error:
                raise UserError(f"--task {kind.name}: its option {_flag(option.name)} is taken already") from error


def _add_flag(group: Any, option: "Field[Any]", annotation: Any) -> None:
    (kept,) = [t for t in get_args(annotation) or (annotation,) if t is not type(None)]
    text = option.metadata["help"].replace("%", "%%")
    if option.default not in (None, "", MISSING) and "default" not in text:
        text += f" (default: {option.default})"
    if kept is bool:
        group.add_argument(
            _flag(option.name), action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text
        )
    else:
        shown = {Path: "PATH", str: "TEXT"}.get(kept, "N")
        group.add_argument(_flag(option.name), type=kept, default=argparse.SUPPRESS, metavar=shown, help=text)


def read_world_options(kinds: Sequence[TaskKind], arguments: argparse.Namespace) -> list[WorldOptions]:
    """Return the options of each kind. UserError names the flag that is wrong or does not fit these kinds."""
    given = vars(arguments)
    paths = {name: _paths(name, kinds, given.get(name, [])) for name in PER_TASK}
    split = given.get("split")
    folders = [kind.name for kind in kinds if (path := paths["tasks"].get(kind.name)) and not path.is_file()]
    if split is not None and len(kinds) > 1 and not folders:
        raise UserError(f"--split {split}: needs --tasks with AgentBench's data folder")
    result = []
    for kind in kinds:
        values = {option.name: given[option.name] for option in fields(kind.options) if option.name in given}
        values |= {name: paths[name].get(kind.name) for name in PER_TASK if name in given}
        if len(kinds) > 1 and kind.name not in folders:
            values.pop("split", None)  # the shipped set, or a file: neither has splits
        options = kind.options(**values)
        if options.prompt_style not in kind.prompt_styles:
            raise UserError(
                f"--prompt-style: expected one of {', '.join(kind.prompt_styles)} for {kind.name}, "
                f"got {options.prompt_style!r}"
            )
        result.append(options)
    return result


def _paths(option: str, kinds: Sequence[TaskKind], values: Sequence[str]) -> dict[str, Path]:
    """Return the path of each kind that has one; a value without a name is for all that are not named."""
    names = [kind.name for kind in kinds]
    flag = _flag(option)
    named: dict[str, Path] = {}
    rest: Path | None = None
    for value in values:
        before, equals, after = value.partition("=")
        name = SHORT_NAMES.get(before, before)
        if equals and name in names:
            if name in named:
                raise UserError(f"{flag}: {name} is given twice; give one path for each task")
            named[name] = Path(after)
        elif equals and name in HELD_IN:
            raise UserError(f"{flag} {value}: {name} is not played; --task names {', '.join(names)}")
        elif rest is not None:
            raise UserError(f"{flag}: got {rest} and {value}; name the task of each: NAME=PATH")
        else:
            rest = Path(value)
    if rest is None:
        return named
    shared = [name for name in names if name not in named]
    if len(shared) > 1 and (option != "tasks" or not rest.is_dir()):
        expected = "AgentBench's data folder, or NAME=PATH" if option == "tasks" else "NAME=PATH"
        got = "one file" if rest.exists() else "a path where nothing is"
        tasks = f"the {len(shared)} tasks {', '.join(shared)}"
        raise UserError(f"{flag} {rest}: expected {expected} for {tasks}, got {got}")
    return {**dict.fromkeys(shared, rest), **named}


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
