"""THD attention against a dense block-diagonal mask in fp32."""

from pathlib import Path
from typing import Any

import torch

from megatron_agent.model.attention import SegmentedAttention, packed_seq_params
from megatron_agent.model.builder import transformer_config
from megatron_agent.model.config import LlamaConfig
from megatron_agent.model.layout import ParallelConfig
from megatron_agent.model.parallel import destroy_model_parallel, initialize_model_parallel

BOUNDS = [0, 1, 130, 700, 1000, 1024]  # a segment of one token, one of more than a tile, padding as the last
TOLERANCE = 2e-2  # bf16 has 8 bits
HEADS, GROUPS, WIDTH = 8, 2, 64


def dense_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bounds: torch.Tensor) -> torch.Tensor:
    """Softmax attention `[t, heads, d]` in fp32 with a mask that is causal inside segments and closed across them."""
    tokens = torch.arange(query.shape[0], device=query.device)
    segment = torch.bucketize(tokens, bounds[1:].to(tokens.dtype), right=True)
    mask = (segment[:, None] == segment[None]).tril()
    repeat = query.shape[1] // key.shape[1]
    key, value = (x.float().repeat_interleave(repeat, dim=1) for x in (key, value))
    scores = torch.einsum("qhd,khd->hqk", query.float(), key) / query.shape[-1] ** 0.5
    return torch.einsum("hqk,khd->qhd", scores.masked_fill(~mask, -torch.inf).softmax(-1), value)


def core_attention(config: Any, device: str) -> torch.nn.Module:
    """The attention that training uses on this device: Transformer Engine's, or ours on a CPU."""
    from megatron.core.transformer.enums import AttnMaskType

    if device == "cpu":
        return SegmentedAttention(config, 1, AttnMaskType.causal, "self")
    from megatron.core.extensions.transformer_engine import TEDotProductAttention

    return TEDotProductAttention(config, 1, AttnMaskType.causal, "self")


def thd_against_dense(device: str, folder: Path) -> dict[str, Any]:
    """Compare output and gradients of the packed kernel with the dense mask; differences are relative to the largest
    value."""
    from megatron.core.transformer.enums import AttnMaskType

    initialize_model_parallel(ParallelConfig(), seed=1)
    llama = LlamaConfig(HEADS * WIDTH, 1024, 1, HEADS, GROUPS, WIDTH, 301)
    config = transformer_config(llama, ParallelConfig(), params_dtype=torch.bfloat16)
    bounds = torch.tensor(BOUNDS, dtype=torch.int32, device=device)
    torch.manual_seed(0)
    inputs = [
        torch.randn(BOUNDS[-1], heads, WIDTH, device=device).bfloat16().requires_grad_()
        for heads in (HEADS, GROUPS, GROUPS)
    ]
    attention = core_attention(config, device)
    output = attention(
        *inputs, None, attn_mask_type=AttnMaskType.causal, packed_seq_params=packed_seq_params(bounds)
    ).view(BOUNDS[-1], HEADS, WIDTH)
    expected = dense_attention(*inputs, bounds)
    weights = torch.randn_like(expected)
    got = [output, *torch.autograd.grad((output.float() * weights).sum(), inputs)]
    wanted = [expected, *torch.autograd.grad((expected * weights).sum(), inputs)]
    differences = {
        name: float((ours.float() - theirs.float()).abs().max() / theirs.abs().max())
        for name, ours, theirs in zip(("output", "query", "key", "value"), got, wanted, strict=True)
    }
    destroy_model_parallel()
    return {
        "kernel": type(attention).__name__,
        "segments": BOUNDS,
        "differences": differences,
        "tolerance": TOLERANCE,
        "met": max(differences.values()) < TOLERANCE,
    }
