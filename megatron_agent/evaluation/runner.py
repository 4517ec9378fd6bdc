"""Play a task file to the end, from wherever an earlier run stopped."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from megatron_agent.agents.client import ChatClient
from megatron_agent.agents.episode import play_many
from megatron_agent.environments.task_kind import Fact, TaskKind, World, WorldOptions
from megatron_agent.errors import UserError
from megatron_agent.evaluation.results import read_results, result_of, score_of
from megatron_agent.evaluation.summary import summarize
from megatron_agent.files import append_json_line, atomic_write, read_json_object, sha256_file, write_json_lines


@dataclass(frozen=True)
class EvaluationSettings:
    """What the scores depend on; an output folder holds results of one such setting only."""

    task: str
    tasks_sha256: str
    model: str
    prompt_style: str
    max_tokens: int
    model_sha256: str | None = None
    """Fingerprint of the model's files when `model` is a folder on this machine."""
    temperature: float = 0.0
    system_prompt: str | None = None
    repetition_limit: int = 0
    prompt_sha256: str | None = None
    facts: Mapping[str, Fact] = field(default_factory=dict)
    """What the opened world adds: its engine, its catalogue (`World.facts`)."""


def evaluate_tasks(
    kind: TaskKind,
    world: World,
    tasks: Sequence[Any],
    client_for: Callable[[Any], ChatClient],
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
        world.make_environment,
        client_for,
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
        "main_metric": kind.main_metric,
        "metrics": kind.metrics([score_of(result) for result in finished]),
        "settings": asdict(settings),
    }
    _write_json(output / "summary.json", summary)
    return summary


def make_settings(kind: TaskKind, options: WorldOptions, world: World, **fields: Any) -> EvaluationSettings:
    """Return the settings of a run in an opened world; `fields` are those of :class:`EvaluationSettings`."""
    return EvaluationSettings(
        task=kind.name,
        tasks_sha256=tasks_fingerprint(world.tasks),
        prompt_style=options.prompt_style,
        prompt_sha256=sha256_file(options.prompt_file) if options.prompt_file else None,
        facts=dict(world.facts),
        **fields,
    )


def tasks_fingerprint(tasks: Sequence[Any]) -> str:
    """Return a SHA-256 over the tasks' fields, so that a resumed run plays what the stopped one did."""
    digest = hashlib.sha256()
    for task in tasks:
        digest.update(repr(task).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


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
