"""A tiny Llama and two tiny indexed datasets, and a way to run the training command on them."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from megatron_agent.chat.template import Span
from tests.indexed_datasets import write_spans
from tests.training.launching import Launcher

VOCAB_SIZE = 301  # padded to 384: padding must not leak into the loss or the export
SEQ_LENGTH = 64


@dataclass(frozen=True)
class TinyInputs:
    """Paths of what a tiny training run starts from."""

    hf: Path
    megatron: Path
    data: Path


def write_documents(prefix: Path, count: int, seed: int) -> None:
    """Write `count` random conversations of 8 to 56 tokens: context, answer, context, answer."""
    generator = np.random.default_rng(seed)

    def spans() -> list[Span]:
        lengths = generator.integers(2, 15, size=4)
        return [
            Span(ids=generator.integers(3, VOCAB_SIZE, size=int(n)).tolist(), trained=bool(i % 2))
            for i, n in enumerate(lengths)
        ]

    write_spans(
        prefix,
        [spans() for _ in range(count)],
        vocab_size=VOCAB_SIZE,
        tokenizer_name="random",
        tokenizer_sha256="0" * 64,
        template="llama-2",
        system_prompt="",
        max_length=SEQ_LENGTH,
    )


@pytest.fixture(scope="session")
def tiny_inputs(tmp_path_factory: pytest.TempPathFactory) -> TinyInputs:
    """A random 4-layer Llama with grouped queries, converted to Megatron, and data of two sources."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from checkpoints_convert.hf_to_megatron import main as hf_to_megatron

    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=SEQ_LENGTH,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,  # the hard case under pipeline parallelism: both ends hold the embedding
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():  # untrained weights are so small that every loss would be log(vocabulary)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
    model.save_pretrained(folder / "hf")
    hf_to_megatron(["--hf", str(folder / "hf"), "--output", str(folder / "megatron")])
    write_documents(folder / "agent", 60, seed=1)
    write_documents(folder / "general", 90, seed=2)
    return TinyInputs(folder / "hf", folder / "megatron", folder)


def write_tiny_config(inputs: TinyInputs, folder: Path, name: str = "run", **sections: dict[str, Any]) -> Path:
    """Write `folder/name.yaml`, a training run into `folder/name`; keyword arguments override fields by section."""
    config: dict[str, dict[str, Any]] = {
        "model": {"checkpoint": str(inputs.megatron)},
        "parallel": {},
        "data": {
            "agent": [{"name": "agent", "prefix": str(inputs.data / "agent")}],
            "general": [{"name": "general", "prefix": str(inputs.data / "general")}],
            "eta": 0.5,
            "seq_length": SEQ_LENGTH,
            "validation_fraction": 0.1,
        },
        "training": {
            "output_dir": str(folder / name),
            "train_iters": 5,
            "global_batch_size": 4,
            "precision": "fp32",
            "hidden_dropout": 0.0,
            "eval_interval": 5,
        },
        # Adam divides by the gradient's size: with eps 1e-8, a gradient that is only rounding becomes a whole step.
        "optimizer": {"lr": 2e-3, "lr_warmup_fraction": 0.2, "adam_eps": 1e-3},
        "checkpoint": {"save_interval": 100},
        "lora": {},
    }
    for section, values in sections.items():
        config.setdefault(section, {}).update(values)
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture(scope="session")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    """Starts training runs without the seconds of imports."""
    launcher = Launcher(tmp_path_factory.mktemp("launcher") / "log.txt")
    yield launcher
    launcher.close()


@pytest.fixture
def write_config(tiny_inputs: TinyInputs, tmp_path: Path) -> Callable[..., Path]:
    """`write_tiny_config` into this test's own folder."""
    return partial(write_tiny_config, tiny_inputs, tmp_path)


def read_metrics(output_dir: Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl, or of another file there."""
    return [json.loads(line) for line in (output_dir / name).read_text().splitlines()]
