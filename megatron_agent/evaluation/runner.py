"""Play the tasks of one kind to the end, from wherever an earlier run stopped."""

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from megatron_agent.agents.client import ChatClient
from megatron_agent.agents.episode import play_many
from megatron_agent.environments.task_kind import Fact, TaskKind, World, WorldOptions
from megatron_agent.errors import UserError
from megatron_agent.evaluation.results import Result, read_results, result_of, score_of
from megatron_agent.evaluation.summary import summarize, total_cost
from megatron_agent.evaluation.transcripts import Transcripts
from megatron_agent.files import append_json_line, atomic_write, read_json_object, sha256_file, write_json_lines


@dataclass(frozen=True)
class EvaluationSettings:
    """What the scores depend on; an output folder holds results of one such setting only."""

    task: str
    tasks_sha256: str
    model: str
    prompt_style: str
    split: str | None = None
    """AgentBench's split that was asked for; None for shipped sets and files."""
    max_tokens: int | None = None
    """This and the other figures of requests are None where no server is asked (expert, replay)."""
    model_sha256: str | None = None
    """Fingerprint of the model's files when `model` is a folder on this machine."""
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
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

    Every message goes to `output/transcripts.jsonl` at once. The folder belongs to these settings from the first
    finished task on: a wrong model or a dead server leaves it free. Raises UserError when it holds finished tasks of
    other settings, or when the server is not there (what was finished stays; the same call goes on later).
    """
    from tqdm import tqdm

    output = Path(output)
    results = read_results(output / "results.jsonl")
    if results:
        _check_settings(output, settings)
    remaining = [task for task in tasks if task.id not in results]
    with (
        Transcripts(output / "transcripts.jsonl", results) as transcripts,
        tqdm(
            total=len(tasks),
            initial=len(tasks) - len(remaining),
            desc=kind.name,
            unit="task",
            disable=not progress,
            mininterval=0.1 if sys.stderr.isatty() else 30,  # a line each time in the log of a job
        ) as bar,
    ):
        played = play_many(
            remaining,
            world.make_environment,
            client_for,
            concurrency,
            system_prompt=settings.system_prompt,
            repetition_limit=settings.repetition_limit,
            on_event=transcripts.write,
        )
        for number, trajectory in enumerate(played):
            result = result_of(trajectory)
            if number == 0:  # what an interrupted run left goes, the folder is ours
                output.mkdir(parents=True, exist_ok=True)
                write_json_lines(output / "results.jsonl", results.values())
                write_json(output / "settings.json", asdict(settings))
            append_json_line(output / "results.jsonl", result, sync=True)
            results[trajectory.task_id] = result
            bar.set_postfix_str(_running(kind, list(results.values())), refresh=False)
            bar.update()
    summary = _summary(kind, settings, [results[task.id] for task in tasks])
    summary["whole_std_split"] = settings.split == "std" and len(tasks) == len(world.tasks)
    write_json(output / "summary.json", summary)
    return summary


def check_tasks(kind: TaskKind, tasks: Sequence[Any]) -> None:
    """Raise UserError for no tasks at all, and for two of one id: results are kept by id."""
    if not tasks:
        raise UserError(f"--tasks: expected tasks of {kind.name}, found none")
    if twice := [identifier for identifier, count in Counter(task.id for task in tasks).items() if count > 1]:
        raise UserError(
            f"--tasks: expected every task of {kind.name} to have an id of its own; {twice[0]!r} is there twice"
        )


def _summary(kind: TaskKind, settings: EvaluationSettings, finished: Sequence[Result]) -> dict[str, Any]:
    metrics = kind.metrics([score_of(result) for result in finished])
    return {
        **summarize(finished),
        "main_metric": kind.main_metric,
        "score": 100 * metrics[kind.main_metric],
        "weight": kind.weight,
        "metrics": metrics,
        "settings": asdict(settings),
    }


def _running(kind: TaskKind, finished: Sequence[Result]) -> str:
    """Return what the progress bar says of the episodes so far."""
    score = 100 * kind.metrics([score_of(result) for result in finished])[kind.main_metric]
    cost, errors = total_cost(finished), sum(result["status"] == "task error" for result in finished)
    told = [f"score {score:.1f}", "" if cost is None else f"cost {cost:.4f}", f"{errors} task errors" if errors else ""]
    return ", ".join(part for part in told if part)


def make_settings(kind: TaskKind, options: WorldOptions, world: World, **fields: Any) -> EvaluationSettings:
    """Return the settings of a run in an opened world; `fields` are those of :class:`EvaluationSettings`."""
    return EvaluationSettings(
        task=kind.name,
        tasks_sha256=tasks_fingerprint(world.tasks),
        prompt_style=options.prompt_style,
        split=options.split,
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
    held, wanted = _flat(read_json_object(path, mend)), _flat(asdict(settings))
    different = [key for key in dict.fromkeys([*wanted, *held]) if held.get(key) != wanted.get(key)]
    if not different:
        return
    if different == ["model_sha256"]:
        raise UserError(
            f"{output} holds results of other weights: the files in {settings.model} have changed since; {mend}"
        )
    raise UserError(
        f"{output} holds results of another run: {describe_differences(different, held, wanted, path)}; {mend}"
    )


def describe_differences(names: Sequence[str], held: Mapping[str, Any], wanted: Mapping[str, Any], path: Path) -> str:
    """Say which settings differ from those in `path`, with both values where they are short enough to be read."""
    values = [
        f"{name} {before}, now {now}"
        for name in names
        if not name.endswith("sha256")
        and max(len(before := json.dumps(held.get(name))), len(now := json.dumps(wanted.get(name)))) <= 80
    ]
    return f"{', '.join(names)} differ(s) from {path}" + (f" (there {'; '.join(values)})" if values else "")


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings with each fact beside the others, so that a message can name it."""
    facts = settings.get("facts")
    named = {f"facts.{name}": value for name, value in facts.items()} if isinstance(facts, dict) else {}
    return {**{key: value for key, value in settings.items() if key != "facts"}, **named}


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON file to be read by people too, whole or not at all."""
    with atomic_write(path) as handle:
        json.dump(value, handle, indent=2)
        handle.write("\n")
