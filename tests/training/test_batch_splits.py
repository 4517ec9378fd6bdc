"""The same global batch gives the same gradients however it is split."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from megatron_agent.dataset.rows import PackedRows
from megatron_agent.training.config import parse_config
from tests.distributed import run_distributed

WORKER = str(Path(__file__).with_name("gradients.py"))


def gradients_of(config: Path, output: Path, nproc: int, *flags: str) -> dict:
    run_distributed(WORKER, nproc, ["--config", str(config), "--output", str(output), *flags])
    return torch.load(output, weights_only=True)


def test_gradients_do_not_depend_on_the_split(write_config: Callable[..., Path], tmp_path: Path) -> None:
    """(micro-batch, accumulation, DP) = (4,1,1), (1,4,1), (2,1,2) train on the mean over the global batch's tokens.

    The rows hold different numbers of trained tokens, so a mean of micro-batch means gives another loss and gradients.
    """
    config = parse_config(["--config", str(write_config())])
    rows = PackedRows(config.data, config.num_rows)
    assert len({int(rows.row(i).loss_mask.sum()) for i in range(4)}) > 1
    results = {
        name: gradients_of(
            write_config(name, training={"micro_batch_size": micro_batch_size}), tmp_path / f"{name}.pt", nproc
        )
        for name, micro_batch_size, nproc in (("4-1-1", 4, 1), ("1-4-1", 1, 1), ("2-1-2", 2, 2))
    }
    reference = results.pop("4-1-1")
    scale = max(gradient.abs().max().item() for gradient in reference["gradients"].values())
    assert scale > 1e-3
    for name, result in results.items():
        torch.testing.assert_close(result["report"], reference["report"], rtol=1e-6, atol=1e-6)
        for parameter, gradient in reference["gradients"].items():
            torch.testing.assert_close(
                result["gradients"][parameter],
                gradient,
                rtol=1e-4,
                atol=1e-6 * scale,
                msg=lambda m, n=name, p=parameter: f"{n} {p}: {m}",
            )
    average = gradients_of(tmp_path / "1-4-1.yaml", tmp_path / "means.pt", 1, "--mean-of-means")
    true_loss = reference["loss"]
    assert results["1-4-1"]["loss"] == pytest.approx(true_loss, rel=1e-6)
    assert abs(average["loss"] / true_loss - 1) > 3e-4  # the bias, 300 times what the splits may differ by
    name = "decoder.layers.0.mlp.linear_fc2.weight"
    full = next(key for key in reference["gradients"] if key.endswith(name))
    difference = (average["gradients"][full] - reference["gradients"][full]).norm() / reference["gradients"][
        full
    ].norm()
    assert difference > 0.05
