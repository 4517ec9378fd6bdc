"""The state of a training run in a checkpoint, and its loading. `saves.py` writes it."""

from pathlib import Path
from typing import Any

import torch

from megatron_agent.errors import UserError
from megatron_agent.model.checkpoint_folder import read_run_file
from megatron_agent.model.checkpoint_tensors import load_tensors, model_sharded_state_dict, set_model_state
from megatron_agent.model.lora_config import is_adapter_key
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


def load_weights(trainer: Trainer, folder: Path) -> None:
    """Load model weights only, at this run's layout and precision, from a verified checkpoint of any layout.

    LoRA adapters keep their first values.
    """
    metadata = dict(SHARDING)
    set_model_state_of(trainer, load_tensors(model_state_of(trainer, metadata, adapters=False), folder))
    trainer.optimizer.reload_model_params()  # the fp32 main copies follow the weights


def load_training_checkpoint(trainer: Trainer, config: TrainConfig, folder: Path) -> int:
    """Load weights and optimizer state of a verified checkpoint of this run; return the step it was written after."""
    allocate_torch_state(trainer.optimizer)
    metadata = dict(SHARDING)  # Megatron-core adds process groups to it
    model_state = model_state_of(trainer, metadata, adapters=config.lora.r > 0)
    optimizer_state = trainer.optimizer.sharded_state_dict(model_state, is_loading=True, metadata=metadata)
    loaded = load_tensors({**model_state, "optimizer": optimizer_state}, folder)
    set_model_state_of(trainer, loaded)
    load_optimizer(trainer.optimizer, loaded["optimizer"])
    return int(read_run_file(folder)["step"])


def model_state_of(trainer: Trainer, metadata: dict[str, Any], *, adapters: bool) -> dict[str, Any]:
    """Sharded state of this rank's models, by chunk; the names of the tensors inside do not depend on the layout.

    The LoRA adapters alone, or everything but them: that is what a checkpoint with or without LoRA holds.
    """
    states = [model_sharded_state_dict(model, metadata) for model in trainer.gpt_models]
    parts = [{key: value for key, value in state.items() if is_adapter_key(key) == adapters} for state in states]
    return dict(zip(_chunk_names(trainer), parts, strict=True))


def set_model_state_of(trainer: Trainer, loaded: dict[str, Any]) -> None:
    """Put what was loaded for `model_state_of` into the models."""
    for name, model in zip(_chunk_names(trainer), trainer.gpt_models, strict=True):
        set_model_state(model, loaded[name])


def _chunk_names(trainer: Trainer) -> list[str]:
    count = len(trainer.gpt_models)
    return ["model"] if count == 1 else [f"model{number}" for number in range(count)]


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
    steps = {parameter: values.pop("step") for parameter, values in states.items() if "step" in values}
    distributed.load_parameter_state_from_fully_reshardable(parameter_state)
    for parameter, own_step in steps.items():
        states[parameter]["step"] = torch.full_like(own_step, float(step))


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
