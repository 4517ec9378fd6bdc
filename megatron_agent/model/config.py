"""What a Llama model is: its sizes. No torch import: readable from `--help`."""

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from megatron_agent.errors import UserError
from megatron_agent.files import read_json_object

VOCAB_MULTIPLE = 128  # rows of the embedding are padded to this multiple, whatever the tensor parallelism
ROPE_TYPES = ("default", "linear", "llama3")
LLAMA3_ROPE_KEYS = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")


@dataclass(frozen=True)
class LlamaConfig:
    """Sizes of a Llama-architecture model, named as in Hugging Face's `LlamaConfig`."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    rope_scaling: dict[str, Any] | None = None
    tie_word_embeddings: bool = False
    max_position_embeddings: int = 4096

    def num_parameters(self) -> int:
        """Number of weights; a tied output layer is counted once and vocabulary padding not at all."""
        h, heads, groups, d = (
            self.hidden_size,
            self.num_attention_heads,
            self.num_key_value_heads,
            self.head_dim,
        )
        attention = h * (heads + 2 * groups) * d + heads * d * h
        layer = attention + 3 * h * self.intermediate_size + 2 * h
        embeddings = self.vocab_size * h * (1 if self.tie_word_embeddings else 2)
        return embeddings + self.num_hidden_layers * layer + h

    def to_hf(self) -> dict[str, Any]:
        """Return the content of a Hugging Face `config.json` for this model."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_act": "silu",
            **asdict(self),
        }

    @staticmethod
    def from_hf(path: str | Path) -> "LlamaConfig":
        """Read a Hugging Face folder's `config.json` (or the file itself).

        Both spellings of the rotary settings are read: `rope_theta` with `rope_scaling` (transformers 4) and
        `rope_parameters` (transformers 5). Raises `UserError` for anything that is not a plain Llama.
        """
        path = Path(path)
        file = path / "config.json" if path.is_dir() else path
        if not file.is_file():
            raise UserError(
                f"expected a Hugging Face config.json at {file}, found none; "
                "give a model folder written by save_pretrained"
            )
        record = read_json_object(file, "download it again")
        return _config_from_record(record, file)


