"""Small training runs to compare with one another: inputs made at random, the training command, its metrics."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from megatron_agent.chat.template import Span
from tests.indexed_datasets import write_spans


@dataclass(frozen=True)
class Size:
    """Shape of the model and of its data. Heads of 64 and multiples of 16 everywhere: what FP8 and flash ask for."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    seq_length: int
    conversations: int
    steps: int


TINY = Size(128, 192, 4, 2, 2, 301, 64, 80, 4)  # for a CPU
SMALL = Size(1024, 2816, 8, 16, 8, 8000, 2048, 600, 40)

Section = dict[str, Any]
Metrics = list[dict[str, Any]]


@dataclass(frozen=True)
class Inputs:
    """A random Llama in both forms and an indexed dataset, in one folder, for one device."""

    folder: Path
    size: Size
    device: str

    @property
    def hf(self) -> Path:
        """Hugging Face folder of the random weights (fp32)."""
        return self.folder / "hf"


def make_inputs(folder: Path, size: Size, device: str) -> Inputs:
    """Make a random Llama with tied embeddings, its Megatron checkpoint, and conversations that follow a rule.

    A token decides the next one, so that there is something to learn within a few dozen steps.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    from checkpoints_convert.hf_to_megatron import convert

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=size.vocab_size,
        hidden_size=size.hidden_size,
        intermediate_size=size.intermediate_size,
        num_hidden_layers=size.num_hidden_layers,
        num_attention_heads=size.num_attention_heads,
        num_key_value_heads=size.num_key_value_heads,
        max_position_embeddings=size.seq_length,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
    )
    inputs = Inputs(folder, size, device)
    LlamaForCausalLM(config).save_pretrained(inputs.hf)
    convert(inputs.hf, folder / "megatron")
    write_conversations(folder / "data", size)
    return inputs


def write_conversations(prefix: Path, size: Size) -> None:
    """Write conversations of an untrained and a trained half, of many lengths."""
    generator = np.random.default_rng(1)

    def conversation() -> list[Span]:
        length = int(generator.integers(size.seq_length // 16, size.seq_length // 2))
        ids = [int(generator.integers(3, size.vocab_size))]
        while len(ids) < length:
            ids.append((5 * ids[-1] + 11) % (size.vocab_size - 3) + 3)
        return [Span(ids=ids[: length // 3], trained=False), Span(ids=ids[length // 3 :], trained=True)]

    write_spans(
        prefix,
        [conversation() for _ in range(size.conversations)],
        vocab_size=size.vocab_size,
        tokenizer_name="random",
        tokenizer_sha256="0" * 64,
        template="llama-2",
        system_prompt="",
        max_length=size.seq_length,
    )


def train(inputs: Inputs, name: str, nproc: int = 1, start: Path | None = None, **sections: Section) -> Metrics:
    """Run the training command on `nproc` ranks into `folder/name`; return the lines of metrics.jsonl.

    `start`: a checkpoint of such a run that this one resumes. Keyword arguments override fields by section.
    RuntimeError with the end of the output when the command fails.
    """
    output = inputs.folder / name
    shutil.rmtree(output, ignore_errors=True)
    if start is not None:
        shutil.copytree(start, output / "checkpoints" / start.name)
    config: dict[str, Section] = {
        "model": {"checkpoint": str(inputs.folder / "megatron")},
        "data": {
            "general": [{"name": "general", "prefix": str(inputs.folder / "data")}],
            "eta": 0.0,
            "seq_length": inputs.size.seq_length,
            "validation_fraction": 0.0,
        },
        "training": {
            "output_dir": str(output),
            "train_iters": inputs.size.steps,
            "global_batch_size": 8,
            "precision": "fp32",
            "hidden_dropout": 0.0,
            "eval_interval": 0,
        },
        # Adam divides by the gradient's size: with eps 1e-8, a gradient that is only rounding becomes a whole step.
        "optimizer": {"lr": 1e-3, "lr_warmup_fraction": 0.2, "adam_eps": 1e-5},
        "checkpoint": {"save_interval": 1_000_000},
    }
    for section, values in sections.items():
        config[section] = config.get(section, {}) | values
    path = inputs.folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={nproc}"] if nproc > 1 else []
    command = [sys.executable, *launcher, "-m", "megatron_agent.train", "--config", str(path)]
    environment = dict(os.environ)
    if inputs.device == "cpu":
        environment |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    else:
        environment |= {"CUDA_DEVICE_MAX_CONNECTIONS": "1"}  # megatron-core's order of communication and kernels
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"{name} ended with status {result.returncode}:\n{(result.stdout + result.stderr)[-6000:]}")
    lines = (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def difference(metrics: Metrics, reference: Metrics) -> dict[str, float]:
    """Return the largest relative difference of a step's loss, that of the first gradient norm, and the losses' ends.

    The first step runs on equal weights: its figures compare forward and backward passes alone.
    """
    pairs = list(zip(metrics, reference, strict=True))
    first, expected = pairs[0]
    return {
        "first_loss_difference": abs(first["loss"] / expected["loss"] - 1),
        "first_grad_norm_difference": abs(first["grad_norm"] / expected["grad_norm"] - 1),
        "largest_loss_difference": max(abs(ours["loss"] / theirs["loss"] - 1) for ours, theirs in pairs),
        "first_loss": first["loss"],
        "last_loss": metrics[-1]["loss"],
        "last_loss_of_reference": reference[-1]["loss"],
    }


def can_learn(metrics: Metrics) -> bool:
    """True when the loss fell: runs that agree on a loss nobody moved prove little."""
    return bool(metrics[-1]["loss"] < 0.98 * metrics[0]["loss"])
