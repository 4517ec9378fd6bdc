"""The estimated peak against the measured growth of resident memory of real training steps on the CPU."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from megatron_agent.model.kernels import Machine
from megatron_agent.training.config import parse_config
from megatron_agent.training.planner.memory import RankMemory, rank_memory, rank_shapes
from megatron_agent.training.planner.plan import laid_out
from tests.distributed import run_distributed
from tests.training.planner.shapes import SHAPES, TINY, TWO_RANKS, Shape, write_config

# glibc keeps freed memory for itself unless told otherwise; the peak would be that of a less tidy allocator.
TIDY = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The configuration file of each shape."""
    folder = tmp_path_factory.mktemp("shapes")
    shapes = {"warm_up": TINY, **SHAPES, **TWO_RANKS}
    return {name: write_config(folder, name, shape) for name, shape in shapes.items()}


def measure(configs: dict[str, Path], names: Iterable[str], ranks: int) -> dict[tuple[str, int], int]:
    """Return the growth in bytes of each (shape, rank), one shape after the other in the same processes."""
    files = [str(configs[name]) for name in ("warm_up", *names)]
    environment = {**TIDY, "OMP_NUM_THREADS": "1"}
    process = run_distributed("tests.training.planner.memory_worker", ranks, files, env=environment, timeout=400)
    lines = [json.loads(line) for line in process.stdout.splitlines() if line.startswith("{")]
    return {(line["config"], line["rank"]): line["growth_bytes"] for line in lines}


def estimate(config_file: Path, shape: Shape, ranks: int) -> list[RankMemory]:
    """Return the memory of each pipeline stage on this backend: the CPU's switches instead of a GPU's."""
    config = parse_config(["--config", str(config_file)])
    data_parallel_size, num_microbatches, work = laid_out(config, shape.llama, ranks, Machine())
    work = replace(work, trained_share=0.5)  # of the tokens that `write_config` makes
    shapes = rank_shapes(shape.llama, config.parallel)
    return [rank_memory(work, rank, num_microbatches, data_parallel_size) for rank in shapes]


@pytest.fixture(scope="module")
def on_one_rank(configs: dict[str, Path]) -> dict[tuple[str, int], int]:
    """Measured once for all shapes."""
    return measure(configs, SHAPES, 1)


@pytest.fixture(scope="module")
def on_two_ranks(configs: dict[str, Path]) -> dict[tuple[str, int], int]:
    """Measured once for all layouts."""
    return measure(configs, TWO_RANKS, 2)


@pytest.mark.parametrize("name", SHAPES)
def test_estimate_is_within_a_tenth_of_the_measured_growth(
    name: str, configs: dict[str, Path], on_one_rank: dict[tuple[str, int], int]
) -> None:
    (memory,) = estimate(configs[name], SHAPES[name], 1)
    assert memory.peak == pytest.approx(on_one_rank[name, 0], rel=0.10)


@pytest.mark.parametrize("name", TWO_RANKS)
def test_estimate_holds_on_every_rank_of_a_layout(
    name: str, configs: dict[str, Path], on_two_ranks: dict[tuple[str, int], int]
) -> None:
    stages = estimate(configs[name], TWO_RANKS[name], 2)
    for rank in range(2):
        memory = stages[rank] if len(stages) == 2 else stages[0]
        assert memory.peak == pytest.approx(on_two_ranks[name, rank], rel=0.10)


def test_the_shapes_peak_in_different_phases(configs: dict[str, Path]) -> None:
    """Else the tests above would prove one term of the formula over and over."""
    phases = {estimate(configs[name], shape, 1)[0].phase for name, shape in SHAPES.items()}
    assert phases == {"backward of a layer", "loss, forward", "gradient reduction and weight gathering"}
