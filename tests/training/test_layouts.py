"""Every parallel layout trains like one rank: same losses, same gradient norms, same final weights."""

import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from checkpoints_convert.megatron_to_hf import main as megatron_to_hf
from tests.distributed import run_distributed
from tests.training.conftest import TinyInputs, read_metrics, write_tiny_config

WORKER = str(Path(__file__).with_name("several_runs.py"))
STEPS = 10
TP2 = {"tensor_model_parallel_size": 2}
PP2 = {"pipeline_model_parallel_size": 2}
SP = {"sequence_parallel": True}
OVERLAP = {"overlap_grad_reduce": True, "overlap_param_gather": True}
# name -> (ranks, sections of the configuration)
LAYOUTS: dict[str, tuple[int, dict[str, dict[str, Any]]]] = {
    "TP1": (1, {}),
    "TP1_recompute_full": (1, {"training": {"recompute_granularity": "full"}}),
    "TP1_recompute_full_2_layers": (1, {"training": {"recompute_granularity": "full", "recompute_num_layers": 2}}),
    "TP1_recompute_selective": (1, {"training": {"recompute_granularity": "selective"}}),
    "TP2": (2, {"parallel": TP2}),
    "TP2_SP": (2, {"parallel": TP2 | SP}),
    "TP2_SP_recompute_full": (2, {"parallel": TP2 | SP, "training": {"recompute_granularity": "full"}}),
    "PP2": (2, {"parallel": PP2}),
    "PP2_uneven": (2, {"parallel": PP2 | {"num_layers_in_first_pipeline_stage": 1}}),
    "PP2_virtual2": (2, {"parallel": PP2 | {"virtual_pipeline_model_parallel_size": 2}}),
    "DP2": (2, {}),
    "DP2_overlap": (2, {"kernels": OVERLAP}),
    "TP2_PP2": (4, {"parallel": TP2 | PP2}),
    "TP2_DP2_SP": (4, {"parallel": TP2 | SP}),
    "PP2_virtual2_DP2_overlap": (
        4,
        {"parallel": PP2 | {"virtual_pipeline_model_parallel_size": 2}, "kernels": OVERLAP},
    ),
}
# Rounding to 8 bits of mantissa differs with the order of sums; measured here: below 2e-3.
BF16_LAYOUTS = ("TP1", "TP2_SP", "PP2_virtual2", "DP2_overlap")
BF16_TOLERANCE = 1e-2


def train_all(inputs: TinyInputs, folder: Path, names: list[str], **training: Any) -> dict[str, Path]:
    """Train each layout, one launch for each number of ranks; return the folders by layout."""
    configs: dict[int, list[Path]] = {}
    for name in names:
        ranks, sections = LAYOUTS[name]
        settings = {"train_iters": STEPS, "eval_interval": STEPS, **training, **sections.get("training", {})}
        config = write_tiny_config(inputs, folder, name, **{**sections, "training": settings})
        configs.setdefault(ranks, []).append(config)
    for ranks, files in configs.items():
        run_distributed(WORKER, ranks, files, timeout=400)
    return {name: folder / name for name in names}


def exported(output_dir: Path) -> dict[str, Any]:
    """What a run left: metrics, held-out losses and its weights as Hugging Face names them."""
    megatron_to_hf(["--megatron", str(output_dir / "checkpoints"), "--output", str(output_dir / "hf")])
    return {
        "metrics": read_metrics(output_dir),
        "validation": read_metrics(output_dir, "validation.jsonl"),
        "weights": load_file(output_dir / "hf" / "model.safetensors"),
    }


@pytest.fixture(scope="module")
def runs(tiny_inputs: TinyInputs, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of the fp32 runs of all layouts."""
    return train_all(tiny_inputs, tmp_path_factory.mktemp("layouts"), list(LAYOUTS))


@pytest.fixture(scope="module")
def one_rank(runs: dict[str, Path]) -> dict[str, Any]:
    return exported(runs["TP1"])


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "TP1"])
def test_layout_equals_one_rank(layout: str, runs: dict[str, Path], one_rank: dict[str, Any]) -> None:
    result = exported(runs[layout])
    weights = result["weights"]

    assert len(result["metrics"]) == STEPS
    for ours, reference in zip(result["metrics"], one_rank["metrics"], strict=True):
        assert ours["loss"] == pytest.approx(reference["loss"], rel=1e-5)
        assert ours["grad_norm"] == pytest.approx(reference["grad_norm"], rel=1e-4)
        assert ours["trained_tokens"] == reference["trained_tokens"]
        assert ours["source_loss"] == pytest.approx(reference["source_loss"], rel=1e-5)
    assert [line["step"] for line in result["validation"]] == [0, STEPS]
    for ours, reference in zip(result["validation"], one_rank["validation"], strict=True):
        assert ours["loss"] == pytest.approx(reference["loss"], rel=1e-5)
    assert weights.keys() == one_rank["weights"].keys()
    for name, reference in one_rank["weights"].items():
        torch.testing.assert_close(weights[name], reference, rtol=0, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_training_moves_the_weights(one_rank: dict[str, Any], tiny_inputs: TinyInputs) -> None:
    """Guards the tests above: layouts that agree on weights nobody changed would prove little."""
    initial = load_file(tiny_inputs.hf / "model.safetensors")
    for name, weights in one_rank["weights"].items():
        assert (weights - initial[name]).abs().max() > 1e-3, name


@pytest.fixture(scope="module")
def bf16_runs(tiny_inputs: TinyInputs, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return train_all(tiny_inputs, tmp_path_factory.mktemp("bf16"), list(BF16_LAYOUTS), precision="bf16")


@pytest.mark.parametrize("layout", BF16_LAYOUTS)
def test_bf16_layout_is_near_one_rank_in_fp32(
    layout: str, bf16_runs: dict[str, Path], one_rank: dict[str, Any]
) -> None:
    losses = [record["loss"] for record in read_metrics(bf16_runs[layout])]
    references = [record["loss"] for record in one_rank["metrics"]]
    assert losses == pytest.approx(references, rel=BF16_TOLERANCE)
    assert losses != references  # it was bf16
    assert all(math.isfinite(record["grad_norm"]) for record in read_metrics(bf16_runs[layout]))


@pytest.mark.parametrize(
    ("arguments", "world_size", "message"),
    [
        (["--kernels.fp8", "hybrid"], 1, "--kernels.fp8 hybrid: needs Transformer Engine"),
        (["--kernels.transformer_engine", "true"], 1, "--kernels.transformer_engine true: needs CUDA"),
        (["--parallel.context_parallel_size", "2"], 2, "context_parallel_size 2: needs Transformer Engine"),
    ],
)
def test_what_this_machine_lacks_is_refused_before_ranks_meet(
    arguments: list[str], world_size: int, message: str, write_config: Callable[..., Path]
) -> None:
    command = [sys.executable, "-m", "megatron_agent.train", "--config", str(write_config()), *arguments]
    environment = {**os.environ, "WORLD_SIZE": str(world_size), "RANK": "0"}
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
