"""The output folder: one run at a time, the folder of each task, and what earlier runs left beside them."""

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from megatron_agent.environments.registry import HELD_IN
from megatron_agent.errors import UserError
from megatron_agent.evaluation.runner import EvaluationSettings, describe_differences
from megatron_agent.files import check_writable, exclusive, read_json_object

SHARED = ("model", "model_sha256", "prompt_style", "system_prompt", "max_tokens", "temperature", "top_p", "seed")
"""Settings in which all tasks of a folder must agree, since they get one summary."""

_MEND = "evaluate this task again, or remove its folder"


@dataclass(frozen=True)
class Output:
    """The folder `root` of a run; `folders` are those of the tasks it plays, `earlier` those of other tasks."""

    root: Path
    folders: Mapping[str, Path]
    earlier: Mapping[str, Path]

    @property
    def several(self) -> bool:
        """Whether every task has a folder of its own in `root`; one task alone has `root` itself."""
        return self.root not in self.folders.values()

    def all_folders(self) -> list[Path]:
        """Return the folders of all tasks, the paper's first."""
        return list(in_order({**self.earlier, **self.folders}).values())

    def check_shared(self, settings: EvaluationSettings) -> None:
        """Raise UserError when tasks of earlier runs were played by another model or otherwise asked."""
        wanted = asdict(settings)
        for task, folder in self.earlier.items():
            held = read_json_object(folder / "settings.json", _MEND)
            if different := [name for name in SHARED if held.get(name) != wanted[name]]:
                raise UserError(
                    f"--output {self.root}: holds {task} of another run, "
                    f"{describe_differences(different, held, wanted, folder / 'settings.json')}; "
                    "the tasks of a folder have one summary: give another --output folder"
                )

    def read_earlier(self) -> tuple[dict[str, dict[str, Any]], list[str]]:
        """Return the summaries of the tasks that earlier runs finished, and the names of those they did not finish."""
        files = {task: folder / "summary.json" for task, folder in self.earlier.items()}
        finished = {task: _read_summary(path) for task, path in files.items() if path.exists()}
        return finished, [task for task in files if task not in finished]


@contextlib.contextmanager
def claim_output(root: Path, tasks: Sequence[str]) -> Iterator[Output]:
    """Lock the folder of a run of `tasks`, and the folders of its tasks, until the run ends.

    One task has `root` itself, unless that holds several tasks already; several have folders in it. Raises UserError
    when another run is writing there, or when `root` holds the results of one task and gets several.
    """
    check_writable(root / "results.jsonl", "--output")
    with contextlib.ExitStack() as stack:
        stack.enter_context(_claimed(root))
        held = {path.parent.name: path.parent for path in root.glob("*/settings.json") if _names_its_folder(path)}
        if len(tasks) == 1 and not held:
            yield Output(root, {tasks[0]: root}, {})
            return
        if (root / "settings.json").exists():
            raise UserError(f"--output {root}: holds the results of one task; give another folder for {len(tasks)}")
        for task in tasks:
            if not re.fullmatch(r"\w[\w.-]*", task):
                raise UserError(f"--task: {task!r} cannot name a folder of --output; mend TASK_KIND.name")
            stack.enter_context(_claimed(root / task))
        earlier = in_order({task: folder for task, folder in held.items() if task not in tasks})
        yield Output(root, {task: root / task for task in tasks}, earlier)


@contextlib.contextmanager
def _claimed(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder; one that was made for it and stays empty goes again."""
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / ".lock"
    try:
        with exclusive(lock, f"--output {folder}: another run writes there now; wait for it, or give another folder"):
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
    finally:
        with contextlib.suppress(OSError):  # it holds results
            for place in made:
                place.rmdir()


def _names_its_folder(path: Path) -> bool:
    """Whether a settings.json is that of a task in a folder of several tasks."""
    return read_json_object(path, _MEND).get("task") == path.parent.name


def _read_summary(path: Path) -> dict[str, Any]:
    summary = read_json_object(path, _MEND)
    needed = {"score", "weight", "tasks", "statuses", "task_errors", "whole_std_split", "prompt_tokens",
              "completion_tokens", "cost", "episode_seconds"}  # fmt: skip
    if missing := sorted(needed - summary.keys()):
        raise UserError(f"{path}: expected the summary of a task, lacks {', '.join(missing)}; {_MEND}")
    return summary


def in_order(by_task: Mapping[str, Any]) -> dict[str, Any]:
    """Return tasks in the order of the paper, then the others by name."""
    names = [*(task for task in HELD_IN if task in by_task), *sorted(set(by_task) - set(HELD_IN))]
    return {task: by_task[task] for task in names}
