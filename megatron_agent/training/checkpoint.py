"""Save and load a training run: weights, optimizer state, step. The folder itself is `model/checkpoint_folder.py`."""

import shutil
from pathlib import Path
from typing import Any

import torch

from megatron_agent.errors import UserError
from megatron_agent.model.checkpoint_folder import (
    HF_FOLDER,
    begin_checkpoint,
    commit_checkpoint,
    copy_hf_files,
    read_run_file,
    resolve_checkpoint,
    verify_checkpoint,
    write_run_file,
)
from megatron_agent.model.checkpoint_tensors import (
    load_model_weights,
    load_tensors,
    model_sharded_state_dict,
    save_tensors,
    set_model_state,
)
from megatron_agent.training.config import TrainConfig, config_to_dict
from megatron_agent.training.model_and_optimizer import Trainer

# "fully_reshardable" stores optimizer state per parameter, so a resume may change TP, PP and DP;
# Megatron-core 0.16.1's own default raises (flattened_range is not supported).
SHARDING = {"distrib_optim_sharding_type": "fully_reshardable", "chained_optim_avoid_prefix": True}


def save_training_checkpoint(trainer: Trainer, config: TrainConfig, step: int, hf_folder: Path | None) -> Path:
    """Write `checkpoints/iter_{step}`; all ranks call it. Returns the folder.

    The folder appears under its name only when every file is complete and hashed.
    """
    model_state = model_sharded_state_dict(trainer.gpt_model, SHARDING)
    state = {
        "model": model_state,
        "optimizer": trainer.optimizer.sharded_state_dict(model_state, metadata=SHARDING),
    }
    temporary = begin_checkpoint(config.checkpoint_root, step)
    save_tensors(state, temporary)
    if torch.distributed.get_rank() == 0:
        write_run_file(temporary, {"kind": "training", "step": step, "config": config_to_dict(config)})
        if hf_folder is not None:
            copy_hf_files(hf_folder, temporary / HF_FOLDER)
    folder = commit_checkpoint(temporary, config.checkpoint_root, step)
    if torch.distributed.get_rank() == 0 and config.checkpoint.keep_last:
        remove_old_checkpoints(config.checkpoint_root, config.checkpoint.keep_last)
    return folder


def remove_old_checkpoints(root: Path, keep_last: int) -> None:
    """Remove all but the newest `keep_last` complete checkpoints."""
    for folder in sorted(root.glob("iter_*"))[:-keep_last]:
        # Out of sight first: an interrupted removal must not leave a folder that looks complete.
        hidden = folder.with_name(f".{folder.name}.removed")
        folder.rename(hidden)
        shutil.rmtree(hidden)


def load_weights(trainer: Trainer, checkpoint: str | Path) -> None:
    """Load model weights only, at this run's layout and precision, from a checkpoint of any layout."""
    folder = resolve_checkpoint(checkpoint)
    verify_checkpoint(folder, collective=True)
    load_model_weights(trainer.gpt_model, folder)
    trainer.optimizer.reload_model_params()  # the fp32 main copies follow the weights


def load_training_checkpoint(trainer: Trainer, config: TrainConfig, folder: Path) -> int:
    """Load weights and optimizer state of this run's checkpoint `folder`; return the step it was written after."""
    verify_checkpoint(folder, collective=True)
    run = read_run_file(folder)
    check_same_run(run["config"], config, folder)
    allocate_torch_state(trainer.optimizer)
    model_state = model_sharded_state_dict(trainer.gpt_model, SHARDING)
    state = {
        "model": model_state,
        "optimizer": trainer.optimizer.sharded_state_dict(model_state, is_loading=True, metadata=SHARDING),
    }
    loaded = load_tensors(state, folder)
    set_model_state(trainer.gpt_model, loaded["model"])
    load_optimizer(trainer.optimizer, loaded["optimizer"])
    return int(run["step"])


def load_optimizer(optimizer: Any, state: dict[str, Any]) -> None:
    """Load a distributed optimizer's state, with torch's AdamW as well as with the fused optimizers.

    With torch's AdamW, Megatron-core 0.16.1 fails on the `step` kept beside each parameter's moments, and leaves one
    shared `step` tensor in all parameters, which would then count every step once per parameter.
    """
    (distributed,) = optimizer.chained_optimizers
    parameter_state = state.pop("param_state")
    distributed.load_state_dict(state)  # parameter groups, and the number of steps taken
    states = distributed.optimizer.state
    steps = {parameter: values.pop("step").clone() for parameter, values in states.items() if "step" in values}
    distributed.load_parameter_state_from_fully_reshardable(parameter_state)
    for parameter, step in steps.items():
        states[parameter]["step"] = step


def allocate_torch_state(optimizer: Any) -> None:
    """Give torch's AdamW its (zero) state before a load: Megatron-core 0.16.1 reads `step` from it and fails without.

    Its own loading creates the state for the fused optimizers only.
    """
    (distributed,) = optimizer.chained_optimizers
    inner = distributed.optimizer
    if not isinstance(inner, torch.optim.AdamW):
        return
    for group in inner.param_groups:
        for parameter in group["params"]:
            zeros = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
            inner.state[parameter] = {"step": torch.tensor(0.0), **zeros}


def check_same_run(saved: dict[str, Any], config: TrainConfig, folder: Path) -> None:
    """Refuse a resume that would silently change which rows the remaining steps see."""
    current = config_to_dict(config)
    pairs = [("training", name) for name in ("global_batch_size", "train_iters")]
    pairs += [("data", name) for name in current["data"] if name not in ("cache_dir", "verify")]
    changed = [
        f"--{section}.{name} was {saved[section][name]!r}, is {current[section][name]!r}"
        for section, name in pairs
        if saved[section][name] != current[section][name]
    ]
    if changed:
        raise UserError(
            f"{folder} belongs to a run with other data: {'; '.join(changed)}. Restore these values to resume, "
            "or give --training.output_dir a new folder to start afresh"
        )
