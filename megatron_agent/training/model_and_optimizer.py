"""Everything a step needs, built from the configuration: model chunks, gradient buffers, optimizer."""

from dataclasses import dataclass, field
from typing import Any

import torch

from megatron_agent.dataset.plan import plan_key
from megatron_agent.dataset.rows import PackedRows
from megatron_agent.model.builder import build_model_chunks, transformer_config
from megatron_agent.model.config import LlamaConfig
from megatron_agent.model.kernels import Switches, resolve_kernels, this_machine
from megatron_agent.model.lora import add_adapters
from megatron_agent.model.parallel import initialize_tp_comm_overlap, select_device
from megatron_agent.training.batch import TokenLayout
from megatron_agent.training.config import TrainConfig
from megatron_agent.training.timers import StepTimers


@dataclass
class Trainer:
    """The live objects of one rank."""

    gpt_models: list[Any]  # this rank's GPTModels, one a virtual pipeline stage: what checkpoints hold
    model_chunks: list[Any]  # the same inside DistributedDataParallel and, in bf16, Float16Module: what steps run
    optimizer: Any
    device: torch.device
    llama: LlamaConfig
    source_names: list[str]
    data_key: str  # hash of everything the content of the rows depends on
    switches: Switches
    token_layout: TokenLayout
    timers: StepTimers
    base_record: dict[str, Any] = field(default_factory=dict)  # with LoRA: what run.json says of the frozen weights


def data_key(rows: PackedRows) -> str:
    """Return the hash of the data files and settings that decide what is in every row."""
    return plan_key(rows.config, rows.datasets, rows.num_rows)


def resolve_switches(config: TrainConfig, data_parallel_size: int) -> Switches:
    """Decide the kernel switches of this run on this machine; :class:`UserError` for those that cannot work here."""
    select_device()
    return resolve_kernels(
        config.kernels,
        config.parallel,
        this_machine(),
        precision=config.training.precision,
        data_parallel_size=data_parallel_size,
    )


def build_trainer(config: TrainConfig, llama: LlamaConfig, rows: PackedRows) -> Trainer:
    """Build this rank's part of the model with its gradient buffers and distributed optimizer.

    Needs the process groups of `initialize_model_parallel`. Weights are random until a checkpoint is loaded. Raises
    :class:`UserError` for kernel switches that cannot work here.
    """
    from megatron.core import parallel_state
    from megatron.core.distributed import finalize_model_grads
    from megatron.core.optimizer import get_megatron_optimizer, get_standard_config_overrides

    training, parallel = config.training, config.parallel
    device = select_device()
    switches = resolve_switches(config, parallel_state.get_data_parallel_world_size())
    model_config = transformer_config(
        llama,
        parallel,
        params_dtype=torch.bfloat16 if training.precision == "bf16" else torch.float32,
        switches=switches,
        kernels=config.kernels,
        hidden_dropout=training.hidden_dropout,
        attention_dropout=training.attention_dropout,
        recompute_granularity=training.recompute_granularity,
        recompute_num_layers=training.recompute_num_layers,
        calculate_per_token_loss=True,
    )
    if switches["tp_comm_overlap"].on:
        tokens = config.data.seq_length * training.micro_batch_size // parallel.context_parallel_size
        initialize_tp_comm_overlap(tokens, llama.hidden_size, fp8=switches["fp8"].on)
    gpt_models = [model.to(device) for model in build_model_chunks(llama, model_config)]
    if config.lora.r:
        for model in gpt_models:
            add_adapters(model, config.lora, training.seed)
    model_chunks = wrap_model_chunks(gpt_models, model_config, switches)
    settings = optimizer_config(config, model_config.params_dtype, switches)
    # The standard overrides keep weight decay off norms.
    optimizer = get_megatron_optimizer(settings, model_chunks, config_overrides=get_standard_config_overrides(settings))
    if device.type == "cpu":
        for group in optimizer.param_groups:  # torch's AdamW has a fused kernel for CPUs, which must be asked for
            group["fused"] = True
    timers = StepTimers(device)
    model_config.finalize_model_grads_func = timers.wrap("reduce", finalize_model_grads)
    model_config.grad_scale_func = optimizer.scale_loss
    return Trainer(
        gpt_models,
        model_chunks,
        optimizer,
        device,
        llama,
        rows.source_names,
        data_key(rows),
        switches,
        token_layout(config, switches),
        timers,
    )


