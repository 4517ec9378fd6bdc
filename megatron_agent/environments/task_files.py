"""Where the tasks of a kind are: the set shipped here, a file, or a split in AgentBench's data folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from megatron_agent.environments.choices import check_choice
from megatron_agent.environments.task_kind import WorldOptions
from megatron_agent.errors import UserError


@dataclass(frozen=True)
class TaskSet:
    """The tasks of a kind: `shipped` is the set used without `--tasks`.

    `splits` maps dev, std and train to the names under which their files are known in AgentBench's `data` folder (a
    checkout's root will do as well).
    """

    shipped: Path
    splits: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def find(self, options: WorldOptions) -> Path:
        """Return the file (or folder) of tasks that `--tasks` and `--split` name.

        Raises UserError naming the flag when the two do not fit together or nothing is there.
        """
        path, split = options.tasks, options.split
        if path is None:
            if split is not None:
                raise UserError(f"--split {split}: needs --tasks with AgentBench's data folder")
            return self.shipped
        if path.is_file():
            if split is not None:
                raise UserError(f"--split {split}: {path} is a file, which has no splits; leave --split away")
            return path
        if not path.is_dir():
            raise UserError(f"--tasks {path}: no such file or folder")
        if split is None:
            raise UserError(f"--tasks {path}: a folder needs --split with one of {', '.join(self.splits)}")
        check_choice("--split", split, tuple(self.splits))
        names = self.splits[split]
        for name in names:
            for candidate in (path / name, path / "data" / name):
                if candidate.exists():
                    return candidate
        raise UserError(f"--tasks {path}: expected {' or '.join(names)} there (AgentBench's data folder), found none")
