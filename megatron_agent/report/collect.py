"""The one function that reads results: every run below the given folders, and what is missing."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from megatron_agent.files import read_json_lines_tolerating_cut_tail, read_json_object, shortest_names
from megatron_agent.report.folders import FoundFolders, find_folders
from megatron_agent.report.scores import MEND, Score, different_settings, mean_with_interval, read_score
from megatron_agent.report.training_result import TrainingResult, eta_in_name, read_training


@dataclass
class RunResult:
    """A model: the run that trained it, as far as it lies below the given folders, and its scores."""

    folder: Path
    training: TrainingResult | None
    eta: float | None
    model: str | None
    name: str = ""
    scores: dict[str, Score] = field(default_factory=dict)
    """By task; where a task was evaluated more than once, by `task (folder)`."""
    lacks: list[str] = field(default_factory=list)
    """What a complete run would have, in words."""

    @property
    def base(self) -> str | None:
        """The model that training started from; None where it is not known."""
        return self.training.model if self.training else None

    @property
    def complete(self) -> bool:
        """Whether the training is finished (or not part of this report)."""
        return self.training is None or not self.training.lacks()


@dataclass
class Report:
    """All runs, in the order of eta, and what a reader must know about them."""

    runs: list[RunResult]
    expected_eta: list[float]
    missing_eta: list[float]
    """Expected values without any run."""
    failed: bool
    """An expected run or score is missing."""
    remarks: list[str]

    @property
    def tasks(self) -> list[str]:
        """Names of the scores of any run."""
        return list(dict.fromkeys(name for run in self.runs for name in run.scores))

    @property
    def sources(self) -> list[str]:
        """Names of the data sources with a held-out loss in any run."""
        curves = [run.training.curves for run in self.runs if run.training and run.training.curves]
        return list(dict.fromkeys(name for curve in curves for name in curve.held_out))

    @property
    def etas(self) -> list[float]:
        """Different values of eta, sorted."""
        return sorted({run.eta for run in self.runs if run.eta is not None})

    def mean(self, run: RunResult) -> tuple[float, tuple[float, float]] | None:
        """Return the mean over the tasks and its 95 % interval; None for a run without one score on each of them."""
        tasks = {score.task for other in self.runs for score in other.scores.values()}
        if not tasks or sorted(score.task for score in run.scores.values()) != sorted(tasks):
            return None
        return mean_with_interval(run.scores.values())


def collect(folders: Sequence[Path], expected_eta: Sequence[float] = (), expected_tasks: Sequence[str] = ()) -> Report:
    """Read all results in `folders` and below.

    Each of `expected_eta` must have a run that lacks nothing, and every run a score on each of `expected_tasks`; what
    is missing is in the report. Raises UserError for a folder without results and for damaged files.
    """
    found = find_folders(folders)
    runs = [_trained(folder) for folder in found.runs]
    _add_scores(runs, found)
    runs.sort(key=lambda run: (run.eta is None, run.eta or 0.0, str(run.folder), run.model or ""))
    _name(runs)
    expected = sorted(dict.fromkeys(round(eta, 9) for eta in expected_eta))
    report = Report(runs, expected, missing_eta=[], failed=False, remarks=[])
    tasks = list(dict.fromkeys([*expected_tasks, *(score.task for run in runs for score in run.scores.values())]))
    for run in runs:
        held = {score.task for score in run.scores.values()}
        run.lacks += [f"no score on {task}" for task in tasks if task not in held]
        if run.training is not None and run.training.eta is None and run.eta is not None:
            report.remarks.append(f"{run.name}: eta {run.eta:g} is taken from the folder's name")
        report.failed |= any(task not in held for task in expected_tasks)
    present = {round(run.eta, 9) for run in runs if run.eta is not None}
    whole = {round(run.eta, 9) for run in runs if run.eta is not None and not run.lacks}
    report.missing_eta += [eta for eta in expected if eta not in present]
    report.failed |= not set(expected) <= whole
    report.remarks += _remarks(runs, tasks)
    return report


def _trained(folder: Path) -> RunResult:
    training = read_training(folder)
    eta = eta_in_name(folder.name) if training.eta is None else training.eta
    return RunResult(folder, training, eta, training.model, lacks=training.lacks())


def _add_scores(runs: list[RunResult], found: FoundFolders) -> None:
    """Give every run its scores; a model evaluated outside a training run is a run of its own."""
    trained = {run.folder: run for run in runs}
    alone: dict[tuple[Path, str | None, str | None], RunResult] = {}
    scores: list[tuple[RunResult, Score]] = []
    for folder, training in sorted(found.evaluations.items()):
        score = read_score(folder)
        if training is not None:
            run = trained[training]
        else:
            home = folder.parent.parent if folder.parent.name == "evaluation" else folder.parent
            settings = score.settings if score else read_json_object(folder / "settings.json", MEND)
            model, sha256 = settings.get("model"), settings.get("model_sha256")
            run = alone.setdefault((home, model, sha256), RunResult(home, None, eta_in_name(home.name), model))
        if score is None:
            count = len(read_json_lines_tolerating_cut_tail(folder / "results.jsonl"))
            run.lacks.append(f"{_within(run, folder)} is unfinished: {count} results and no summary.json")
        else:
            scores.append((run, score))
    runs += alone.values()
    for run, score in scores:
        twice = sum(other is run and held.task == score.task for other, held in scores) > 1
        run.scores[f"{score.task} ({_within(run, score.folder)})" if twice else score.task] = score


def _within(run: RunResult, folder: Path) -> str:
    return folder.relative_to(run.folder).as_posix()


def _name(runs: list[RunResult]) -> None:
    """Name runs by the ends of their paths that tell them apart, models evaluated in one folder by the model too."""
    folders = list(dict.fromkeys(run.folder for run in runs))
    names = dict(zip(folders, shortest_names(folders), strict=True))
    for run in runs:
        beside = [other for other in runs if other.folder == run.folder]
        run.name = names[run.folder]
        if len(beside) > 1:
            same = [other for other in beside if other.model == run.model]
            number = f" #{same.index(run) + 1}" if len(same) > 1 else ""
            run.name += f" ({run.model}{number})"


def _remarks(runs: list[RunResult], tasks: Sequence[str]) -> list[str]:
    """Return what makes runs of this report hard to compare."""
    remarks = []
    for run in runs:
        held = [score.task for score in run.scores.values()]
        for task in dict.fromkeys(task for task in held if held.count(task) > 1):
            remarks.append(f"{run.name} has {held.count(task)} scores on {task}: no mean over its tasks is taken")
        remarks += [
            f"{run.name}: {score.task_errors} of {score.tasks} episodes on {name} ended in task errors, which count 0; "
            "evaluate again to play them"
            for name, score in run.scores.items()
            if score.task_errors
        ]
    trained: dict[tuple[float, str], list[str]] = {}
    for run in runs:
        if run.eta is not None and run.base is not None:
            trained.setdefault((run.eta, run.base), []).append(run.name)
    for (eta, base), names in trained.items():
        if len(names) > 1:
            remarks.append(f"eta {eta:g} has {len(names)} runs from {base}: {', '.join(names)}")
    for task in tasks:
        scores = [score for run in runs for score in run.scores.values() if score.task == task]
        if different := different_settings(scores):
            remarks.append(f"scores on {task} are not all comparable: they differ in {', '.join(different)}")
    return remarks
