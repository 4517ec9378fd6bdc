"""Play a task file to the end, from wherever an earlier run stopped."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from megatron_agent.agents.client import ChatClient
from megatron_agent.agents.episode import play_many
from megatron_agent.errors import UserError
from megatron_agent.evaluation.results import read_results, result_of
from megatron_agent.evaluation.summary import summarize
from megatron_agent.evaluation.tasks import TaskKind
from megatron_agent.files import append_json_line, atomic_write, read_json_object, sha256_file, write_json_lines


@dataclass(frozen=True)
class EvaluationSettings:
    """What the scores depend on; an output folder holds results of one such setting only."""

    task: str
    tasks_sha256: str
    model: str
    instruction: str
    max_tokens: int
    model_sha256: str | None = None
    """Fingerprint of the model's files when `model` is a folder on this machine."""
    temperature: float = 0.0
    system_prompt: str | None = None
    repetition_limit: int = 0


def evaluate_tasks(
    kind: TaskKind,
    tasks: Sequence[Any],
    client: ChatClient,
    settings: EvaluationSettings,
    output: str | Path,
    concurrency: int = 8,
    progress: bool = True,
) -> dict[str, Any]:
    """Play the tasks that `output/results.jsonl` does not hold yet; write and return `output/summary.json`.

    The folder belongs to these settings from the first finished task on: a wrong model or a dead server leaves it
    free. Raises UserError when it holds finished tasks of other settings, or when the server is not there (what
    was finished stays; the same call goes on later).
    """
    from tqdm import tqdm

    output = Path(output)
    path = output / "results.jsonl"
    results = read_results(path)
    if results:
        _check_settings(output, settings)
    remaining = [task for task in tasks if task.id not in results]
    played = play_many(
        remaining,
        lambda: kind.make_environment(settings.instruction),
        client,
        concurrency,
        system_prompt=settings.system_prompt,
        repetition_limit=settings.repetition_limit,
    )
    first = True
    with tqdm(
        total=len(tasks), initial=len(tasks) - len(remaining), desc=kind.name, unit="task", disable=not progress
    ) as bar:
        for trajectory in played:
            result = result_of(trajectory)
            if first:  # before the first new line: what an interrupted run left goes, the folder is ours
                output.mkdir(parents=True, exist_ok=True)
                write_json_lines(path, results.values())
                _write_json(output / "settings.json", asdict(settings))
                first = False
            append_json_line(path, result, sync=True)
            results[trajectory.task_id] = result
            bar.set_postfix(success=sum(r["reward"] == 1 for r in results.values()))
            bar.update()
    finished = [results[task.id] for task in tasks]
    summary = {
        **summarize(finished),
        "metrics": kind.metrics((result["category"], result["reward"]) for result in finished),
        "settings": asdict(settings),
    }
    _write_json(output / "summary.json", summary)
    return summary


def make_settings(kind: TaskKind, tasks_path: str | Path, **fields: Any) -> EvaluationSettings:
    """Return the settings of a run over a task file; `fields` are those of :class:`EvaluationSettings`."""
    return EvaluationSettings(task=kind.name, tasks_sha256=sha256_file(tasks_path), **fields)


def _check_settings(output: Path, settings: EvaluationSettings) -> None:
    path = output / "settings.json"
    mend = "give another --output folder, or delete this one"
    if not path.exists():
        raise UserError(f"{output} holds results.jsonl but no settings.json; {mend}")
    held, wanted = read_json_object(path, mend), asdict(settings)
    different = [key for key in wanted if held.get(key) != wanted[key]]
    if not different:
        return
    if different == ["model_sha256"]:
        raise UserError(
            f"{output} holds results of other weights: the files in {settings.model} have changed since; {mend}"
        )
    raise UserError(f"{output} holds results of another run: {', '.join(different)} differ(s) from {path}; {mend}")


def _write_json(path: Path, value: dict[str, Any]) -> None:
    with atomic_write(path) as handle:
        json.dump(value, handle, indent=2)
        handle.write("\n")
