"""One rank with megatron-core ready, and tiny models loaded into it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from megatron_agent.model.config import LlamaConfig
from megatron_agent.model.layout import ParallelConfig


@pytest.fixture(scope="session")
def single_rank() -> Iterator[None]:
    """A world of one rank."""
    from megatron_agent.model.parallel import destroy_model_parallel, initialize_model_parallel

    initialize_model_parallel(ParallelConfig(), seed=1)
    yield
    destroy_model_parallel()


@pytest.fixture
def build(single_rank: None, tmp_path: Path) -> Callable[..., Any]:
    """Return a function: Hugging Face folder -> megatron-core model with its weights, through the converter."""
    from checkpoints_convert.hf_to_megatron import convert
    from megatron_agent.model.builder import build_gpt_model, transformer_config
    from megatron_agent.model.checkpoint_tensors import load_model_weights

    def make(hf: Path, params_dtype: torch.dtype = torch.float32, **overrides: Any) -> Any:
        config = LlamaConfig.from_hf(hf)
        settings = transformer_config(config, ParallelConfig(), params_dtype=params_dtype, **overrides)
        model = build_gpt_model(config, settings)
        load_model_weights(model, convert(hf, tmp_path / f"megatron_{hf.name}", overwrite=True))
        return model.eval()

    return make
