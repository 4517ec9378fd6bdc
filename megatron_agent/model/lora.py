"""LoRA adapters (arXiv:2106.09685) on megatron-core's parallel projections.

    y = W x + (lora_alpha / r) B A dropout(x)        W frozen, A [r, inputs], B [outputs, r], B = 0 at first

The rank-r product in the middle is all that adapters communicate: r columns where the projection itself moves a whole
hidden state. `tp` is the tensor-parallel size, `s` the sequence length of the row.

    projection       A               B                between A and B                    with sequence parallelism
    column-parallel  whole           [outputs/tp, r]  copy (backward: all-reduce)        all-gather of [s/tp, b, r]
    row-parallel     [r, inputs/tp]  whole            all-reduce (backward: copy)        reduce-scatter of [s, b, r]

With sequence parallelism a rank's gradient of the whole matrix covers its part of the sequence; the matrix is marked
`sequence_parallel`, so that `finalize_model_grads` sums it over the tensor-parallel ranks. Without, every rank
computes the same gradient.
"""

import contextlib
import functools
import hashlib
import math
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core import parallel_state, tensor_parallel
from megatron.core.models.gpt import GPTModel
from megatron.core.tensor_parallel import mappings
from megatron.core.transformer.mlp import apply_swiglu_sharded_factory
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.utils import ensure_metadata_has_dp_cp_group, make_sharded_tensors_for_checkpoint
from torch import Tensor

from megatron_agent.model.lora_config import ROW_PARALLEL, LoraConfig


def add_adapters(model: GPTModel, lora: LoraConfig, seed: int) -> None:
    """Freeze the weights of this rank's model chunk and put an adapter beside each projection of `lora.target_modules`.

    Call it before the chunk is wrapped. Names and checkpoint keys of the frozen weights do not change. The adapters'
    first values depend on `seed`, layer and projection only, not on the layout.
    """
    model.requires_grad_(False)
    for layer in model.decoder.layers:
        for target in lora.target_modules:
            owner = layer.self_attention if hasattr(layer.self_attention, target) else layer.mlp
            linear = getattr(owner, target)
            name = f"decoder.layers.{layer.layer_number - 1}.{target}"
            _attach(linear, LoraAdapter(linear.weight, target, name, lora, model.config, seed))
    if model.pre_process and model.config.recompute_granularity is not None:
        model.embedding.register_forward_hook(_require_grad)


def _require_grad(module: torch.nn.Module, inputs: Any, output: Tensor) -> None:
    """Let the frozen embedding's output require a gradient.

    A recomputed block whose inputs need none is left out of the backward pass, with all the adapters inside it.
    """
    if torch.is_grad_enabled():
        output.requires_grad_()


