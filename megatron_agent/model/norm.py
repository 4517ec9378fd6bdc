"""RMSNorm that needs no Transformer Engine and allows sequence parallelism."""

from typing import Any

import torch
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor


class RMSNorm(torch.nn.Module):
    """`weight * x / rms(x)` with the arithmetic of Hugging Face's `LlamaRMSNorm` (fp32 inside).

    Takes and returns `[s, b, h]`. Megatron-core's own TE-free norm refuses sequence parallelism; this one marks its
    weight with `sequence_parallel`, so that `finalize_model_grads` sums its gradient over the tensor-parallel group.
    """

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        device = "cpu" if config.use_cpu_initialization else torch.cuda.current_device()
        self.weight = torch.nn.Parameter(torch.ones(hidden_size, dtype=config.params_dtype, device=device))
        self.weight.sequence_parallel = config.sequence_parallel

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Normalise the last dimension of `hidden_states`."""
        return _RMSNorm.apply(hidden_states, self.weight, self.eps)


class _RMSNorm(torch.autograd.Function):
    """The backward pass in closed form: half the passes over memory that autograd makes of the forward's steps.

    With `n = x / rms` and `g` the gradient of `weight * n`: `dx = (g weight - n mean(g weight n)) / rms`.
    """

    @staticmethod
    def forward(ctx: Any, hidden_states: Tensor, weight: Tensor, eps: float) -> Tensor:
        x = hidden_states.float()
        inverse_rms = torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
        normalised = (x * inverse_rms).to(hidden_states.dtype)
        ctx.save_for_backward(normalised, inverse_rms, weight)
        return weight * normalised

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        normalised, inverse_rms, weight = ctx.saved_tensors
        n, g, w = normalised.float(), gradient.float(), weight.float()
        product = g * n
        weight_gradient = product.flatten(0, -2).sum(0)
        mean = (product @ w).unsqueeze(-1) / w.numel()
        x_gradient = torch.addcmul(g * w, n, mean, value=-1).mul_(inverse_rms)
        return x_gradient.to(gradient.dtype), weight_gradient.to(weight.dtype), None
