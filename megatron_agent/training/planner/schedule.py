"""What the pipeline schedule implies: layers of every chunk, micro-batches in flight, bubble."""

from collections.abc import Sequence

from megatron_agent.model.config import LlamaConfig
from megatron_agent.model.layout import ParallelConfig, layers_per_stage


def chunk_layers(llama: LlamaConfig, parallel: ParallelConfig) -> list[list[int]]:
    """Return the number of layers of each chunk, `[pipeline rank][virtual stage]`, of a layout that fits the model."""
    virtual = parallel.virtual_pipeline_model_parallel_size or 1
    return [[layers // virtual] * virtual for layers in layers_per_stage(llama.num_hidden_layers, parallel)]


def in_flight(stages: int, stage: int, chunk_bytes: Sequence[int], num_microbatches: int) -> list[int]:
    """Return how many micro-batches of each chunk of rank `stage` are alive when their bytes are the most.

    One chunk a rank: 1F1B (arXiv:2104.04473, section 2.2.1) holds min(stages - stage, micro-batches). Several:
    the interleaved schedule runs `2 (stages - stage - 1) + (chunks - 1) stages` forward passes before the first
    backward pass, chunk after chunk in groups of `stages` micro-batches (section 2.2.2; megatron-core's
    `get_pp_rank_microbatches` and `get_schedule_table`), then one forward and one backward in turn.
    """
    chunks = len(chunk_bytes)
    if chunks == 1:
        return [min(stages - stage, num_microbatches)]
    forward = _chunk_order(stages, chunks, num_microbatches)
    backward = [chunks - 1 - chunk for chunk in forward]
    warmup = min(2 * (stages - stage - 1) + (chunks - 1) * stages, len(forward))
    alive = [0] * chunks
    largest, result = -1, list(alive)
    for number, chunk in enumerate(forward):
        alive[chunk] += 1
        size = sum(count * size for count, size in zip(alive, chunk_bytes, strict=True))
        if size > largest:
            largest, result = size, list(alive)
        if number >= warmup:
            alive[backward[number - warmup]] -= 1
    return result


def _chunk_order(stages: int, chunks: int, num_microbatches: int) -> list[int]:
    """Chunk of each forward pass in the interleaved schedule."""
    order = []
    for start in range(0, num_microbatches, stages):
        group = min(stages, num_microbatches - start)
        order += [chunk for chunk in range(chunks) for _ in range(group)]
    return order


def bubble_fraction(parallel: ParallelConfig, num_microbatches: int) -> float:
    """Idle time of the pipeline over its compute time: `(p - 1) / (m v)` (arXiv:2104.04473, section 2.2)."""
    virtual = parallel.virtual_pipeline_model_parallel_size or 1
    return (parallel.pipeline_model_parallel_size - 1) / (num_microbatches * virtual)