def wrap_model_chunks(gpt_models: list[Any], model_config: Any, switches: Switches) -> list[Any]:
    """Give each model its gradient buffers, and the schedule the hooks that overlap their communication."""
    from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig
    from megatron.core.transformer.module import Float16Module

    overlap_grad_reduce, overlap_param_gather = (
        switches["overlap_grad_reduce"].on,
        switches["overlap_param_gather"].on,
    )
    # Gradients accumulate and reduce in fp32; the optimizer state is split over the data-parallel ranks.
    settings = DistributedDataParallelConfig(
        grad_reduce_in_fp32=True,
        use_distributed_optimizer=True,
        overlap_grad_reduce=overlap_grad_reduce,
        overlap_param_gather=overlap_param_gather,
        align_param_gather=overlap_param_gather and len(gpt_models) > 1,
        average_in_collective=False,
    )
    # The later virtual stages of a rank reduce as a whole while the first ones still compute.
    model_chunks = [
        DistributedDataParallel(
            model_config,
            settings,
            Float16Module(model_config, model) if model_config.bf16 else model,
            disable_bucketing=number > 0,
        )
        for number, model in enumerate(gpt_models)
    ]
    if overlap_grad_reduce:
        model_config.no_sync_func = _one_or_list([chunk.no_sync for chunk in model_chunks])
        if len(model_chunks) > 1:  # all pipeline stages reduce the same virtual stage at the same time
            model_config.grad_sync_func = [chunk.start_grad_sync for chunk in model_chunks]
    if settings.align_param_gather:
        model_config.param_sync_func = [chunk.start_param_sync for chunk in model_chunks]
    return model_chunks


def gather_parameters(trainer: Trainer) -> None:
    """Complete the weights on every data-parallel rank, where they are else gathered during the next forward pass.

    Needed after an optimizer step before anything but the next training step reads the weights.
    """
    if trainer.switches["overlap_param_gather"].on:
        for chunk in trainer.model_chunks:
            chunk.start_param_sync(force_sync=True)


def optimizer_config(config: TrainConfig, params_dtype: torch.dtype, switches: Switches) -> Any:
    """Return Megatron's optimizer settings; `set_hyperparameters` writes rate and decay again before each step."""
    import megatron.core.optimizer as megatron_optimizer
    from megatron.core.optimizer import distrib_optimizer

    if not switches["fused_optimizer"].on:
        # Megatron-core has no setting for it, and asks in two places: which Adam to make, and how its state is kept.
        megatron_optimizer.USING_PYTORCH_OPTIMIZER = True
        distrib_optimizer.HAVE_APEX_OR_TE = False
        distrib_optimizer.USING_TE_OPTIMIZER = distrib_optimizer.USING_APEX_OPTIMIZER = False
    settings = config.optimizer
    return megatron_optimizer.OptimizerConfig(
        optimizer="adam",
        lr=settings.lr,
        min_lr=settings.min_lr,
        weight_decay=settings.weight_decay,
        adam_beta1=settings.adam_beta1,
        adam_beta2=settings.adam_beta2,
        adam_eps=settings.adam_eps,
        clip_grad=settings.clip_grad,
        bf16=params_dtype == torch.bfloat16,
        params_dtype=params_dtype,
        use_distributed_optimizer=True,
        overlap_param_gather=switches["overlap_param_gather"].on,
    )


def token_layout(config: TrainConfig, switches: Switches) -> TokenLayout:
    """Return what the tokens of a micro-batch are padded to: FP8 products take 16 rows at a time on each
    tensor-parallel rank, and context parallelism gives each rank two pieces of every segment."""
    from megatron.core import parallel_state

    parallel = config.parallel
    tensor_ranks = parallel.tensor_model_parallel_size if parallel.sequence_parallel else 1
    pieces = 2 * parallel.context_parallel_size if parallel.context_parallel_size > 1 else 1
    return TokenLayout(
        multiple=tensor_ranks * pieces * (16 if switches["fp8"].on else 1),
        context_parallel_size=parallel.context_parallel_size,
        context_parallel_rank=parallel_state.get_context_parallel_rank(),
        drop_padding=not torch.cuda.is_available() and parallel.pipeline_model_parallel_size == 1,
    )


def _one_or_list(functions: list[Any]) -> Any:
    return functions[0] if len(functions) == 1 else functions
