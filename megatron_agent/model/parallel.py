"""Start torch.distributed, megatron-core's process groups and random states, on GPUs or on the CPU alike."""

import os
from datetime import timedelta

import torch
import torch.distributed

from megatron_agent.model.layout import ParallelConfig

# How long ranks wait for one another: one may be writing or hashing tens of GB while the others are at a barrier.
TIMEOUT_MINUTES = 60


def initialize_model_parallel(parallel: ParallelConfig, seed: int) -> None:
    """Join the process group, lay out the ranks and seed the random states.

    NCCL with CUDA, gloo and the CPU runtime without. Under torchrun the usual environment variables are used;
    started plainly, the process becomes a world of one rank. A second call with another layout replaces the first.
    Call `check_layout` before: sizes are not checked here.
    """
    if not torch.cuda.is_available():
        from megatron_agent.model import cpu_runtime

        cpu_runtime.install()
    if not torch.distributed.is_initialized():
        _join_process_group()

    from megatron.core import parallel_state

    if parallel_state.is_initialized():
        parallel_state.destroy_model_parallel()
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=parallel.tensor_model_parallel_size,
        pipeline_model_parallel_size=parallel.pipeline_model_parallel_size,
        virtual_pipeline_model_parallel_size=parallel.virtual_pipeline_model_parallel_size,
        context_parallel_size=parallel.context_parallel_size,
        distributed_timeout_minutes=TIMEOUT_MINUTES,
    )
    seed_model_parallel(seed)


def select_device() -> torch.device:
    """Make the GPU of this rank's `LOCAL_RANK` the current one and return it; the CPU without CUDA."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device


def _join_process_group() -> None:
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    backend = "nccl" if select_device().type == "cuda" else "gloo"
    if world_size == 1 and "MASTER_ADDR" not in os.environ:
        # A world of one needs no address; a file-less in-memory store avoids choosing a port.
        torch.distributed.init_process_group(backend, store=torch.distributed.HashStore(), rank=0, world_size=1)
    else:
        torch.distributed.init_process_group(
            backend, rank=rank, world_size=world_size, timeout=timedelta(minutes=TIMEOUT_MINUTES)
        )


def seed_model_parallel(seed: int, vary_over_data_parallel: bool = False) -> None:
    """Seed torch and megatron-core's random state tracker.

    Tensor-parallel ranks share one stream for replicated dropout and have their own for divided regions; pipeline
    stages differ. Data-parallel ranks agree, as weights drawn at random must, unless `vary_over_data_parallel`: pass
    it once the model is built, so that dropout differs between data-parallel ranks.
    """
    from megatron.core import parallel_state, tensor_parallel

    seed += 100 * parallel_state.get_pipeline_model_parallel_rank()
    if vary_over_data_parallel:
        # Far apart from the pipeline and tensor offsets that are added to the seed.
        seed += 100_003 * (parallel_state.get_data_parallel_rank() + 1)
    torch.manual_seed(seed)
    tensor_parallel.model_parallel_cuda_manual_seed(seed)


def initialize_tp_comm_overlap(tokens: int, hidden_size: int, *, fp8: bool) -> None:
    """Set up Transformer Engine's user buffers for activations of `[tokens, hidden_size]`, before the model is built.

    As `megatron.training.initialize._initialize_tp_communicators` does.
    """
    from megatron.core import parallel_state
    from transformer_engine.pytorch.module.base import initialize_ub

    initialize_ub(
        shape=[tokens, hidden_size],
        tp_size=parallel_state.get_tensor_model_parallel_world_size(),
        use_fp8=fp8,
        bootstrap_backend="nccl",
    )


def destroy_model_parallel() -> None:
    """Leave the process group and forget the layout (end of a run, or between tests)."""
    from megatron.core import parallel_state

    if parallel_state.is_initialized():
        parallel_state.destroy_model_parallel()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
