"""From a configuration and a number of GPUs to the plan: memory of every rank, time, and what to change."""

from dataclasses import dataclass

from megatron_agent.model.config import LlamaConfig
from megatron_agent.model.kernels import Machine, resolve_kernels
from megatron_agent.model.layout import check_layout
from megatron_agent.model.lora_config import num_adapter_parameters
from megatron_agent.training.config import TrainConfig
from megatron_agent.training.planner.activations import Backend, Workload
from megatron_agent.training.planner.cost import RunCost, checkpoint_bytes, run_cost
from megatron_agent.training.planner.memory import RankMemory, RankShape, rank_memory, with_adapters
from megatron_agent.training.planner.schedule import bubble_fraction

GPU_MACHINE = Machine(
    cuda=True,
    compute_capability=(9, 0),
    transformer_engine=True,
    wgrad_kernel=False,
    fused_adam="transformer_engine",
)
"""The machine planned for: NVIDIA's images bring Transformer Engine; apex is left out, as newer ones leave it."""

GIB = 2**30
DEFAULT_RESERVE_GB = 6.0
"""Kept free of the estimate: CUDA context and libraries (about 1 GiB), NCCL's buffers (1 to 2 GiB, more groups more),
cuBLAS workspaces, and what the caching allocator cannot reuse (a few percent)."""


@dataclass(frozen=True)
class Hardware:
    """The GPUs planned for. A GB of GPU memory is 2**30 bytes, as makers count."""

    gpu_memory_gb: float = 80.0
    reserve_gb: float = DEFAULT_RESERVE_GB
    peak_tflops: float = 989.0
    mfu: float = 0.4
    gpus_per_node: int = 8

    @property
    def usable_bytes(self) -> int:
        """What the estimate may fill."""
        return int((self.gpu_memory_gb - self.reserve_gb) * GIB)


@dataclass(frozen=True)
class Plan:
    """Everything the reports show."""

    config: TrainConfig
    llama: LlamaConfig
    hardware: Hardware
    world_size: int
    data_parallel_size: int
    num_microbatches: int
    workload: Workload
    ranks: list[RankShape]  # one a pipeline stage
    memory: list[RankMemory]
    parameters: int  # of the model, without padding and adapters
    padding_parameters: int
    adapter_parameters: int
    bubble: float
    cost: RunCost
    weights_checkpoint_bytes: int
    full_checkpoint_bytes: int

    @property
    def fits(self) -> bool:
        """True when every rank's peak is below the usable memory."""
        return all(memory.peak <= self.hardware.usable_bytes for memory in self.memory)


def make_plan(
    config: TrainConfig,
    llama: LlamaConfig,
    world_size: int,
    hardware: Hardware,
    conversation_tokens: int | None = None,
) -> Plan:
    """Build every distinct rank's model without memory and return the plan.

    Raises :class:`UserError`, naming the flags, for a layout or a kernel switch that is impossible, and RuntimeError
    should the built ranks not add up to the model.
    """
    data_parallel_size, num_microbatches, workload = laid_out(config, llama, world_size)

    from megatron_agent.training.planner.ranks import build_ranks, count_once, padding_parameters, rank_shape

    parallel = config.parallel
    models = build_ranks(llama, parallel, world_size)
    padding = padding_parameters(llama)
    parameters = count_once(models, parallel.tensor_model_parallel_size) - padding
    if parameters != llama.num_parameters():
        raise RuntimeError(f"the ranks hold {parameters:,} parameters, the model has {llama.num_parameters():,}")
    tp = parallel.tensor_model_parallel_size
    shapes = [with_adapters(rank_shape(model, len(models)), llama, config.lora, tp) for model in models]
    shards = data_parallel_size * parallel.context_parallel_size
    adapters = num_adapter_parameters(llama, config.lora) if config.lora.r else 0
    cost = run_cost(
        config,
        llama,
        world_size,
        mfu=hardware.mfu,
        peak_tflops=hardware.peak_tflops,
        conversation_tokens=conversation_tokens,
        adapter_weights=adapters or None,
    )
    held = parameters + padding + adapters
    checkpoint = checkpoint_bytes(held, adapters or held, bf16=workload.bf16)
    return Plan(
        config=config,
        llama=llama,
        hardware=hardware,
        world_size=world_size,
        data_parallel_size=data_parallel_size,
        num_microbatches=num_microbatches,
        workload=workload,
        ranks=shapes,
        memory=[rank_memory(workload, shape, num_microbatches, shards) for shape in shapes],
        parameters=parameters,
        padding_parameters=padding,
        adapter_parameters=adapters,
        bubble=bubble_fraction(parallel, num_microbatches),
        cost=cost,
        weights_checkpoint_bytes=checkpoint[0],
        full_checkpoint_bytes=checkpoint[1],
    )


def laid_out(
    config: TrainConfig, llama: LlamaConfig, world_size: int, machine: Machine = GPU_MACHINE
) -> tuple[int, int, Workload]:
    """Return (data-parallel size, micro-batches a step, workload of a rank); `UserError` for what is impossible."""
    parallel, training = config.parallel, config.training
    data_parallel_size = check_layout(llama, parallel, world_size, config.data.seq_length)
    num_microbatches = config.num_microbatches(data_parallel_size)
    config.check_recompute(llama)
    switches = resolve_kernels(
        config.kernels,
        parallel,
        machine,
        precision=training.precision,
        data_parallel_size=data_parallel_size,
    )
    workload = Workload(
        llama=llama,
        parallel=parallel,
        backend=Backend.from_switches(switches, cuda=machine.cuda),
        bf16=training.precision == "bf16",
        micro_batch_size=training.micro_batch_size,
        seq_length=config.data.seq_length,
        hidden_dropout=training.hidden_dropout,
        recompute_granularity=training.recompute_granularity,
        recompute_num_layers=training.recompute_num_layers,
        lora=config.lora,
    )
    return data_parallel_size, num_microbatches, workload
