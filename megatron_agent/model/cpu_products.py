"""bf16 matrix products on processors without bf16 units: computed in fp32, rounded once to bf16.

torch's own bf16 kernels emulate such products there, up to a hundred times slower than fp32. Every bf16 number is an
fp32 number, so products of the same operands in fp32, rounded at the end, are what hardware with fp32 accumulation
gives. Only `cpu_runtime.install` uses this module: never with CUDA, never with AVX512-BF16 or AMX.
"""

import platform
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
import torch.nn.functional as F


def has_bf16_units() -> bool:
    """True where an x86 processor multiplies bf16 matrices in hardware (AVX512-BF16 or AMX)."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def lacks_bf16_units() -> bool:
    """True on x86 processors without them; torch's kernels for other processors are left as they are."""
    return platform.machine().lower() in ("x86_64", "amd64") and not has_bf16_units()


def bf16_products_reason() -> tuple[bool, str]:
    """Say whether bf16 products go through fp32 here, and why: for the lines printed at start."""
    if torch.cuda.is_available():
        return False, "the GPU multiplies bf16"
    if lacks_bf16_units():
        return True, "this processor has neither AVX512-BF16 nor AMX: bf16 operands, fp32 products, rounded to bf16"
    return False, "torch's bf16 kernels suit this processor"


def through_fp32(product: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Wrap `product` so that bf16 CPU operands are multiplied in fp32 and the result is rounded to bf16.

    Other types pass through, and so do calls with `out=`. Autograd sees the fp32 product between two casts, so that
    the products of the backward pass are computed the same way.
    """

    @wraps(product)
    def multiply(*args: Any, **kwargs: Any) -> torch.Tensor:
        first = args[0] if args else None
        if not isinstance(first, torch.Tensor) or first.dtype != torch.bfloat16 or "out" in kwargs:
            return product(*args, **kwargs)
        if not first.is_cpu:
            return product(*args, **kwargs)
        args = tuple(_to_fp32(value) for value in args)
        kwargs = {name: _to_fp32(value) for name, value in kwargs.items()}
        return product(*args, **kwargs).to(torch.bfloat16)

    return multiply


def _to_fp32(value: Any) -> Any:
    return value.float() if isinstance(value, torch.Tensor) and value.dtype == torch.bfloat16 else value


def install() -> None:
    """Replace the products that megatron-core and our modules call, in this process.

    These are python attributes, looked up at every call: megatron-core's linear layers call `torch.matmul` forward and
    `Tensor.matmul` in their own backward functions.
    """
    torch.matmul = through_fp32(torch.matmul)
    torch.Tensor.matmul = through_fp32(torch.Tensor.matmul)
    torch.Tensor.__matmul__ = through_fp32(torch.Tensor.__matmul__)
    F.linear = through_fp32(F.linear)
    F.scaled_dot_product_attention = through_fp32(F.scaled_dot_product_attention)
