"""RMSNorm that needs no Transformer Engine and allows sequence parallelism."""

import torch
from megatron.core.transformer.transformer_config import TransformerConfig


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

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Normalise the last dimension of `hidden_states`."""
        x = hidden_states.float()
        x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * x.to(hidden_states.dtype)
