"""Result folders made by the functions that make them in real runs."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from megatron_agent.environments.database.scoring import category_scores
from megatron_agent.evaluation.results import score_of
from megatron_agent.evaluation.runner import EvaluationSettings
from megatron_agent.evaluation.summary import summarize
from megatron_agent.files import append_json_line
from megatron_agent.model.checkpoint_folder import begin_checkpoint, commit_checkpoint, write_run_file
from megatron_agent.training.config import config_to_dict, parse_config
from megatron_agent.training.step import StepResult
from megatron_agent.training.step_record import StepWork, step_record
from megatron_agent.training.timers import BETWEEN_PARTS, STEP_PARTS

SOURCES = ("agent", "gpt-4", "gpt-3.5")
GPU_MEMORY = {"allocated": 2**30, "reserved": 2**31}


def write_steps(folder: Path, steps: Sequence[int], *, ranks: int = 4, seconds: float = 9.0, memory=GPU_MEMORY) -> None:
    """Append steps of `seconds`, with 1 s of evaluation before each, 40 trained tokens of 80, on `ranks` ranks."""
    folder.mkdir(parents=True, exist_ok=True)
    report = torch.tensor([[30.0, 10.0], [10.0, 10.0], [40.0, 20.0]], dtype=torch.float64)
    parts = dict.fromkeys([*STEP_PARTS, "other", *BETWEEN_PARTS], 0.0) | {"evaluation": 1.0}
    for step in steps:
        result = StepResult(2.0, 1.0, report, applied=True, flags=[], micro_batches_not_finite=[])
        work = StepWork(tokens=80, flops=6e15, world_size=ranks, peak_tflops=None)
        append_json_line(
            folder / "metrics.jsonl", step_record(step, result, 1e-4, SOURCES, work, seconds, parts, memory)
        )


def write_held_out(folder: Path, step: int, *losses: float) -> None:
    """Append held-out losses of the agent, GPT-4 and GPT-3.5 sources."""
    folder.mkdir(parents=True, exist_ok=True)
    record = {"step": step, "loss": dict(zip(SOURCES, losses, strict=True))}
    append_json_line(folder / "validation.jsonl", record)


def write_checkpoint(folder: Path, step: int, eta: float, train_iters: int, model: str = "models/tiny") -> Path:
    """Write the small files of a checkpoint as training does; there are no tensors in it."""
    sources = {
        "agent": [{"name": "agent", "prefix": "data/agent"}],
        "general": [{"name": name, "prefix": f"data/{name}"} for name in SOURCES[1:]],
    }
    config = folder / "config.yaml"
    config.write_text(json.dumps({"model": {"checkpoint": model}, "data": {**sources, "eta": eta}}))
    parsed = parse_config(["--config", str(config), "--training.train_iters", str(train_iters)])
    config.unlink()
    temporary = begin_checkpoint(folder / "checkpoints", step)
    record = {"kind": "training", "step": step, "validation_loss": None, "data_key": "k"}
    write_run_file(temporary, record | {"config": config_to_dict(parsed)})
    return commit_checkpoint(temporary, folder / "checkpoints", step)


def write_run(
    folder: Path,
    eta: float,
    *,
    steps: int = 3,
    train_iters: int = 3,
    held_out: Sequence[float] = (1.0, 2.0, 3.0),
    model: str = "models/tiny",
) -> Path:
    """Write a run that has done `steps` of `train_iters`; the held-out losses were 9 before the first step."""
    write_steps(folder, range(1, steps + 1))
    write_held_out(folder, 0, 9.0, 9.0, 9.0)
    write_held_out(folder, steps, *held_out)
    write_checkpoint(folder, steps, eta, train_iters, model)
    return folder


def write_evaluation(
    folder: Path, successes: int, tasks: int, *, task: str = "database", finished: bool = True, **settings: str
) -> Path:
    """Write what `megatron_agent.evaluate` leaves: settings, results, and when finished the summary."""
    folder.mkdir(parents=True)
    held = asdict(
        EvaluationSettings(task=task, **{"tasks_sha256": "t", "model": "m", "prompt_style": "short",
                                         "max_tokens": 128, **settings})
    )  # fmt: skip
    (folder / "settings.json").write_text(json.dumps(held))
    results = []
    for number in range(tasks):
        result = {"id": str(number), "category": "SELECT", "reward": float(number < successes), "status": "completed"}
        results.append(result | {"rounds": 2, "seconds": 1.0, "prompt_tokens": 5, "completion_tokens": 5})
        append_json_line(folder / "results.jsonl", results[-1])
    if finished:
        metrics, main_metric = category_scores(map(score_of, results)), "overall_cat_accuracy"
        if task != "database":
            metrics, main_metric = {"success_rate": successes / tasks}, "success_rate"
        summary = {**summarize(results), "main_metric": main_metric, "metrics": metrics, "settings": held}
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder
