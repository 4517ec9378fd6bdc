"""Start torch.distributed, megatron-core's process groups and random states, on GPUs or on the CPU alike."""

import os
from datetime import timedelta

import torch
import torch.distributed

from megatron_agent.model.config import ParallelConfig

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
        distributed_timeout_minutes=TIMEOUT_MINUTES,
    )
    seed_model_parallel(seed)


def _join_process_group() -> None:
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        backend = "nccl"
    else:
        backend = "gloo"
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


def destroy_model_parallel() -> None:
    """Leave the process group and forget the layout (end of a run, or between tests)."""
    from megatron.core import parallel_state

    if parallel_state.is_initialized():
        parallel_state.destroy_model_parallel()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
