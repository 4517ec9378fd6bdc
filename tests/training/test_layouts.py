"""Every parallel layout trains like one rank: same losses, same gradient norms, same final weights."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from checkpoints_convert.megatron_to_hf import main as megatron_to_hf
from tests.distributed import run_distributed
from tests.training.conftest import TinyInputs, read_metrics

LAYOUTS = {
    "TP2": ({"tensor_model_parallel_size": 2}, 2),
    "TP2_SP": ({"tensor_model_parallel_size": 2, "sequence_parallel": True}, 2),
    "PP2": ({"pipeline_model_parallel_size": 2}, 2),
    "DP2": ({}, 2),
    "TP2_PP2": ({"tensor_model_parallel_size": 2, "pipeline_model_parallel_size": 2}, 4),
}


def run_and_export(config: Path, output_dir: Path, nproc: int) -> dict:
    run_distributed("megatron_agent.train", nproc, ["--config", str(config)])
    megatron_to_hf(["--megatron", str(output_dir / "checkpoints"), "--output", str(output_dir / "hf")])
    return {
        "metrics": read_metrics(output_dir),
        "validation": read_metrics(output_dir, "validation.jsonl"),
        "weights": load_file(output_dir / "hf" / "model.safetensors"),
    }


@pytest.fixture(scope="module")
def one_rank() -> dict:
    """Result of the single-rank run, filled by the first test that needs it."""
    return {}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_equals_one_rank(layout: str, write_config: Callable[..., Path], tmp_path: Path, one_rank: dict) -> None:
    if not one_rank:
        one_rank |= run_and_export(write_config("one"), tmp_path / "one", 1)
    parallel, nproc = LAYOUTS[layout]
    result = run_and_export(write_config(layout, parallel=parallel), tmp_path / layout, nproc)
    weights = result["weights"]

    assert len(result["metrics"]) == 5
    for ours, reference in zip(result["metrics"], one_rank["metrics"], strict=True):
        assert ours["loss"] == pytest.approx(reference["loss"], rel=1e-5)
        assert ours["grad_norm"] == pytest.approx(reference["grad_norm"], rel=1e-4)
        assert ours["trained_tokens"] == reference["trained_tokens"]
        assert ours["source_loss"] == pytest.approx(reference["source_loss"], rel=1e-5)
    assert [line["step"] for line in result["validation"]] == [0, 5]
    for ours, reference in zip(result["validation"], one_rank["validation"], strict=True):
        assert ours["loss"] == pytest.approx(reference["loss"], rel=1e-5)
    assert weights.keys() == one_rank["weights"].keys()
    for name, reference in one_rank["weights"].items():
        torch.testing.assert_close(weights[name], reference, rtol=0, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_training_moves_the_weights(
    one_rank: dict, tiny_inputs: TinyInputs, write_config: Callable[..., Path], tmp_path: Path
) -> None:
    """Guards the tests above: layouts that agree on weights nobody changed would prove little."""
    if not one_rank:
        one_rank |= run_and_export(write_config("one"), tmp_path / "one", 1)
    initial = load_file(tiny_inputs.hf / "model.safetensors")
    for name, weights in one_rank["weights"].items():
        assert (weights - initial[name]).abs().max() > 1e-3, name
