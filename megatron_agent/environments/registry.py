"""Kinds of task by name: the paper's six, or a user's own module."""

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from megatron_agent.environments.task_kind import TaskKind
from megatron_agent.errors import UserError

HELD_IN = ("alfworld", "webshop", "mind2web", "knowledge_graph", "operating_system", "database")
"""The six tasks AgentTuning trains on, in the order of its tables; each a package of this folder."""

SHORT_NAMES = {"kg": "knowledge_graph", "os": "operating_system", "db": "database"}
"""AgentInstruct's names of its splits, where they differ."""

ALL_SIX = "held-in"


def get_task_kinds(names: Sequence[str]) -> list[TaskKind]:
    """Return the kinds that `--task` names; `held-in` stands for the six. Raises UserError for one named twice."""
    kinds: list[TaskKind] = []
    for name in [name for given in names for name in (HELD_IN if given == ALL_SIX else [given])]:
        kind = get_task_kind(name)
        if any(other.name == kind.name for other in kinds):
            raise UserError(f"--task: {kind.name} is named twice")
        kinds.append(kind)
    return kinds


def get_task_kind(name: str) -> TaskKind:
    """Return the `TASK_KIND` of a task of the paper, of a module (`package.module`) or of a file (`path/task.py`).

    Raises UserError when there is none; modules are imported only when asked for, as tasks have heavy packages.
    """
    name = SHORT_NAMES.get(name, name)
    if name in HELD_IN:
        module_name = f"megatron_agent.environments.{name}"
    elif name.endswith(".py"):
        module_name = _load_file(Path(name))
    elif "." in name and "/" not in name:
        module_name = name
    else:
        raise UserError(
            f"--task: expected {ALL_SIX} or one of {', '.join(HELD_IN)}, a file such as my_task.py or a module such as "
            f"my_package.my_task, got {name!r}"
        )
    faults = ImportError if name in HELD_IN else Exception  # what a user's own module may raise
    try:
        module = importlib.import_module(module_name)
    except faults as error:
        raise UserError(f"--task {name}: cannot be imported: {error}") from error
    kind = getattr(module, "TASK_KIND", None)
    if not isinstance(kind, TaskKind):
        raise UserError(
            f"--task {name}: expected a variable TASK_KIND of type TaskKind there, got {type(kind).__name__}; "
            "docs/environments.md shows a complete task"
        )
    return kind


def _load_file(path: Path) -> str:
    """Load a Python file under a module name of its own and return the name."""
    if not path.is_file():
        raise UserError(f"--task {path}: no such file")
    name = f"agentlm_task_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"--task {path}: expected a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise UserError(f"--task {path}: cannot be imported: {type(error).__name__}: {error}") from error
    return name
