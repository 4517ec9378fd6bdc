"""The real Megatron-core model of every distinct rank, built on the meta device in a process group that does nothing.

No weight is allocated and no process is started, so the largest model on the largest cluster is built on a laptop, by
the code that training runs. Tensor- and data-parallel ranks of a pipeline stage are alike; one of them is built.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from megatron_agent.model.config import LlamaConfig, padded_vocab_size
from megatron_agent.model.layout import ParallelConfig
from megatron_agent.training.planner.memory import RankShape


@dataclass(frozen=True)
class Weight:
    """One parameter of a rank."""

    name: str
    shape: tuple[int, ...]
    divided: bool  # over the tensor-parallel ranks; else each of them holds the whole
    copy: bool  # a tied embedding's copy at the end of the pipeline

    @property
    def elements(self) -> int:
        """Number of elements on this rank."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class RankModel:
    """What one rank of a pipeline stage holds: layers of each chunk, and its weights."""

    stage: int
    chunk_layers: tuple[int, ...]
    weights: tuple[Weight, ...]

    @property
    def parameters(self) -> int:
        """Elements this rank holds, padding and copies included."""
        return sum(weight.elements for weight in self.weights)


def build_ranks(llama: LlamaConfig, parallel: ParallelConfig, world_size: int) -> list[RankModel]:
    """Build the model of one rank of each pipeline stage, in order.

    The layout must have passed `check_layout`. Raises RuntimeError in a process that has a process group already.
    """
    if torch.distributed.is_initialized():
        raise RuntimeError("the planner needs a process without a process group")
    stages = parallel.pipeline_model_parallel_size
    return [_build_rank(llama, parallel, world_size, stage, stage * (world_size // stages)) for stage in range(stages)]


def _build_rank(llama: LlamaConfig, parallel: ParallelConfig, world_size: int, stage: int, rank: int) -> RankModel:
    with _without_compiler(), fake_process_group(parallel, world_size, rank):
        from megatron.core import parallel_state

        from megatron_agent.model.builder import build_model_chunks, transformer_config

        if parallel_state.get_pipeline_model_parallel_rank() != stage:
            raise RuntimeError(f"rank {rank} is not of pipeline stage {stage}")
        config = transformer_config(llama, parallel, params_dtype=torch.bfloat16, use_cpu_initialization=True)
        with _WeightsOnMeta():
            chunks = build_model_chunks(llama, config)
    weights = [
        # Megatron-core marks what is divided over tensor ranks, and the copy of a tied embedding (`shared`).
        Weight(
            name=f"chunk {number}: {name}" if len(chunks) > 1 else name,
            shape=tuple(weight.shape),
            divided=getattr(weight, "tensor_model_parallel", False),
            copy=getattr(weight, "shared", False),
        )
        for number, chunk in enumerate(chunks)
        for name, weight in chunk.named_parameters()
    ]
    return RankModel(stage, tuple(len(chunk.decoder.layers) for chunk in chunks), tuple(weights))


class _WeightsOnMeta(TorchFunctionMode):
    """Creates weights on the meta device, while small tables such as rotary frequencies stay real.

    Nothing is drawn into weights that are not there. A tied output layer is moved to the GPU when it is made; here it
    stays where it is.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in (torch.empty, torch.ones):
            kwargs = {**(kwargs or {}), "device": "meta"}
        if func in (torch.nn.init.normal_, torch.Tensor.cuda):
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def _without_compiler() -> Iterator[None]:
    """Import megatron-core without `torch.compile`, whose own import takes as long as all the rest.

    Its fused functions stay plain ones in this process, which only plans.
    """
    compiler = torch.compile
    torch.compile = lambda model=None, **options: model if model is not None else lambda function: function
    try:
        yield
    finally:
        torch.compile = compiler


@contextlib.contextmanager
def fake_process_group(parallel: ParallelConfig, world_size: int, rank: int) -> Iterator[None]:
    """Be `rank` of `world_size` ranks laid out as `parallel`, alone: collectives return at once."""
    from megatron.core import parallel_state
    from torch.testing._internal.distributed.fake_pg import FakeStore

    torch.distributed.init_process_group("fake", store=FakeStore(), rank=rank, world_size=world_size)
    try:
        parallel_state.initialize_model_parallel(
            tensor_model_parallel_size=parallel.tensor_model_parallel_size,
            pipeline_model_parallel_size=parallel.pipeline_model_parallel_size,
            virtual_pipeline_model_parallel_size=parallel.virtual_pipeline_model_parallel_size,
            context_parallel_size=parallel.context_parallel_size,
            create_gloo_process_groups=False,
        )
        yield
    finally:
        parallel_state.destroy_model_parallel()
        torch.distributed.destroy_process_group()


def count_once(ranks: list[RankModel], tensor_model_parallel_size: int) -> int:
    """Return the parameters of the whole model from the shares of its ranks, vocabulary padding included.

    A divided weight is there once for each tensor-parallel rank; one that every tensor rank holds, and a tied
    embedding that both ends of the pipeline hold, count once.
    """
    return sum(
        weight.elements * (tensor_model_parallel_size if weight.divided else 1)
        for rank in ranks
        for weight in rank.weights
        if not weight.copy
    )


def padding_parameters(llama: LlamaConfig) -> int:
    """Return the weights in rows that pad the vocabulary: of the embedding, and of the output layer unless tied."""
    rows = padded_vocab_size(llama.vocab_size) - llama.vocab_size
    return rows * llama.hidden_size * (1 if llama.tie_word_embeddings else 2)


def rank_shape(rank: RankModel, stages: int) -> RankShape:
    """Return what the memory formula needs of a built rank."""
    largest = max(weight.elements for weight in rank.weights)
    return RankShape(rank.stage, stages, rank.chunk_layers, rank.parameters, rank.parameters, largest)
