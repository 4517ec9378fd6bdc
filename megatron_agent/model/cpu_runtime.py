"""Megatron-core on machines without CUDA: redirect its hard-coded `cuda` devices to the CPU (gloo backend).

megatron-core 0.16.1 writes `device="cuda"` and calls `torch.cuda.*` in its schedules, optimizers, random
state tracker and checkpoints. `install()` replaces just those entry points by their CPU meaning, so that the same
training code runs tensor, pipeline and data parallelism on any machine. It refuses to act where CUDA is present.
It also puts CPU forms of SwiGLU, rotary positions and bf16 products where the GPU has fused kernels.
"""

import contextlib
import logging
from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_CPU = torch.device("cpu")
_TENSOR_TYPE = torch.Tensor.type
_installed: list[TorchFunctionMode] = []  # the active mode, kept alive for the life of the process


class _CudaToCpu(TorchFunctionMode):
    """Rewrite the `device=` argument of every torch function from a CUDA device to the CPU."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if kwargs and "device" in kwargs and _is_cuda(kwargs["device"]):
            kwargs = {**kwargs, "device": _CPU}
        return func(*args, **(kwargs or {}))


def _is_cuda(device: object) -> bool:
    if isinstance(device, str):
        return device.startswith("cuda")
    if isinstance(device, torch.device):
        return device.type == "cuda"
    return isinstance(device, int) and not isinstance(device, bool)  # an ordinal means a CUDA device


class _Stream:
    """A stream on which everything has already happened."""

    cuda_stream = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def wait_stream(self, stream: object) -> None: ...

    def wait_event(self, event: object) -> None: ...

    def synchronize(self) -> None: ...

    def record_event(self, event: object = None) -> "_Stream":
        return self

    def wait(self, stream: object = None) -> None: ...


def _tensor_type(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    """`Tensor.type()` under the CUDA name, which gradient clipping and the optimizers compare against."""
    result = _TENSOR_TYPE(self, *args, **kwargs)
    if isinstance(result, str) and not result.startswith("torch.cuda."):
        return result.replace("torch.", "torch.cuda.", 1)
    return result


def _set_rng_state(new_state: torch.Tensor, device: object = -1, graph_safe: bool = False) -> None:
    torch.set_rng_state(new_state)


def _manual_seed(seed: int) -> None:
    torch.manual_seed(seed)


def install() -> None:
    """Make megatron-core run on the CPU in this process; a second call does nothing.

    Raises RuntimeError where CUDA is available: there the real devices must be used.
    """
    if _installed:
        return
    if torch.cuda.is_available():
        raise RuntimeError("the CPU runtime must not be installed where CUDA is available")

    stream = _Stream()
    replacements: dict[str, Any] = {
        "current_device": lambda: _CPU,
        "synchronize": lambda device=None: None,
        "empty_cache": lambda: None,
        "current_stream": lambda device=None: stream,
        "default_stream": lambda device=None: stream,
        "Stream": _Stream,  # a class: other libraries write it in annotations
        "stream": lambda stream: contextlib.nullcontext(),
        "manual_seed": _manual_seed,
        "get_rng_state": lambda device="cuda": torch.get_rng_state(),
        "set_rng_state": _set_rng_state,
    }
    for name, replacement in replacements.items():
        setattr(torch.cuda, name, replacement)
    torch.cuda.random.get_rng_state = replacements["get_rng_state"]
    torch.cuda.random.set_rng_state = _set_rng_state
    torch.Tensor.cuda = lambda self, *args, **kwargs: self
    torch.Tensor.type = _tensor_type

    from megatron.core.tensor_parallel import random as tensor_parallel_random

    tensor_parallel_random._set_cuda_rng_state = _set_rng_state
    # One generator plays both roles here, so this warning would come with every dropout.
    logging.getLogger(tensor_parallel_random.__name__).addFilter(
        lambda record: "CPU RNG state changed" not in record.getMessage()
    )
    _install_kernels()
    mode = _CudaToCpu()
    mode.__enter__()
    _installed.append(mode)


def _install_kernels() -> None:
    from megatron.core.models.common.embeddings import rope_utils
    from megatron.core.transformer import mlp

    from megatron_agent.model import cpu_products
    from megatron_agent.model.rotary import apply_rotary_thd
    from megatron_agent.model.swiglu import swiglu

    mlp.bias_swiglu_impl = swiglu
    rope_utils._apply_rotary_pos_emb_thd = apply_rotary_thd
    if cpu_products.lacks_bf16_units():
        cpu_products.install()
