"""SwiGLU on the CPU, in the place of megatron-core's fused kernel for GPUs."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class _SwiGLU(torch.autograd.Function):
    """Keeps only its input; the backward pass writes both halves of the gradient where they belong."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        gate, up = x.chunk(2, dim=-1)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        gate, up = x.chunk(2, dim=-1)
        result = torch.empty_like(x)
        to_gate, to_up = result.chunk(2, dim=-1)
        torch.mul(gradient, F.silu(gate), out=to_up)
        torch.ops.aten.silu_backward.grad_input(gradient * up, gate, grad_input=to_gate)
        return result


def swiglu(
    input: Tensor,
    bias: Tensor | None,
    fp8_input_store: bool = False,
    cpu_offload_input: bool = False,
) -> Tensor:
    """Return `silu(gate) * up` `[..., f]` of `[gate, up]` `[..., 2 f]`.

    The signature is that of megatron-core's `bias_swiglu_impl`; Llama has no bias, and nothing is stored in FP8
    or offloaded on a CPU: anything else is a ValueError.
    """
    if bias is not None or fp8_input_store or cpu_offload_input:
        raise ValueError("only Llama's SwiGLU is implemented: no bias, no FP8, no offloading")
    return _SwiGLU.apply(input)
