"""The training command against transformers, torch's AdamW and transformers' cosine schedule, conversation by
conversation: no packing, no Megatron."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import LlamaForCausalLM, get_cosine_schedule_with_warmup

from megatron_agent.dataset.rows import PackedRow, PackedRows
from megatron_agent.training.config import TrainConfig, parse_config
from tests.training.conftest import TinyInputs, read_metrics

STEPS = 20


def conversations(row: PackedRow) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Token ids and trained flags of each conversation in a packed row; padding left out."""
    borders = list(zip(row.cu_seqlens[:-1], row.cu_seqlens[1:], row.segment_sources, strict=True))
    # The row's mask tells which token *predicts* a trained one: shift it back onto the tokens themselves.
    return [
        (
            torch.from_numpy(row.tokens[start:end]),
            torch.from_numpy(np.concatenate([[0], row.loss_mask[start : end - 1]])).bool(),
        )
        for start, end, source in borders
        if source >= 0
    ]


def train_with_transformers(folder: Path, config: TrainConfig) -> list[tuple[float, float]]:
    """Return loss and gradient norm of each step."""
    settings = config.optimizer
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    decayed = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": plain, "weight_decay": 0.0}],
        lr=settings.lr,
        betas=(settings.adam_beta1, settings.adam_beta2),
        eps=settings.adam_eps,
    )
    warmup = round(STEPS * settings.lr_warmup_fraction)
    schedule = get_cosine_schedule_with_warmup(optimizer, warmup, STEPS)
    rows = PackedRows(config.data, config.num_rows)
    results = []
    for step in range(STEPS):
        batch = config.training.global_batch_size
        pieces = [piece for i in range(batch) for piece in conversations(rows.row(step * batch + i))]
        trained = sum(int(flags.sum()) for _, flags in pieces)
        total = 0.0
        optimizer.zero_grad()
        for ids, flags in pieces:
            logits = model(ids[None]).logits[0, :-1]
            loss = F.cross_entropy(logits[flags[1:]], ids[1:][flags[1:]], reduction="sum") / trained
            loss.backward()
            total += loss.item()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_grad)
        schedule.step()  # Megatron's first step has the rate of step 1
        optimizer.step()
        results.append((total, norm.item()))
    return results


def test_losses_are_those_of_transformers(
    tiny_inputs: TinyInputs, write_config: Callable[..., Path], tmp_path: Path
) -> None:
    file = write_config(
        training={"train_iters": STEPS, "eval_interval": 0},
        optimizer={"lr_decay_fraction": 1.0, "adam_eps": 1e-8, "weight_decay": 0.1},
    )
    command = [sys.executable, "-m", "megatron_agent.train", "--config", str(file)]
    subprocess.run(command, check=True, timeout=180, capture_output=True)
    metrics = read_metrics(tmp_path / "run")
    reference = train_with_transformers(tiny_inputs.hf, parse_config(["--config", str(file)]))

    losses = [loss for loss, _ in reference]
    assert max(losses) - min(losses) > 0.05  # the weights moved
    assert [record["loss"] for record in metrics] == pytest.approx(losses, rel=1e-4)
    assert [record["grad_norm"] for record in metrics] == pytest.approx([norm for _, norm in reference], rel=1e-3)
