"""A tiny run to check before training: a configuration, two data sets and a checkpoint."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from megatron_agent.chat.template import Span
from megatron_agent.model.checkpoint_folder import begin_checkpoint, commit_checkpoint, write_json, write_run_file
from megatron_agent.model.config import LlamaConfig
from tests.indexed_datasets import write_spans

SEQ_LENGTH = 64


def write_data(prefix: Path) -> None:
    """Write twelve conversations of one context and one trained span."""
    write_spans(
        prefix,
        [[Span(ids=[5] * 8, trained=False), Span(ids=[number + 6] * 8, trained=True)] for number in range(12)],
        vocab_size=301,
        tokenizer_name="random",
        tokenizer_sha256="0" * 64,
        template="llama-2",
        system_prompt="",
        max_length=SEQ_LENGTH,
    )


def write_checkpoint(root: Path) -> Path:
    """Write a whole checkpoint folder, by the functions that training uses; the weights are any bytes."""
    temporary = begin_checkpoint(root, 0)
    for number in range(3):
        (temporary / f"__{number}_0.distcp").write_bytes(bytes([number]) * 4096)
    llama = LlamaConfig(
        vocab_size=301,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=SEQ_LENGTH,
    )
    (temporary / "hf").mkdir()
    write_json(temporary / "hf" / "config.json", llama.to_hf())
    write_run_file(temporary, {"kind": "converted"})
    return commit_checkpoint(temporary, root, 0)


@pytest.fixture
def write_run(tmp_path: Path) -> Callable[..., Path]:
    """Write the files of a tiny run below this test's folder, and its configuration, whose path is returned."""
    for name in ("agent", "general"):
        write_data(tmp_path / name)
    write_checkpoint(tmp_path / "checkpoint")

    def write(name: str = "run", **sections: dict[str, Any]) -> Path:
        config: dict[str, dict[str, Any]] = {
            "model": {"checkpoint": str(tmp_path / "checkpoint")},
            "data": {
                "agent": [{"prefix": str(tmp_path / "agent")}],
                "general": [{"prefix": str(tmp_path / "general")}],
                "seq_length": SEQ_LENGTH,
            },
            "training": {"output_dir": str(tmp_path / "runs"), "global_batch_size": 4, "precision": "fp32"},
        }
        for section, values in sections.items():
            config.setdefault(section, {}).update(values)
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config))
        return path

    return write
