"""Micro-batches in flight against megatron-core's own schedule, and the bubble."""

import pytest

from megatron_agent.model.config import PRESETS
from megatron_agent.model.layout import ParallelConfig
from megatron_agent.training.planner.ranks import fake_process_group
from megatron_agent.training.planner.schedule import bubble_fraction, chunk_layers, in_flight


@pytest.mark.parametrize(("stages", "virtual", "microbatches"), [(2, 2, 2), (4, 2, 8), (4, 5, 4), (8, 2, 64)])
def test_interleaved_follows_megatron_core(stages: int, virtual: int, microbatches: int) -> None:
    from megatron.core.pipeline_parallel.schedules import get_pp_rank_microbatches, get_schedule_table

    parallel = ParallelConfig(pipeline_model_parallel_size=stages, virtual_pipeline_model_parallel_size=virtual)
    for stage in range(stages):
        with fake_process_group(parallel, stages, stage):
            _, _, warmup, _ = get_pp_rank_microbatches(microbatches, virtual, stages)
        order = [chunk for _, chunk in get_schedule_table(microbatches, virtual, stages)]
        alive, largest = [0] * virtual, []
        for number, chunk in enumerate(order):
            alive[chunk] += 1
            largest = max(largest, list(alive), key=sum)
            if number >= warmup:
                alive[virtual - 1 - order[number - warmup]] -= 1
        assert in_flight(stages, stage, [1] * virtual, microbatches) == largest
        assert sum(largest) == min(warmup + 1, microbatches * virtual)


def test_one_forward_one_backward() -> None:
    assert [in_flight(4, stage, [1], 8) for stage in range(4)] == [[4], [3], [2], [1]]
    assert [in_flight(4, stage, [1], 2) for stage in range(4)] == [[2], [2], [2], [1]]
    assert in_flight(1, 0, [1], 64) == [1]


def test_the_heaviest_moment_counts() -> None:
    """With one large chunk, the moment with most of it alive is the peak, not that with most chunks."""
    light, heavy = in_flight(4, 3, [10, 1], 8), in_flight(4, 3, [1, 10], 8)
    assert light[0] >= heavy[0]
    assert heavy[1] >= light[1]


def test_bubble() -> None:
    assert bubble_fraction(ParallelConfig(), 8) == 0
    assert bubble_fraction(ParallelConfig(pipeline_model_parallel_size=4), 32) == pytest.approx(3 / 32)
    interleaved = ParallelConfig(pipeline_model_parallel_size=4, virtual_pipeline_model_parallel_size=5)
    assert bubble_fraction(interleaved, 32) == pytest.approx(3 / 160)


def test_chunk_layers() -> None:
    llama = PRESETS["llama-2-7b"]
    uneven = ParallelConfig(pipeline_model_parallel_size=4, num_layers_in_last_pipeline_stage=5)
    assert chunk_layers(llama, uneven) == [[9], [9], [9], [5]]
    interleaved = ParallelConfig(pipeline_model_parallel_size=4, virtual_pipeline_model_parallel_size=2)
    assert chunk_layers(llama, interleaved) == [[4, 4]] * 4
