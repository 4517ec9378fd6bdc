"""Rotary positions of packed segments on the CPU, in megatron-core's `_apply_rotary_pos_emb_thd` slot."""

from typing import Any

import torch
from torch import Tensor

_last: list[tuple[Tensor, Tensor, torch.dtype, Tensor, Tensor]] = []  # freqs, cu_seqlens, dtype -> cos, sin


class _Rotate(torch.autograd.Function):
    """`[a, b] -> [a cos - b sin, b cos + a sin]` on the halves of the last dimension; its inverse is its backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotate(x, cos, sin, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        cos, sin = ctx.saved_tensors
        return _rotate(gradient, cos, sin, -1), None, None


def _rotate(x: Tensor, cos: Tensor, sin: Tensor, direction: int) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    rotated = x * cos
    to_a, to_b = rotated.chunk(2, dim=-1)
    to_a.addcmul_(b, sin, value=-direction)
    to_b.addcmul_(a, sin, value=direction)
    return rotated


def apply_rotary_thd(
    t: Tensor,
    cu_seqlens: Tensor,
    freqs: Tensor,
    rotary_interleaved: bool = False,
    multi_latent_attention: bool = False,
    mscale: float = 1.0,
    cp_group: Any = None,
) -> Tensor:
    """Rotate `t` `[t, heads, d]` by its positions, which restart at each of `cu_seqlens`.

    `freqs` `[longest, 1, 1, d]` are angles by position. megatron-core 0.16.1 slices, joins and takes cosines anew for
    queries and keys of every layer; here that is done once a micro-batch, and one pass replaces six. The signature is
    megatron-core's. Raises ValueError on the forms of rotation that Llama does not use.
    """
    if rotary_interleaved or multi_latent_attention or mscale != 1.0 or freqs.shape[-1] != t.shape[-1]:
        raise ValueError("only Llama's rotary embedding is implemented: half-rotated, all of a head, unscaled")
    cos, sin = _cosines(freqs, cu_seqlens, t.dtype)
    return _Rotate.apply(t, cos, sin)


def _cosines(freqs: Tensor, cu_seqlens: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return cos `[t, 1, d]` and sin `[t, 1, d / 2]`; kept for the next layer, which asks with the same objects."""
    if not (_last and _last[0][0] is freqs and _last[0][1] is cu_seqlens and _last[0][2] is dtype):
        positions = torch.cat([torch.arange(length) for length in cu_seqlens.diff().tolist()])
        angles = freqs.detach()[positions, 0]
        sin = angles[..., : angles.shape[-1] // 2].sin().to(dtype)
        _last[:] = [(freqs, cu_seqlens, dtype, angles.cos().to(dtype), sin)]
    return _last[0][3], _last[0][4]
