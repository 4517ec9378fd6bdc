"""Small models whose memory is dominated by what the planner estimates, and data to train them on."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from megatron_agent.chat.template import Span
from megatron_agent.model.checkpoint_folder import write_json
from megatron_agent.model.config import LlamaConfig
from tests.indexed_datasets import write_spans


@dataclass(frozen=True)
class Shape:
    """A model and how it is trained: what a configuration file says."""

    llama: LlamaConfig
    seq_length: int
    sections: dict[str, dict[str, Any]] = field(default_factory=dict)


def llama(**sizes: Any) -> LlamaConfig:
    """A small Llama; head size is hidden size / heads."""
    values: dict[str, Any] = {
        "hidden_size": 384,
        "intermediate_size": 1024,
        "num_hidden_layers": 4,
        "num_attention_heads": 6,
        "num_key_value_heads": 6,
        "vocab_size": 2048,
        **sizes,
    }
    return LlamaConfig(head_dim=values["hidden_size"] // values["num_attention_heads"], **values)


TINY = Shape(
    llama(hidden_size=64, intermediate_size=96, num_attention_heads=4, num_key_value_heads=2),
    1024,
    {"training": {"global_batch_size": 2}},
)

SHAPES = {
    "many_tokens_with_dropout": Shape(llama(num_hidden_layers=3), 1024, {"training": {"hidden_dropout": 0.1}}),
    "grouped_queries_large_padded_vocabulary": Shape(
        llama(
            hidden_size=256,
            intermediate_size=512,
            num_hidden_layers=2,
            num_attention_heads=8,
            num_key_value_heads=2,
            vocab_size=30001,
        ),
        640,
    ),
    "many_weights": Shape(llama(hidden_size=768, intermediate_size=2048, num_hidden_layers=2), 128),
    "full_recompute": Shape(
        llama(
            hidden_size=256, intermediate_size=704, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4
        ),
        2048,
        {"training": {"recompute_granularity": "full"}},
    ),
}

TWO_RANKS = {
    "TP2_SP": Shape(
        llama(hidden_size=256, intermediate_size=704, num_attention_heads=4, num_key_value_heads=4),
        1024,
        {
            "parallel": {"tensor_model_parallel_size": 2, "sequence_parallel": True},
            "training": {"global_batch_size": 2, "hidden_dropout": 0.1},
        },
    ),
    "PP2_virtual2": Shape(
        llama(hidden_size=256, intermediate_size=704, num_attention_heads=4, num_key_value_heads=4),
        1024,
        {
            "parallel": {"pipeline_model_parallel_size": 2, "virtual_pipeline_model_parallel_size": 2},
            "training": {"global_batch_size": 2},
        },
    ),
    "DP2": Shape(
        llama(hidden_size=512, intermediate_size=1408, num_attention_heads=8, num_key_value_heads=8),
        128,
        {"training": {"global_batch_size": 2}},
    ),
}


def write_config(folder: Path, name: str, shape: Shape) -> Path:
    """Write `folder/name.yaml` for two steps of one row in fp32, with the model and the data it names."""
    (folder / name).mkdir(parents=True)
    write_json(folder / name / "config.json", shape.llama.to_hf())
    prefix = folder / name / "data"
    generator = np.random.default_rng(0)

    def conversation() -> list[Span]:
        length = shape.seq_length // 4
        ids = generator.integers(3, 300, size=length).tolist()
        return [Span(ids=ids[: length // 2], trained=False), Span(ids=ids[length // 2 :], trained=True)]

    write_spans(
        prefix,
        [conversation() for _ in range(40)],
        vocab_size=301,
        tokenizer_name="random",
        tokenizer_sha256="0" * 64,
        template="llama-2",
        system_prompt="",
        max_length=shape.seq_length,
    )
    config: dict[str, Any] = {
        "model": {"config": str(folder / name)},
        "data": {"agent": [{"prefix": str(prefix)}], "eta": 1.0, "seq_length": shape.seq_length},
        "training": {"train_iters": 2, "global_batch_size": 1, "precision": "fp32", "hidden_dropout": 0.0},
    }
    for section, values in shape.sections.items():
        config[section] = {**config.get(section, {}), **values}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path