def _config_from_record(record: dict[str, Any], file: Path) -> LlamaConfig:
    _refuse_unsupported(record, file)

    def number(key: str, default: Any = None) -> Any:
        value = record.get(key)
        value = default if value is None else value
        if not _is_positive(value):
            raise UserError(f'{file}: expected a positive number under "{key}", got {record.get(key)!r}')
        return value

    tied = record.get("tie_word_embeddings", False)
    if not isinstance(tied, bool):
        raise UserError(f'{file}: expected true or false under "tie_word_embeddings", got {tied!r}')

    heads = int(number("num_attention_heads"))
    hidden_size = int(number("hidden_size"))
    rope_theta, rope_scaling = _rope_settings(record, file)
    groups = int(number("num_key_value_heads", heads))
    if heads % groups:
        raise UserError(f"{file}: num_attention_heads {heads} is not a multiple of num_key_value_heads {groups}")
    if record.get("head_dim") is None and hidden_size % heads:
        raise UserError(f"{file}: hidden_size {hidden_size} is not a multiple of num_attention_heads {heads}")
    return LlamaConfig(
        hidden_size=hidden_size,
        intermediate_size=int(number("intermediate_size")),
        num_hidden_layers=int(number("num_hidden_layers")),
        num_attention_heads=heads,
        num_key_value_heads=groups,
        head_dim=int(number("head_dim", hidden_size // heads)),
        vocab_size=int(number("vocab_size")),
        rms_norm_eps=float(number("rms_norm_eps", 1e-6)),
        rope_theta=rope_theta,
        rope_scaling=rope_scaling,
        tie_word_embeddings=tied,
        max_position_embeddings=int(number("max_position_embeddings", 2048)),
    )


def _refuse_unsupported(record: dict[str, Any], file: Path) -> None:
    if record.get("model_type") != "llama":
        raise UserError(
            f'{file}: expected "model_type": "llama", got {record.get("model_type")!r}; '
            "only Llama-architecture models are supported"
        )
    for key, wanted in (("attention_bias", False), ("mlp_bias", False), ("hidden_act", "silu")):
        value = record.get(key, wanted)
        if value != wanted:
            raise UserError(f'{file}: expected "{key}": {wanted!r}, got {value!r}; this Llama variant is not supported')
    if record.get("quantization_config") is not None:
        raise UserError(f"{file}: quantised weights are not supported; save the model in bf16, fp16 or fp32 first")


def _is_positive(value: object) -> bool:
    """True for a finite JSON number above 0 (`true` is none)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def _rope_settings(record: dict[str, Any], file: Path) -> tuple[float, dict[str, Any] | None]:
    """Return (rope_theta, scaling or None) from either spelling of the settings."""
    settings = record.get("rope_parameters") or record.get("rope_scaling") or {}
    if not isinstance(settings, dict):
        raise UserError(f"{file}: expected a JSON object under rope_parameters or rope_scaling, got {settings!r}")
    theta = settings.get("rope_theta", record.get("rope_theta"))
    theta = 10000.0 if theta is None else theta  # transformers' own default
    if not _is_positive(theta):
        raise UserError(f'{file}: expected a positive number under "rope_theta", got {theta!r}')
    rope_type = settings.get("rope_type", settings.get("type", "default"))
    if rope_type not in ROPE_TYPES:
        raise UserError(f"{file}: expected a rope_type in {', '.join(ROPE_TYPES)}, got {rope_type!r}")
    if rope_type == "default":
        return float(theta), None
    keys = LLAMA3_ROPE_KEYS if rope_type == "llama3" else ("factor",)
    missing = [key for key in keys if not _is_positive(settings.get(key))]
    if missing:
        raise UserError(f"{file}: rope_type {rope_type!r} needs a positive number under {', '.join(missing)}")
    return float(theta), {"rope_type": rope_type, **{key: settings[key] for key in keys}}


_LLAMA_2_7B = LlamaConfig(
    hidden_size=4096,
    intermediate_size=11008,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=32,
    head_dim=128,
    vocab_size=32000,
)
_LLAMA_3_8B = replace(
    _LLAMA_2_7B,
    intermediate_size=14336,
    num_key_value_heads=8,
    vocab_size=128256,
    rope_theta=500000.0,
    max_position_embeddings=8192,
)
PRESETS: dict[str, LlamaConfig] = {
    "llama-2-7b": _LLAMA_2_7B,
    "llama-2-13b": replace(
        _LLAMA_2_7B,
        hidden_size=5120,
        intermediate_size=13824,
        num_hidden_layers=40,
        num_attention_heads=40,
        num_key_value_heads=40,
    ),
    "llama-2-70b": replace(
        _LLAMA_2_7B,
        hidden_size=8192,
        intermediate_size=28672,
        num_hidden_layers=80,
        num_attention_heads=64,
        num_key_value_heads=8,
    ),
    "llama-3-8b": _LLAMA_3_8B,
    "llama-3.1-8b": replace(
        _LLAMA_3_8B,
        rope_scaling={
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
        max_position_embeddings=131072,
    ),
    "llama-3-70b": replace(
        _LLAMA_3_8B, hidden_size=8192, intermediate_size=28672, num_hidden_layers=80, num_attention_heads=64
    ),
}


def load_llama_config(name_or_path: str | Path) -> LlamaConfig:
    """Return a preset by its name, or read a Hugging Face folder; `UserError` when it is neither."""
    if str(name_or_path) in PRESETS:
        return PRESETS[str(name_or_path)]
    if not Path(name_or_path).exists():
        raise UserError(
            f"expected a preset ({', '.join(PRESETS)}) or a Hugging Face model folder, got {str(name_or_path)!r}"
        )
    return LlamaConfig.from_hf(name_or_path)


def padded_vocab_size(vocab_size: int) -> int:
    """Return `vocab_size` rounded up to a multiple of 128.

    The multiple does not depend on the tensor parallelism, so that a checkpoint fits every layout.
    """
    return -(-vocab_size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE
