"""The nearest layout that fits, when the configured one does not."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from megatron_agent.errors import UserError
from megatron_agent.model.config import LlamaConfig
from megatron_agent.model.layout import ParallelConfig
from megatron_agent.training.config import TrainConfig
from megatron_agent.training.planner.memory import rank_memory, rank_shapes, with_adapters
from megatron_agent.training.planner.plan import Hardware, laid_out
from megatron_agent.training.planner.schedule import bubble_fraction

TENSOR_SIZES = (1, 2, 4, 8, 16)
PIPELINE_SIZES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 32, 40, 64)
VIRTUAL_SIZES = (None, 2, 3, 4, 5, 8, 10)
LARGEST_WORLD = 4096


@dataclass(frozen=True)
class Suggestion:
    """A configuration that fits and how it differs: `flags` as given on the command line."""

    config: TrainConfig
    world_size: int
    flags: dict[str, Any]
    peak_bytes: int
    bubble: float


def suggest(config: TrainConfig, llama: LlamaConfig, world_size: int, hardware: Hardware) -> Suggestion | None:
    """Return the nearest layout that fits `world_size` GPUs; failing that, on the fewest doublings of them.

    Nearest: the fewest changed settings, then the least time lost to recomputation, pipeline bubble and communication
    (`slowdown`). Searched: tensor parallelism inside a node, pipeline and virtual stages, sequence parallelism,
    recomputation and micro-batch size. None when nothing fits up to 4,096 GPUs.
    """
    size = world_size
    while size <= max(world_size, LARGEST_WORLD):
        found = _nearest(config, llama, size, hardware)
        if found is not None:
            return found
        size *= 2
    return None


def _nearest(config: TrainConfig, llama: LlamaConfig, world_size: int, hardware: Hardware) -> Suggestion | None:
    ranked: list[tuple[int, float, int, TrainConfig]] = []
    for candidate in _candidates(config, hardware):
        changes = changed_flags(config, candidate)
        try:
            _, num_microbatches, _ = laid_out(candidate, llama, world_size)
        except UserError:
            continue
        ranked.append((len(changes), slowdown(candidate, num_microbatches), len(ranked), candidate))
    for _, _, _, candidate in sorted(ranked, key=lambda item: item[:3]):
        peak = largest_peak(candidate, llama, world_size)
        if peak <= hardware.usable_bytes:
            _, num_microbatches, _ = laid_out(candidate, llama, world_size)
            bubble = bubble_fraction(candidate.parallel, num_microbatches)
            return Suggestion(candidate, world_size, changed_flags(config, candidate), peak, bubble)
    return None


def _candidates(config: TrainConfig, hardware: Hardware) -> Iterator[TrainConfig]:
    """Every combination; most are impossible and sorted out by the same checks that training makes."""
    parallel, training = config.parallel, config.training
    recompute = list(dict.fromkeys((training.recompute_granularity, None, "selective", "full")))
    micro_batches = [size for size in range(1, training.micro_batch_size + 1) if training.micro_batch_size % size == 0]
    for tensor in TENSOR_SIZES:
        if tensor > hardware.gpus_per_node:
            continue
        for pipeline in sorted({*PIPELINE_SIZES, parallel.pipeline_model_parallel_size}):
            same_pipeline = pipeline == parallel.pipeline_model_parallel_size
            for virtual in sorted(
                {*VIRTUAL_SIZES, parallel.virtual_pipeline_model_parallel_size}, key=lambda v: v or 0
            ):
                if virtual is not None and pipeline == 1:
                    continue
                for sequence_parallel in (False, True) if tensor > 1 else (False,):
                    layout = replace(
                        parallel,
                        tensor_model_parallel_size=tensor,
                        pipeline_model_parallel_size=pipeline,
                        virtual_pipeline_model_parallel_size=virtual,
                        sequence_parallel=sequence_parallel,
                        num_layers_in_first_pipeline_stage=(
                            parallel.num_layers_in_first_pipeline_stage if same_pipeline else None
                        ),
                        num_layers_in_last_pipeline_stage=(
                            parallel.num_layers_in_last_pipeline_stage if same_pipeline else None
                        ),
                    )
                    for granularity in recompute:
                        for size in micro_batches:
                            settings = replace(training, recompute_granularity=granularity, micro_batch_size=size)
                            yield replace(config, parallel=layout, training=settings)


def changed_flags(config: TrainConfig, other: TrainConfig) -> dict[str, Any]:
    """Return `{--section.field: new value}` of the settings in which `other` differs from `config`."""
    return {
        f"--{section}.{name}": value
        for section in ("parallel", "training")
        for name, value in vars(getattr(other, section)).items()
        if value != getattr(getattr(config, section), name)
    }


def slowdown(config: TrainConfig, num_microbatches: int) -> float:
    """Rough time of a step relative to one without recomputation, bubble and communication; for ranking only.

    A recomputed forward pass adds a third of a step; recomputed attention about 3 %. Each doubling of tensor
    parallelism costs about 3 % (5 % where norms are not divided too), each doubling of the pipeline 1 % beside its
    bubble, and interleaving 1 % for its communication.
    """
    parallel = config.parallel
    recompute = {None: 0.0, "selective": 0.03, "full": 1 / 3}[config.training.recompute_granularity]
    tensor = (0.03 if parallel.sequence_parallel else 0.05) * math.log2(parallel.tensor_model_parallel_size)
    pipeline = 0.01 * math.log2(parallel.pipeline_model_parallel_size)
    interleaving = 0.01 if parallel.virtual_pipeline_model_parallel_size else 0.0
    return (1 + recompute) * (1 + bubble_fraction(parallel, num_microbatches)) * (1 + tensor + pipeline + interleaving)


def largest_peak(config: TrainConfig, llama: LlamaConfig, world_size: int) -> int:
    """Return the largest peak of all ranks in bytes, by formula alone."""
    data_parallel_size, num_microbatches, workload = laid_out(config, llama, world_size)
    parallel: ParallelConfig = config.parallel
    shards = data_parallel_size * parallel.context_parallel_size
    shapes = rank_shapes(llama, parallel)
    # Stages between the second and the last hold as much as the second and have fewer micro-batches in flight.
    distinct = {shape.stage: shape for shape in (*shapes[:2], shapes[-1])}
    return max(
        rank_memory(
            workload,
            with_adapters(shape, llama, config.lora, parallel.tensor_model_parallel_size),
            num_microbatches,
            shards,
        ).peak
        for shape in distinct.values()
    )
