"""The ranks built on the meta device hold the model: published parameter counts, each tensor once."""

from dataclasses import replace

import pytest
import torch

from megatron_agent.model.config import PRESETS
from megatron_agent.model.layout import ParallelConfig
from megatron_agent.training.planner.memory import rank_shapes
from megatron_agent.training.planner.ranks import build_ranks, count_once, padding_parameters, rank_shape

PUBLISHED = {"llama-2-7b": 6_738_415_616, "llama-2-13b": 13_015_864_320, "llama-2-70b": 68_976_648_192}
LAYOUTS = [
    ("llama-2-7b", 8, {"tensor_model_parallel_size": 2}),
    ("llama-2-13b", 8, {"tensor_model_parallel_size": 4, "sequence_parallel": True}),
    ("llama-2-70b", 32, {"tensor_model_parallel_size": 8, "pipeline_model_parallel_size": 4}),
    ("llama-2-70b", 64, {"tensor_model_parallel_size": 8, "pipeline_model_parallel_size": 4}),
    ("llama-2-70b", 128, {"tensor_model_parallel_size": 8, "pipeline_model_parallel_size": 4}),
    ("llama-2-70b", 128, {"tensor_model_parallel_size": 8, "pipeline_model_parallel_size": 8}),
]
INTERLEAVED = {
    "tensor_model_parallel_size": 8,
    "pipeline_model_parallel_size": 4,
    "virtual_pipeline_model_parallel_size": 5,
}
UNEVEN = {
    "pipeline_model_parallel_size": 4,
    "num_layers_in_first_pipeline_stage": 7,
    "num_layers_in_last_pipeline_stage": 7,
}


@pytest.mark.parametrize(("preset", "world_size", "layout"), LAYOUTS)
def test_shares_sum_to_the_published_count(preset: str, world_size: int, layout: dict) -> None:
    llama, parallel = PRESETS[preset], ParallelConfig(**layout)
    ranks = build_ranks(llama, parallel, world_size)
    assert len(ranks) == parallel.pipeline_model_parallel_size
    assert padding_parameters(llama) == 0
    assert count_once(ranks, parallel.tensor_model_parallel_size) == PUBLISHED[preset]
    # By hand for the same layout: what is divided appears on every tensor rank, norms on each of them again.
    norms = (2 * llama.num_hidden_layers + 1) * llama.hidden_size
    tp = parallel.tensor_model_parallel_size
    assert sum(rank.parameters for rank in ranks) * tp == PUBLISHED[preset] + (tp - 1) * norms


def test_interleaved_and_uneven_pipelines() -> None:
    seventy = build_ranks(PRESETS["llama-2-70b"], ParallelConfig(**INTERLEAVED), 32)
    assert [rank.chunk_layers for rank in seventy] == [(4, 4, 4, 4, 4)] * 4
    assert count_once(seventy, 8) == PUBLISHED["llama-2-70b"]
    seven = build_ranks(PRESETS["llama-2-7b"], ParallelConfig(**UNEVEN), 4)
    assert [rank.chunk_layers for rank in seven] == [(7,), (9,), (9,), (7,)]
    assert count_once(seven, 1) == PUBLISHED["llama-2-7b"]


def test_tied_embedding_and_padding_count_once() -> None:
    llama = replace(PRESETS["llama-2-7b"], tie_word_embeddings=True, vocab_size=32001)  # padded to 32,128
    ranks = build_ranks(llama, ParallelConfig(tensor_model_parallel_size=2, pipeline_model_parallel_size=2), 4)
    copies = [weight for rank in ranks for weight in rank.weights if weight.copy]
    assert [weight.shape for weight in copies] == [(16064, 4096)]
    assert padding_parameters(llama) == 127 * 4096
    assert count_once(ranks, 2) == llama.num_parameters() + 127 * 4096


@pytest.mark.parametrize("layout", [{}, INTERLEAVED, UNEVEN, {"pipeline_model_parallel_size": 2}])
@pytest.mark.parametrize("tied", [False, True])
def test_formula_equals_the_built_ranks(layout: dict, tied: bool) -> None:
    llama = replace(PRESETS["llama-3-8b"], tie_word_embeddings=tied, vocab_size=128257, num_hidden_layers=40)
    parallel = ParallelConfig(**layout)
    if "num_layers_in_first_pipeline_stage" in layout:
        llama = replace(llama, num_hidden_layers=32)
    ranks = build_ranks(llama, parallel, 32)
    assert [rank_shape(rank, len(ranks)) for rank in ranks] == rank_shapes(llama, parallel)


def test_no_memory_is_taken_and_the_process_is_left_clean() -> None:
    import re
    from pathlib import Path

    def resident() -> int:
        found = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())
        assert found is not None
        return int(found.group(1))

    build_ranks(PRESETS["llama-2-7b"], ParallelConfig(), 1)
    before = resident()
    build_ranks(PRESETS["llama-2-7b"], ParallelConfig(), 1)
    assert resident() - before < 50_000  # kB; the weights would be 13 GB
    assert not torch.distributed.is_initialized()


def test_refuses_to_replace_a_process_group() -> None:
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    with pytest.raises(RuntimeError, match="without a process group"):
        build_ranks(PRESETS["llama-2-7b"], ParallelConfig(), 1)
