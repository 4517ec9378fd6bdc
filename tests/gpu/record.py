"""What a result is recorded with: hardware, versions, date."""

import datetime
import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any

import torch

from megatron_agent.processes import available_cores

RESULTS = Path(__file__).with_name("results")
PACKAGES = ("torch", "megatron-core", "transformer-engine", "apex", "flash-attn", "transformers")


def hardware(device: str) -> dict[str, Any]:
    """Describe the machine: GPUs with their memory and compute capability, or the processor."""
    if device == "cpu":
        return {"processor": platform.processor() or platform.machine(), "cores": available_cores()}
    properties = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    return {
        "gpus": [gpu.name for gpu in properties],
        "memory_gib": [round(gpu.total_memory / 2**30, 1) for gpu in properties],
        "compute_capability": sorted({f"{gpu.major}.{gpu.minor}" for gpu in properties}),
        "cuda": torch.version.cuda,
        "nccl": ".".join(map(str, torch.cuda.nccl.version())),
    }


def versions() -> dict[str, str]:
    """Return the installed versions of what matters; absent packages are left out."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def default_path(check: str) -> Path:
    """Return where the result of a check goes: AGENTLM_GPU_RESULTS, else tests/gpu/results."""
    return Path(os.environ.get("AGENTLM_GPU_RESULTS", RESULTS)) / f"{check}.json"


def write_result(check: str, device: str, result: dict[str, Any], path: Path) -> None:
    """Write the result of a check with what it was measured on."""
    record = {
        "check": check,
        "date": datetime.date.today().isoformat(),
        "hardware": hardware(device),
        "versions": versions(),
        **result,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
