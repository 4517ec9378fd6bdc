"""Core attention without Transformer Engine: causal within each packed segment, nothing across segments."""

import contextlib
import itertools
import math
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core import tensor_parallel
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor


def packed_seq_params(cu_seqlens: Tensor, device: torch.device | str = "cpu") -> PackedSeqParams:
    """Describe a packed sequence of `t` tokens whose segments start at `cu_seqlens` = `[0, ..., t]` (int32).

    `max_seqlen` is measured here and never taken as the row length: megatron-core 0.16.1's rotary embedding reads
    `max_seqlen == t` as "positions run on over all segments" (`rope_utils._apply_rotary_pos_emb_thd`).
    `cu_seqlens` is on the CPU, where it can be read without waiting, and goes to `device`, the model's. Raises
    ValueError unless it rises strictly from 0.
    """
    bounds = cu_seqlens.tolist()
    lengths = [end - start for start, end in itertools.pairwise(bounds)]
    if not lengths or bounds[0] != 0 or min(lengths) <= 0:
        raise ValueError(f"cu_seqlens must rise strictly from 0, got {bounds}")
    cu_seqlens = cu_seqlens.to(device, non_blocking=True)
    return PackedSeqParams(
        qkv_format="thd",
        cu_seqlens_q=cu_seqlens,
        cu_seqlens_kv=cu_seqlens,
        max_seqlen_q=max(lengths),
        max_seqlen_kv=max(lengths),
    )


class SegmentedAttention(MegatronModule):
    """Causal scaled-dot-product attention in megatron-core's `core_attention` slot.

    Packed (THD): query `[t, heads, d]`, key and value `[t, groups, d]`, segments from `packed_seq_params.cu_seqlens_q`.
    Plain: `[s, b, heads, d]` and `[s, b, groups, d]`, causal over `s`. One call per segment, so that the cost is the
    sum of the squared segment lengths and a segment's result does not depend on its neighbours.
    """

    def __init__(
        self,
        config: TransformerConfig,
        layer_number: int,
        attn_mask_type: AttnMaskType,
        attention_type: str,
        cp_comm_type: str | None = None,
        softmax_scale: float | None = None,
        pg_collection: ProcessGroupCollection | None = None,
    ) -> None:
        super().__init__(config=config)
        if config.context_parallel_size != 1:
            raise ValueError("context parallelism needs Transformer Engine's attention")
        if attn_mask_type != AttnMaskType.causal:
            raise ValueError(f"only causal attention is implemented, got {attn_mask_type}")
        self.softmax_scale = softmax_scale or 1.0 / math.sqrt(config.kv_channels)
        self.grouped = config.num_query_groups != config.num_attention_heads

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        *,
        attn_mask_type: AttnMaskType | None = None,
        attention_bias: Tensor | None = None,
        packed_seq_params: PackedSeqParams | None = None,
    ) -> Tensor:
        """Return the attended values: `[t, heads, d]` packed, `[s, b, heads * d]` plain."""
        if attention_mask is not None or attention_bias is not None:
            raise ValueError("masks come from packed_seq_params only; pass attention_mask=None")
        if packed_seq_params is None:
            batch_first = (x.permute(1, 2, 0, 3) for x in (query, key, value))  # [b, heads, s, d]
            return self._attend(*batch_first).permute(2, 0, 1, 3).flatten(2)
        bounds = packed_seq_params.cu_seqlens_q.tolist()
        lengths = [end - start for start, end in itertools.pairwise(bounds)]
        segments = zip(query.split(lengths), key.split(lengths), value.split(lengths), strict=True)
        return torch.cat([self._attend(*(x.transpose(0, 1)[None] for x in s))[0].transpose(0, 1) for s in segments])

    def _attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend causally within `[b, heads, s, d]`; key and value may have fewer heads."""
        dropout = self.config.attention_dropout if self.training else 0.0
        with _dropout_stream(self.config) if dropout else contextlib.nullcontext():
            return F.scaled_dot_product_attention(
                query,
                key,
                value,
                is_causal=True,
                dropout_p=dropout,
                scale=self.softmax_scale,
                enable_gqa=self.grouped,
            )


def _dropout_stream(config: TransformerConfig) -> contextlib.AbstractContextManager[Any]:
    """Random stream for dropout on divided heads; with sequence parallelism the block has already switched to it."""
    if config.sequence_parallel:
        return contextlib.nullcontext()
    return tensor_parallel.get_cuda_rng_tracker().fork()
