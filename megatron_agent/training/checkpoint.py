"""Save and load a training run: weights, optimizer state, step. The folder itself is `model/checkpoint_folder.py`."""

from pathlib import Path
from typing import Any

import torch

from megatron_agent.errors import UserError
from megatron_agent.model.checkpoint_folder import (
    HF_FOLDER,
    begin_checkpoint,
    commit_checkpoint,
    complete_checkpoints,
    copy_hf_files,
    read_run_file,
    remove_checkpoint,
    write_json,
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

# "fully_reshardable" stores optimizer state per parameter, so a resume may change TP, PP and DP; Megatron-core 0.16.1's
# own default raises (flattened_range is not supported). "mem_efficient" gathers it on one data-parallel rank; without,
# every rank would hold all of it in host memory.
SHARDING = {
    "distrib_optim_sharding_type": "fully_reshardable",
    "distrib_optim_fully_reshardable_mem_efficient": True,
    "chained_optim_avoid_prefix": True,
}


def save_training_checkpoint(trainer: Trainer, config: TrainConfig, step: int, hf_folder: Path | None) -> Path:
    """Write `checkpoints/iter_{step}`; all ranks call it. Returns the folder.

    The folder appears under its name only when every file is complete and hashed. Older ones beyond `keep_last` go.
    """
    metadata = dict(SHARDING)  # Megatron-core adds process groups to it
    model_state = model_sharded_state_dict(trainer.gpt_model, metadata)
    state = {"model": model_state, "optimizer": trainer.optimizer.sharded_state_dict(model_state, metadata=metadata)}
    temporary = begin_checkpoint(config.checkpoint_root, step)
    save_tensors(state, temporary)
    if torch.distributed.get_rank() == 0:
        record = {"kind": "training", "step": step, "data_key": trainer.data_key, "config": config_to_dict(config)}
        write_run_file(temporary, record)
        if hf_folder is not None:
            copy_hf_files(hf_folder, temporary / HF_FOLDER)
        else:
            (temporary / HF_FOLDER).mkdir()
            write_json(temporary / HF_FOLDER / "config.json", trainer.llama.to_hf())
    folder = commit_checkpoint(temporary, config.checkpoint_root, step)
    if torch.distributed.get_rank() == 0 and config.checkpoint.keep_last:
        for old in complete_checkpoints(config.checkpoint_root)[: -config.checkpoint.keep_last]:
            remove_checkpoint(old)
    return folder


def load_weights(trainer: Trainer, folder: Path) -> None:
    """Load model weights only, at this run's layout and precision, from a verified checkpoint of any layout."""
    load_model_weights(trainer.gpt_model, folder)
    trainer.optimizer.reload_model_params()  # the fp32 main copies follow the weights


def load_training_checkpoint(trainer: Trainer, folder: Path) -> int:
    """Load weights and optimizer state of a verified checkpoint of this run; return the step it was written after."""
    allocate_torch_state(trainer.optimizer)
    metadata = dict(SHARDING)
    model_state = model_sharded_state_dict(trainer.gpt_model, metadata)
    optimizer_state = trainer.optimizer.sharded_state_dict(model_state, is_loading=True, metadata=metadata)
    loaded = load_tensors({"model": model_state, "optimizer": optimizer_state}, folder)
    set_model_state(trainer.gpt_model, loaded["model"])
    load_optimizer(trainer.optimizer, loaded["optimizer"])
    return int(read_run_file(folder)["step"])


def load_optimizer(optimizer: Any, state: dict[str, Any]) -> None:
    """Load a distributed optimizer's state, with torch's AdamW as well as with the fused optimizers.

    With torch's AdamW, Megatron-core 0.16.1 fails on the `step` kept beside each parameter's moments, and leaves one
    shared `step` tensor in all parameters, which would then count every step once per parameter.
    """
    (distributed,) = optimizer.chained_optimizers
    parameter_state = state.pop("param_state")
    # Of the saved groups only the step counts: `set_hyperparameters` writes the rest, and torch's AdamW and the fused
    # optimizers, either of which may have saved, keep different entries.
    step = state["optimizer"]["param_groups"][0]["step"]
    state["optimizer"]["param_groups"] = [
        {**{name: value for name, value in group.items() if name != "params"}, "step": int(step)}
        for group in distributed.optimizer.param_groups
    ]
    distributed.load_state_dict(state)
    states = distributed.optimizer.state
    steps = {parameter: values.pop("step").clone() for parameter, values in states.items() if "step" in values}
    distributed.load_parameter_state_from_fully_reshardable(parameter_state)
    for parameter, parameter_step in steps.items():
        states[parameter]["step"] = parameter_step


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


def check_same_run(folder: Path, config: TrainConfig, data_key: str) -> None:
    """Refuse a resume that would silently change which rows the remaining steps see, or their learning rates."""
    run = read_run_file(folder)
    saved, current = run["config"], config_to_dict(config)
    pairs = [("training", name) for name in ("global_batch_size", "train_iters", "seed")]
    if run["data_key"] != data_key:
        pairs += [("data", name) for name in current["data"]]
    changed = [
        f"--{section}.{name} was {saved[section].get(name)!r}, is {current[section][name]!r}"
        for section, name in pairs
        if saved[section].get(name) != current[section][name]
    ]
    if run["data_key"] != data_key and not changed:
        changed = ["the files behind the same data prefixes have changed"]
    if changed:
        raise UserError(
            f"{folder} belongs to a run with other data: {'; '.join(changed)}. Restore these values to resume, "
            "or give --training.output_dir a new folder to start afresh"
        )
