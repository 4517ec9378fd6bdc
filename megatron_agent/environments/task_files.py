"""Where the tasks of a kind are: the set shipped here, a file, or a split in AgentBench's data folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from megatron_agent.environments.task_kind import WorldOptions
from megatron_agent.errors import UserError

SPLITS = ("dev", "std", "train")


def find_tasks(options: WorldOptions, shipped: Path, splits: Mapping[str, Sequence[str]]) -> Path:
    """Return the file (or folder) of tasks that `--tasks` and `--split` name.

    `shipped` is the set used without `--tasks`; `splits` maps dev, std and train to the names under which the
    file is known in AgentBench's `data` folder (a checkout's root will do as well). Raises UserError naming the
    flag when the two do not fit together or nothing is there.
    """
    if options.tasks is None:
        if options.split is not None:
            raise UserError(f"--split {options.split}: needs --tasks with AgentBench's data folder")
        return shipped
    path = options.tasks
    if path.is_file():
        if options.split is not None:
            raise UserError(f"--split {options.split}: {path} is a file, which has no splits; leave --split away")
        return path
    if not path.is_dir():
        raise UserError(f"--tasks {path}: no such file or folder")
    if options.split is None:
        raise UserError(f"--tasks {path}: a folder needs --split with one of {', '.join(splits)}")
    if options.split not in splits:
        raise UserError(f"--split: expected one of {', '.join(splits)}, got {options.split!r}")
    names = splits[options.split]
    for name in names:
        for candidate in (path / name, path / "data" / name):
            if candidate.exists():
                return candidate
    raise UserError(f"--tasks {path}: expected {' or '.join(names)} there (AgentBench's data folder), found none")
