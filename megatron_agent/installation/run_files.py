"""What a training run reads and needs: its data and checkpoint files, its plan, and hashes of code and settings."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from megatron_agent.dataset.manifest import manifest_path
from megatron_agent.files import sha256_file
from megatron_agent.installation.storage import ExpectedFile, checkpoint_files, data_files, manifest_hash
from megatron_agent.model.checkpoint_folder import complete_checkpoints, latest_checkpoint, resolve_checkpoint
from megatron_agent.model.config import load_llama_config
from megatron_agent.training.config import TrainConfig, config_to_dict
from megatron_agent.training.lora_checkpoint import find_base

SHOWN_HASH = 12


@dataclass(frozen=True)
class Needs:
    """What the plan of a layout asks of every rank. Bytes."""

    gpu_peak_bytes: int
    gpu_reserve_bytes: int
    disk_bytes: int
    """For the checkpoints that are still to be written and kept."""


def start_of_run(config: TrainConfig) -> Path | None:
    """Return the checkpoint training would start from: the newest of its own, else the configured; None without."""
    own = latest_checkpoint(config.checkpoint_root)
    return own or (resolve_checkpoint(config.model.checkpoint) if config.model.checkpoint else None)


def files_of_run(config: TrainConfig) -> list[ExpectedFile]:
    """Return the data and checkpoint files that training would read and verify.

    Raises :class:`UserError` when a manifest is missing or broken.
    """
    own = latest_checkpoint(config.checkpoint_root)
    folders = {folder for folder in (start_of_run(config), find_base(config, own)) if folder is not None}
    files = data_files(config.data)
    for folder in sorted(folders):
        files += checkpoint_files(folder)
    return files


def hashes_of_run(config: TrainConfig, config_files: list[str]) -> dict[str, str]:
    """Return what must be equal on all nodes, by what it is: code, configuration, manifests, the start."""
    start = start_of_run(config)
    hashes = {
        "code": code_hash(),
        "configuration": settings_hash(config),
        "start": str(start) if start is not None else "random weights",
    }
    hashes |= {f"configuration file {path}": sha256_file(path) for path in config_files}
    hashes |= {f"data {source.prefix}": sha256_file(manifest_path(source.prefix)) for source in config.data.sources()}
    if start is not None:
        hashes[f"checkpoint {start}"] = manifest_hash(start)
    return {name: value if name == "start" else value[:SHOWN_HASH] for name, value in hashes.items()}


def code_hash() -> str:
    """Return a SHA-256 over the Python files of `megatron_agent`: two checkouts of one state agree."""
    root = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def settings_hash(config: TrainConfig) -> str:
    """Return a SHA-256 over every setting, overrides of the command line included."""
    return hashlib.sha256(json.dumps(config_to_dict(config), sort_keys=True).encode()).hexdigest()


def check_run(config: TrainConfig, world_size: int, *, on_gpus: bool = False) -> Needs:
    """Check that the configuration divides over `world_size` ranks of machines like this one, and plan it.

    With `on_gpus` the machines are taken to have what NVIDIA's image has, whatever this one (a login node) lacks.

    Raises :class:`UserError`, naming the fields, when it does not. Imports torch and megatron-core.
    """
    from megatron_agent.model.kernels import this_machine
    from megatron_agent.training.planner.plan import Hardware, laid_out, make_plan
    from megatron_agent.training.setup import find_hf_folder

    llama = load_llama_config(find_hf_folder(config, start_of_run(config)) or str(config.model.config))
    if on_gpus:
        laid_out(config, llama, world_size)
    else:
        laid_out(config, llama, world_size, this_machine())
    hardware = Hardware()
    plan = make_plan(config, llama, world_size, hardware)
    return Needs(
        gpu_peak_bytes=max(memory.peak for memory in plan.memory),
        gpu_reserve_bytes=int(hardware.reserve_gb * 2**30),
        disk_bytes=plan.full_checkpoint_bytes * checkpoints_to_come(config),
    )


def checkpoints_to_come(config: TrainConfig) -> int:
    """Return by how many checkpoints the folder of a run can still grow: what it keeps, and one while it is written."""
    checkpoint = config.checkpoint
    if not checkpoint.save_interval:
        return 0
    there = complete_checkpoints(config.checkpoint_root)
    step = int(there[-1].name.removeprefix("iter_")) if there else 0
    still_saved = -(-(config.training.train_iters - step) // checkpoint.save_interval)
    if not checkpoint.keep_last:
        return max(0, still_saved)
    kept = checkpoint.keep_last + checkpoint.keep_best + 1
    return max(0, min(still_saved, max(1, kept - len(there))))
