"""The output layer leaves untrained positions out: losses and gradients of the others stay."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.model.tiny import random_ids, save_tiny_llama


def losses(model: Any, mask: torch.Tensor | None, rows: int = 1) -> torch.Tensor:
    ids, labels = random_ids(40).view(rows, -1), random_ids(40, seed=2).view(rows, -1)
    positions = torch.arange(ids.shape[1]).expand_as(ids)
    trained = None if mask is None else mask.t().flatten().nonzero().squeeze(1)
    return model(ids, positions, None, labels=labels, trained_positions=trained)


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("share", [0.4, 0.0, 1.0])
def test_losses_and_gradients_are_those_of_all_positions(
    rows: int, share: float, build: Callable[..., Any], tmp_path: Path
) -> None:
    save_tiny_llama(tmp_path / "hf", num_hidden_layers=2, tie_word_embeddings=True)
    model = build(tmp_path / "hf").train()
    mask = (torch.rand(rows, 40 // rows, generator=torch.Generator().manual_seed(4)) < share).float()
    every = losses(model, None, rows) * mask
    selected = losses(model, mask, rows)
    torch.testing.assert_close(selected, every, atol=1e-5, rtol=1e-5)
    expected = torch.autograd.grad(every.sum(), list(model.parameters()))
    for got, wanted in zip(torch.autograd.grad(selected.sum(), list(model.parameters())), expected, strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)


def test_logits_are_computed_for_trained_positions_only(build: Callable[..., Any], tmp_path: Path) -> None:
    save_tiny_llama(tmp_path / "hf", num_hidden_layers=1)
    model = build(tmp_path / "hf")
    shapes = []
    model.output_layer.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output[0].shape)))
    mask = torch.zeros(1, 40)
    mask[0, 5:12] = 1
    losses(model, mask)
    assert shapes == [(7, 1, 384)]


def test_the_fused_cross_entropy_takes_a_micro_batch_without_loss(
    build: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fails on no position at all; `collate` gives it position 0, whose loss the mask takes away."""
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")
    save_tiny_llama(tmp_path / "hf", num_hidden_layers=1)
    model = build(tmp_path / "hf", cross_entropy_loss_fusion=True)
    ids = random_ids(40)
    with pytest.raises(ValueError, match="unpack"):
        model(ids, torch.arange(40)[None], None, labels=ids, trained_positions=torch.zeros(0, dtype=torch.int64))
    result = model(ids, torch.arange(40)[None], None, labels=ids, trained_positions=torch.zeros(1, dtype=torch.int64))
    assert result.shape == (1, 40)
    assert result[0, 1:].eq(0).all()
