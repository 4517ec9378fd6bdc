"""The learning rate, against Megatron-core's own scheduler."""

import types

import pytest
from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler

from megatron_agent.training.config import OptimizerSection
from megatron_agent.training.schedule import learning_rate, set_hyperparameters

TRAIN_ITERS = 2000
SETTINGS = OptimizerSection(lr=5e-5, min_lr=5e-6)  # the paper's fractions: 2 % warm-up, decay over 90 %


def test_equals_megatrons_scheduler() -> None:
    optimizer = types.SimpleNamespace(param_groups=[{"default_config": True}])
    scheduler = OptimizerParamScheduler(
        optimizer,
        init_lr=0.0,
        max_lr=SETTINGS.lr,
        min_lr=SETTINGS.min_lr,
        lr_warmup_steps=40,
        lr_decay_steps=1800,
        lr_decay_style="cosine",
        start_wd=0.1,
        end_wd=0.1,
        wd_incr_steps=TRAIN_ITERS,
        wd_incr_style="constant",
    )
    for step in range(1, TRAIN_ITERS + 1):
        scheduler.num_steps = step
        expected = scheduler.get_lr(optimizer.param_groups[0])
        assert learning_rate(step, TRAIN_ITERS, SETTINGS) == pytest.approx(expected, rel=1e-12), step


def test_ends() -> None:
    assert learning_rate(40, TRAIN_ITERS, SETTINGS) == SETTINGS.lr
    assert learning_rate(1, TRAIN_ITERS, SETTINGS) == pytest.approx(SETTINGS.lr / 40)
    assert learning_rate(TRAIN_ITERS, TRAIN_ITERS, SETTINGS) == SETTINGS.min_lr


def test_norms_get_no_weight_decay() -> None:
    optimizer = types.SimpleNamespace(param_groups=[{"wd_mult": 1.0}, {"wd_mult": 0.0}])
    set_hyperparameters(optimizer, 1e-4, SETTINGS)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
    assert all(group["lr"] == 1e-4 for group in optimizer.param_groups)
