"""Settings of LoRA adapters and what follows from them without a model. No torch import: readable from `--help`."""

import math
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from typing import Any

from megatron_agent.errors import UserError
from megatron_agent.model.config import LlamaConfig

COLUMN_PARALLEL = ("linear_qkv", "linear_fc1")  # outputs are divided over the tensor-parallel ranks
ROW_PARALLEL = ("linear_proj", "linear_fc2")  # inputs are divided
TARGETS = ("linear_qkv", "linear_proj", "linear_fc1", "linear_fc2")


@dataclass
class LoraConfig:
    """Low-rank adapters instead of full fine-tuning (arXiv:2106.09685); names as in the library PEFT."""

    r: int = 0
    """Rank of the adapters; 0 trains all weights."""
    lora_alpha: float = 16.0
    """The adapter's output is scaled by lora_alpha / r."""
    lora_dropout: float = 0.0
    """Dropout on the adapter's input."""
    target_modules: list[str] = field(default_factory=lambda: list(TARGETS))
    """Projections with adapters, by Megatron's names: linear_qkv (q, k and v), linear_proj (o), linear_fc1 (gate and
    up), linear_fc2 (down)."""

    @property
    def scaling(self) -> float:
        """Factor on the adapter's output."""
        return self.lora_alpha / self.r

    def check(self) -> None:
        """Refuse values that cannot work with a :class:`UserError` that names the flag."""
        if self.r < 0:
            raise UserError(f"--lora.r must be at least 0 (0 trains all weights), got {self.r}")
        if not 0 < self.lora_alpha < math.inf:
            raise UserError(f"--lora.lora_alpha must be greater than 0 and finite, got {self.lora_alpha}")
        if not 0 <= self.lora_dropout < 1:
            raise UserError(f"--lora.lora_dropout must lie in [0, 1), got {self.lora_dropout}")
        unknown = [name for name in self.target_modules if name not in TARGETS]
        if unknown or not self.target_modules or len(set(self.target_modules)) < len(self.target_modules):
            raise UserError(
                f"--lora.target_modules must name one or more of {', '.join(TARGETS)}, each once, "
                f"got {self.target_modules}"
            )


def adapter_shapes(llama: LlamaConfig, lora: LoraConfig) -> dict[str, tuple[tuple[int, int], tuple[int, int]]]:
    """Shapes of A `[r, inputs]` and B `[outputs, r]` of one layer, undivided, by target.

    The fused projections have one A: query, key and value share it, and so do gate and up.
    """
    h, ffn = llama.hidden_size, llama.intermediate_size
    heads = llama.num_attention_heads * llama.head_dim
    sizes = {
        "linear_qkv": (h, heads + 2 * llama.num_key_value_heads * llama.head_dim),
        "linear_proj": (heads, h),
        "linear_fc1": (h, 2 * ffn),
        "linear_fc2": (ffn, h),
    }
    return {name: ((lora.r, sizes[name][0]), (sizes[name][1], lora.r)) for name in lora.target_modules}


def num_adapter_parameters(llama: LlamaConfig, lora: LoraConfig) -> int:
    """Number of trained weights of the whole model."""
    pairs = adapter_shapes(llama, lora).values()
    return llama.num_hidden_layers * sum(math.prod(shape) for pair in pairs for shape in pair)


def adapter_keys(target: str) -> tuple[str, str]:
    """Keys of A and B in a checkpoint, where the layers are stacked: `[layers, r, inputs]`, `[layers, outputs, r]`."""
    block = "self_attention" if target in ("linear_qkv", "linear_proj") else "mlp"
    prefix = f"decoder.layers.{block}.{target}.adapter"
    return f"{prefix}.lora_A", f"{prefix}.lora_B"


def is_adapter_key(key: str) -> bool:
    """Whether a key of a state dict or checkpoint belongs to an adapter."""
    return key.endswith((".adapter.lora_A", ".adapter.lora_B"))


def lora_record(lora: LoraConfig, checkpoint: str, manifest_sha256: str) -> dict[str, Any]:
    """What `run.json` says of a checkpoint that holds adapters only: settings, and the base checkpoint they need."""
    return {**asdict(lora), "base": {"checkpoint": checkpoint, "manifest_sha256": manifest_sha256}}


def lora_from_record(record: dict[str, Any]) -> LoraConfig:
    """Read the settings back from :func:`lora_record`."""
    return LoraConfig(**{name: value for name, value in record.items() if name != "base"})


def changed_settings(saved: LoraConfig, current: LoraConfig, names: Collection[str]) -> list[str]:
    """Describe the settings among `names` that differ, one text each, named as flags."""
    return [
        f"--lora.{name} was {getattr(saved, name)!r}, is {getattr(current, name)!r}"
        for name in names
        if getattr(saved, name) != getattr(current, name)
    ]
