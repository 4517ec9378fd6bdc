"""Tiny random Llamas from transformers, the truth our model and converters are compared with."""

from pathlib import Path
from typing import Any

import torch

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,  # so small that all three branches of the rule are taken
}
VARIANTS: dict[str, dict[str, Any]] = {
    "multi_head_untied": {"num_key_value_heads": 4},
    "grouped_tied": {"tie_word_embeddings": True},
    "multi_query": {"num_key_value_heads": 1},
    "wide_heads": {"head_dim": 32},
    "vocabulary_fits": {"vocab_size": 256},
    "rope_base": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e5}},
    "rope_linear": {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}},
    "rope_llama3": {"rope_parameters": LLAMA3_ROPE},
}


def save_tiny_llama(folder: Path, dtype: torch.dtype = torch.float32, shard: str = "5GB", **changes: Any) -> Any:
    """Save a random Llama with weights large enough for lively logits; return the transformers model."""
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 301,  # needs padding to 384
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5,
        "initializer_range": 0.2,
        **changes,
    }
    model = LlamaForCausalLM(LlamaConfig(**settings))
    for name, parameter in model.named_parameters():
        if "norm" in name:  # ones would hide a mixed-up norm
            parameter.data.uniform_(0.5, 1.5)
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, do_sample=True, temperature=0.7)
    model.to(dtype).save_pretrained(folder, max_shard_size=shard)
    return model.eval()


def random_ids(length: int, vocab_size: int = 256, seed: int = 1) -> torch.Tensor:
    """Fixed token ids `[1, length]`."""
    return torch.randint(vocab_size, (1, length), generator=torch.Generator().manual_seed(seed))
