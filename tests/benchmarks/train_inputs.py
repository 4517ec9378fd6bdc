"""What `train_speed` trains: SmolLM2-135M and real conversations, made once and kept."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from megatron_agent.chat.conversation import read_conversations, write_conversations
from megatron_agent.quickstart.assets import convert_smollm2, sharegpt_file

GENERAL_CONVERSATIONS = 2000
AGENTINSTRUCT = Path(os.environ.get("AGENTLM_SHARED_DATA", "../shared/data")) / "agentinstruct" / "db.jsonl"


def prepare(folder: Path, seq_length: int) -> dict[str, Any]:
    """Make what is missing in `folder`; return the `data` section of a configuration over it, and what it holds.

    General: the first conversations of ShareGPT, cleaned. Agent: AgentInstruct's database split where it is at hand
    (AGENTLM_SHARED_DATA), else trajectories of the scripted expert. Longer ones are split at `seq_length` tokens.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / "model"
    if not model.is_dir():
        convert_smollm2(model, "float32")
    if not (folder / "megatron").is_dir():
        _run("checkpoints_convert.hf_to_megatron", "--hf", model, "--output", folder / "megatron")
    general = folder / "general.jsonl"
    if not general.is_file():
        cleaned, report = folder / "cleaned.jsonl", folder / "cleaned.json"
        arguments = ["--input", sharegpt_file(), "--output", cleaned, "--report", report]
        _run("data_prep.clean_sharegpt", *arguments, "--skip-rule", "near_duplicate")
        write_conversations(general, list(read_conversations(cleaned))[:GENERAL_CONVERSATIONS])
    agent = AGENTINSTRUCT
    if not agent.is_file():
        agent = folder / "agent.jsonl"
        arguments = ["--split", "train", "--count", "300", "--output", folder / "tasks.jsonl"]
        _run("data_prep.generate_database_tasks", *arguments, "--trajectories", agent)
    sources = {"agent": agent, "general": general}
    for name, source in sources.items():
        prefix = _prefix(folder, name, seq_length)
        if not prefix.with_name(f"{prefix.name}.manifest.json").is_file():
            arguments = ["--input", source, "--tokenizer", model, "--template", "chatml", "--output-prefix", prefix]
            _run("data_prep.build_indexed_dataset", *arguments, "--seq-length", seq_length, "--overwrite")
    data: dict[str, Any] = {
        name: [{"name": name, "prefix": str(_prefix(folder, name, seq_length))}] for name in sources
    }
    data |= {"seq_length": seq_length, "validation_fraction": 0.0}  # eta and seed: the defaults, the paper's 0.2
    return {"data": data, "sources": {name: str(source) for name, source in sources.items()}}


def write_config(folder: Path, inputs: dict[str, Any], steps: int, rows_per_step: int, precision: str) -> Path:
    """Write the configuration of our run; the contestants read rows, learning rate and optimizer from it.

    The learning rate is constant and dropout 0, so that all contestants have the same losses.
    """
    config = {
        "model": {"checkpoint": str(folder / "megatron")},
        "data": inputs["data"],
        "training": {
            "output_dir": str(folder / "run"),
            "train_iters": steps,
            "global_batch_size": rows_per_step,
            "precision": precision,
            "hidden_dropout": 0.0,
            "eval_interval": 0,
        },
        "optimizer": {"lr": 1e-5, "min_lr": 1e-5, "lr_warmup_fraction": 0.0, "lr_decay_fraction": 1.0},
        "checkpoint": {"save_interval": 1_000_000},
    }
    path = folder / f"{precision}.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _prefix(folder: Path, name: str, seq_length: int) -> Path:
    return folder / f"{name}_{seq_length}"


def _run(module: str, *arguments: object) -> None:
    subprocess.run([sys.executable, "-m", module, *map(str, arguments)], check=True, stdout=sys.stderr)
