"""The learning rate as a pure function of the step, so that a resume needs no scheduler state."""

import math
from typing import Any

from megatron_agent.training.config import OptimizerSection


def learning_rate(step: int, train_iters: int, optimizer: OptimizerSection) -> float:
    """Return the learning rate of optimizer step `step` (the first is 1).

    Linear warm-up over `lr_warmup_fraction` of the run, then a cosine that reaches `min_lr` after
    `lr_decay_fraction` of it (AgentTuning, appendix A: cosine, 2 % warm-up, decay ratio 0.9); the formula is
    that of Megatron-core's `OptimizerParamScheduler`, whose step s of warm-up has lr * s / warm-up steps.
    """
    warmup_steps = round(train_iters * optimizer.lr_warmup_fraction)
    decay_steps = round(train_iters * optimizer.lr_decay_fraction)
    if step <= warmup_steps:
        return optimizer.lr * step / warmup_steps
    if step > decay_steps:
        return optimizer.min_lr
    progress = (step - warmup_steps) / (decay_steps - warmup_steps)
    return optimizer.min_lr + (optimizer.lr - optimizer.min_lr) * 0.5 * (1 + math.cos(math.pi * progress))


def set_hyperparameters(optimizer: Any, rate: float, settings: OptimizerSection) -> None:
    """Write learning rate, weight decay and Adam's constants into every parameter group of a Megatron optimizer.

    Written before every step, so that a resumed run follows its configuration and not what its checkpoint recorded.
    Groups marked `wd_mult` 0 (norms) get no weight decay; Megatron-core leaves that product to its scheduler.
    """
    for group in optimizer.param_groups:
        group["lr"] = rate
        group["weight_decay"] = settings.weight_decay * group["wd_mult"]
        group["betas"] = (settings.adam_beta1, settings.adam_beta2)
        group["eps"] = settings.adam_eps
