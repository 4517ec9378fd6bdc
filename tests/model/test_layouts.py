"""Tensor, pipeline and sequence parallelism compute what a single rank computes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from megatron_agent.model.layout import ParallelConfig
from tests.distributed import run_distributed
from tests.model.layout_worker import measure
from tests.model.tiny import save_tiny_llama

LAYOUTS = ["2,1,0", "2,1,1", "1,2,0"]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, single_rank: None) -> dict[str, Any]:
    from checkpoints_convert.hf_to_megatron import convert

    folder = tmp_path_factory.mktemp("layouts")
    save_tiny_llama(folder / "hf", tie_word_embeddings=True)  # tied: both ends of the pipeline hold the embedding
    checkpoint = convert(folder / "hf", folder / "megatron")
    run_distributed(Path(__file__).with_name("layout_worker.py").as_posix(), 2, [checkpoint, folder, *LAYOUTS])
    merged: dict[str, Any] = {"single": measure(checkpoint, ParallelConfig())}
    for layout in LAYOUTS:
        merged[layout] = {"norms": {}}
        for rank in (0, 1):
            part = json.loads((folder / f"{layout}.{rank}.json").read_text())
            merged[layout]["norms"] |= part.pop("norms")
            merged[layout] |= part
    return merged


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_equals_a_single_rank(layout: str, results: dict[str, Any]) -> None:
    single, divided = results["single"], results[layout]
    for key in ("logits", "losses"):
        torch.testing.assert_close(torch.tensor(divided[key]), torch.tensor(single[key]), atol=1e-4, rtol=1e-5)
    assert divided["norms"].keys() == single["norms"].keys()
    for name, gradient in single["norms"].items():
        torch.testing.assert_close(torch.tensor(divided["norms"][name]), torch.tensor(gradient), atol=1e-4, rtol=1e-4)
