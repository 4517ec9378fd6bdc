"""Which folders below the given ones hold training runs and evaluations."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from megatron_agent.errors import UserError
from megatron_agent.report.scores import is_evaluation
from megatron_agent.report.training_result import RUN_FOLDERS, is_training_run

NOT_ENTERED = RUN_FOLDERS
"""They hold many files and no results of others."""


@dataclass
class FoundFolders:
    """Folders with results, sorted, each once."""

    runs: list[Path] = field(default_factory=list)
    evaluations: dict[Path, Path | None] = field(default_factory=dict)
    """Evaluation folders, with the training run they lie in."""


def find_folders(roots: Sequence[Path]) -> FoundFolders:
    """Return the results in `roots` and below. UserError for a root that is no folder or has none."""
    found = FoundFolders()
    for root in roots:
        if not root.is_dir():
            raise UserError(f"DIR {root}: expected a folder of results, found {'a file' if root.exists() else 'none'}")
        results = 0
        for folder, names, run in _walk(root.resolve()):
            if folder == run:
                results += 1
                if folder not in found.runs:
                    found.runs.append(folder)
            if is_evaluation(folder, names):
                results += 1
                if found.evaluations.get(folder) is None:
                    found.evaluations[folder] = run  # given alone and with its run: it belongs to the run
        if not results:
            raise UserError(
                f"DIR {root}: no results in it or below; looked for metrics.jsonl of megatron_agent.train and "
                "summary.json of megatron_agent.evaluate; give their output folder or one above it"
            )
    return found


def _walk(root: Path) -> Iterator[tuple[Path, set[str], Path | None]]:
    """Yield every folder, the names in it, and the nearest training run it lies in or is, in sorted order."""
    runs: dict[Path, Path | None] = {}
    entered = set()
    for name, folders, files in os.walk(root, followlinks=True, onerror=_raise):
        folder = Path(name)
        real = folder.resolve()
        if real in entered:  # a link that leads back
            folders.clear()
            continue
        entered.add(real)
        names = {*folders, *files}
        run = folder if is_training_run(folder, names) else runs.get(folder.parent)
        runs[folder] = run
        folders[:] = sorted(_entered(folders))
        yield folder, names, run


def _raise(error: OSError) -> None:
    raise error


def _entered(names: Iterable[str]) -> Iterator[str]:
    return (name for name in names if name not in NOT_ENTERED and not name.startswith("."))