class LoraAdapter(torch.nn.Module):
    """The two small matrices beside one projection, divided as the projection is.

    `weight` is this rank's part of the frozen matrix, `[outputs, inputs]`; `name` seeds the first values.
    """

    def __init__(
        self, weight: Tensor, target: str, name: str, lora: LoraConfig, config: TransformerConfig, seed: int
    ) -> None:
        super().__init__()
        self.config = config
        self.row_parallel = target in ROW_PARALLEL
        self.gated = target == "linear_fc1" and config.gated_linear_unit
        self.scaling = lora.scaling
        self.dropout = lora.lora_dropout
        outputs, inputs = weight.shape
        first = _initial_a(lora.r, inputs, self.row_parallel, name, seed)
        self.lora_A = torch.nn.Parameter(first.to(weight.device, config.params_dtype))
        self.lora_B = torch.nn.Parameter(torch.zeros(outputs, lora.r, dtype=config.params_dtype, device=weight.device))
        divided, whole, axis = (self.lora_A, self.lora_B, 1) if self.row_parallel else (self.lora_B, self.lora_A, 0)
        tensor_parallel.set_tensor_model_parallel_attributes(divided, True, axis, 1)
        whole.sequence_parallel = config.sequence_parallel

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Return what to add to the projection's output, from the projection's (normalised) input `[s, b, inputs]`."""
        low_rank = F.linear(self._drop(hidden_states), self.lora_A) * self.scaling
        if self.config.sequence_parallel:
            if self.row_parallel:
                low_rank = mappings.reduce_scatter_to_sequence_parallel_region(low_rank)
            else:
                low_rank = mappings.gather_from_sequence_parallel_region(low_rank)
        elif self.row_parallel:
            low_rank = mappings.reduce_from_tensor_model_parallel_region(low_rank)
        else:
            low_rank = mappings.copy_to_tensor_model_parallel_region(low_rank)
        return F.linear(low_rank, self.lora_B)

    def _drop(self, hidden_states: Tensor) -> Tensor:
        if not self.training or self.dropout == 0:
            return hidden_states
        # Divided inputs need a stream of each rank's own; with sequence parallelism the block has switched to it.
        own_stream = self.row_parallel and not self.config.sequence_parallel
        with tensor_parallel.get_cuda_rng_tracker().fork() if own_stream else contextlib.nullcontext():
            return F.dropout(hidden_states, self.dropout)

    def sharded_state_dict(
        self, prefix: str = "", sharded_offsets: tuple[Any, ...] = (), metadata: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Megatron-core's description of both matrices; B of a gated projection is `[gate; up]` as a whole."""
        metadata = ensure_metadata_has_dp_cp_group(metadata)
        state = make_sharded_tensors_for_checkpoint(
            self.state_dict(prefix="", keep_vars=True),
            prefix,
            {"lora_A": 1} if self.row_parallel else {"lora_B": 0},
            sharded_offsets,
            tp_group=parallel_state.get_tensor_model_parallel_group(),
            dp_cp_group=metadata["dp_cp_group"],
        )
        if self.gated:
            key = f"{prefix}lora_B"
            local_shards = metadata.get("singleton_local_shards", False)
            state[key] = apply_swiglu_sharded_factory(state[key], sharded_offsets, local_shards)
        return state


def _initial_a(r: int, inputs: int, divided: bool, name: str, seed: int) -> Tensor:
    """This rank's columns of A, fp32: Kaiming-uniform with a = sqrt(5) as in PEFT, that is U(-1, 1) / sqrt(inputs)."""
    size = parallel_state.get_tensor_model_parallel_world_size() if divided else 1
    rank = parallel_state.get_tensor_model_parallel_rank() if divided else 0
    digest = hashlib.blake2b(f"{seed} {name}".encode(), digest_size=6).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "big"))
    whole = torch.empty(r, inputs * size)
    torch.nn.init.kaiming_uniform_(whole, a=math.sqrt(5), generator=generator)
    return whole.chunk(size, dim=1)[rank].contiguous()


class _AdaptedLinear(torch.nn.Module):
    """What `_attach` adds to the class of a projection."""

    adapter: LoraAdapter

    def forward(self, input_: Tensor) -> tuple[Tensor, Tensor | None]:
        output, bias = super().forward(input_)
        normalised = input_
        if isinstance(output, tuple):  # Transformer Engine's fused norm: (output, normalised input)
            output, normalised = output
        return output + self.adapter(normalised), bias

    def sharded_state_dict(
        self, prefix: str = "", sharded_offsets: tuple[Any, ...] = (), metadata: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        state: dict[str, Any] = super().sharded_state_dict(prefix, sharded_offsets, metadata)
        return state | self.adapter.sharded_state_dict(f"{prefix}adapter.", sharded_offsets, metadata)


def _attach(linear: torch.nn.Module, adapter: LoraAdapter) -> None:
    """Give one projection its adapter by changing the object's class: no module around it, so its keys stay."""
    linear.adapter = adapter
    if hasattr(linear, "return_layernorm_output"):  # Transformer Engine's LayerNormLinear; the adapter needs the norm
        linear.return_layernorm_output = True
    linear.__class__ = _adapted_class(type(linear))  # type: ignore[arg-type]


@functools.cache
def _adapted_class(linear_class: type[torch.nn.Module]) -> type[torch.nn.Module]:
    return type(f"Lora{linear_class.__name__}", (_AdaptedLinear, linear_class), {})
