"""LoRA checkpoints of a training run: read as the merged model, or as the tensors of a PEFT adapter.

A LoRA checkpoint holds adapters only; its `run.json` names the base checkpoint with the frozen weights. Keys and shapes
are those of `megatron_agent.model.lora_config`: A and B of the fused projections, stacked over the layers.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checkpoints_convert import mapping
from megatron_agent.errors import UserError
from megatron_agent.files import sha256_file
from megatron_agent.model import checkpoint_folder
from megatron_agent.model.config import LlamaConfig
from megatron_agent.model.lora_config import (
    LoraConfig,
    adapter_keys,
    adapter_shapes,
    lora_from_record,
)

ADAPTER_FILE = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"

if TYPE_CHECKING:
    import torch

    from checkpoints_convert.torch_dist import TensorReader


def read_lora(folder: Path) -> LoraConfig | None:
    """Return the adapter settings of a checkpoint, None when it holds a whole model."""
    record = checkpoint_folder.read_run_file(folder).get("lora")
    return None if record is None else lora_from_record(record)


def find_base(folder: Path, given: str | Path | None) -> Path:
    """Return the verified base checkpoint of a LoRA checkpoint: `given`, or the one its `run.json` names.

    Raises :class:`UserError` when it is not there, damaged, or not the one the adapters were trained on.
    """
    recorded: dict[str, str] = checkpoint_folder.read_run_file(folder)["lora"]["base"]
    path = Path(given or recorded["checkpoint"])
    if not given and not path.exists():
        raise UserError(
            f"{folder} holds LoRA adapters of the base checkpoint {path}, which is not there; give its place with "
            "--base"
        )
    base = checkpoint_folder.resolve_checkpoint(path)
    if sha256_file(base / checkpoint_folder.MANIFEST) != recorded["manifest_sha256"]:
        raise UserError(
            f"{base} is not the base checkpoint of {folder} (its {checkpoint_folder.MANIFEST} differs from the one "
            f"recorded for {recorded['checkpoint']}); give the right one with --base"
        )
    checkpoint_folder.verify_checkpoint(base)
    return base


class MergedReader:
    """Reads a base checkpoint with adapters merged in: W + (lora_alpha / r) B A, computed and returned in fp32.

    Keys without an adapter come as they are stored; `dtype` is always the base's.
    """

    def __init__(self, base: "TensorReader", adapters: "TensorReader", lora: LoraConfig) -> None:
        self.base, self.adapters, self.lora = base, adapters, lora
        self.targets = {rule.megatron: target for target, rule in _rules(lora)}
        self.shapes, self.dtype = base.shapes, base.dtype

    def read(self, key: str, layer: int | None) -> "torch.Tensor":
        """Read a whole tensor, or one layer of a stacked one (without the layer axis)."""
        weight = self.base.read(key, layer)
        if key not in self.targets:
            return weight
        a, b = (self.adapters.read(name, layer).float() for name in adapter_keys(self.targets[key]))
        return weight.float() + self.lora.scaling * (b @ a)


def check_adapter_shapes(adapters: "TensorReader", config: LlamaConfig, lora: LoraConfig, folder: Path) -> None:
    """Compare the adapters' tensors with the settings and the model; :class:`UserError` naming the differences."""
    stored = adapters.shapes()
    problems = []
    for target, shapes in adapter_shapes(config, lora).items():
        for key, shape in zip(adapter_keys(target), shapes, strict=True):
            wanted = (config.num_hidden_layers, *shape)
            if stored.get(key) != wanted:
                problems.append(f"{key}: expected shape {wanted}, got {stored.get(key, 'nothing')}")
    if problems:
        raise UserError(f"{folder} does not fit its run.json and hf/config.json:\n  " + "\n  ".join(problems))


def peft_tensors(
    adapters: "TensorReader", config: LlamaConfig, lora: LoraConfig
) -> "Iterator[tuple[str, torch.Tensor]]":
    """Yield (name, tensor) as PEFT stores them: one A and one B for each Hugging Face projection.

    The parts of a fused projection get a copy of its A each, and their own rows of its B.
    """
    for layer in range(config.num_hidden_layers):
        for target, rule in _rules(lora):
            a, b = (adapters.read(key, layer) for key in adapter_keys(target))
            for name, rows in zip(mapping.hf_names(rule, layer), mapping.split(rule, b, config), strict=True):
                module = f"base_model.model.{name.removesuffix('.weight')}"
                yield f"{module}.lora_A.weight", a.clone()
                yield f"{module}.lora_B.weight", rows


def peft_config(lora: LoraConfig) -> dict[str, Any]:
    """Content of PEFT's `adapter_config.json`; the base model is whatever PEFT is asked to load it onto."""
    modules = [name.split(".")[-2] for _, rule in _rules(lora) for name in rule.hf]
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": None,
        "r": lora.r,
        # A whole number as one: some readers of adapters expect an integer.
        "lora_alpha": int(lora.lora_alpha) if lora.lora_alpha.is_integer() else lora.lora_alpha,
        "lora_dropout": lora.lora_dropout,
        "target_modules": modules,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }


def _rules(lora: LoraConfig) -> Iterator[tuple[str, mapping.Rule]]:
    """The targets with the rule of their weight, in the order of the rules."""
    for rule in mapping.RULES:
        target, name = rule.megatron.split(".")[-2:]
        if name == "weight" and target in lora.target_modules:
            yield target, rule
