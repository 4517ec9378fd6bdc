"""Everything a step needs, built from the configuration: model chunks, gradient buffers, optimizer."""

from dataclasses import dataclass
from typing import Any

import torch

from megatron_agent.dataset.plan import plan_key
from megatron_agent.dataset.rows import PackedRows
from megatron_agent.model.builder import build_gpt_model, transformer_config
from megatron_agent.model.config import LlamaConfig
from megatron_agent.training.config import TrainConfig


@dataclass
class Trainer:
    """The live objects of one rank."""

    gpt_model: Any  # this rank's GPTModel: what checkpoints hold
    model_chunks: list[Any]  # the same inside DistributedDataParallel and, in bf16, Float16Module: what steps run
    optimizer: Any
    device: torch.device
    llama: LlamaConfig
    source_names: list[str]
    data_key: str  # hash of everything the content of the rows depends on


def data_key(rows: PackedRows) -> str:
    """Return the hash of the data files and settings that decide what is in every row."""
    return plan_key(rows.config, rows.datasets, rows.num_rows)


def build_trainer(config: TrainConfig, llama: LlamaConfig, rows: PackedRows) -> Trainer:
    """Build this rank's part of the model with its gradient buffers and distributed optimizer.

    Needs the process groups of `initialize_model_parallel`. Weights are random until a checkpoint is loaded.
    """
    from megatron.core.distributed import (
        DistributedDataParallel,
        DistributedDataParallelConfig,
        finalize_model_grads,
    )
    from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer, get_standard_config_overrides
    from megatron.core.transformer.module import Float16Module

    training = config.training
    bf16 = training.precision == "bf16"
    device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    model_config = transformer_config(
        llama,
        config.parallel,
        params_dtype=torch.bfloat16 if bf16 else torch.float32,
        hidden_dropout=training.hidden_dropout,
        attention_dropout=training.attention_dropout,
        recompute_granularity=training.recompute_granularity,
        calculate_per_token_loss=True,
    )
    model = build_gpt_model(llama, model_config).to(device)
    # Gradients accumulate and reduce in fp32; the optimizer state is split over the data-parallel ranks.
    ddp_config = DistributedDataParallelConfig(
        grad_reduce_in_fp32=True,
        use_distributed_optimizer=True,
        overlap_grad_reduce=False,
        overlap_param_gather=False,
        average_in_collective=False,
    )
    chunk = DistributedDataParallel(model_config, ddp_config, Float16Module(model_config, model) if bf16 else model)
    settings = config.optimizer
    optimizer_config = OptimizerConfig(
        optimizer="adam",
        lr=settings.lr,
        min_lr=settings.min_lr,
        weight_decay=settings.weight_decay,
        adam_beta1=settings.adam_beta1,
        adam_beta2=settings.adam_beta2,
        adam_eps=settings.adam_eps,
        clip_grad=settings.clip_grad,
        bf16=bf16,
        params_dtype=model_config.params_dtype,
        use_distributed_optimizer=True,
    )
    # The standard overrides keep weight decay off norms.
    optimizer = get_megatron_optimizer(
        optimizer_config, [chunk], config_overrides=get_standard_config_overrides(optimizer_config)
    )
    model_config.finalize_model_grads_func = finalize_model_grads
    model_config.grad_scale_func = optimizer.scale_loss
    return Trainer(model, [chunk], optimizer, device, llama, rows.source_names, data_key(rows))
