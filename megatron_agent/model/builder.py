"""From a Llama configuration to megatron-core: transformer configuration and this rank's model."""

import importlib.util
import math
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel
from megatron.core.transformer.transformer_config import TransformerConfig

from megatron_agent.model.config import LlamaConfig, ParallelConfig, padded_vocab_size
from megatron_agent.model.layer_specs import block_spec, layer_spec_name


def transformer_config(
    llama: LlamaConfig,
    parallel: ParallelConfig,
    *,
    params_dtype: torch.dtype,
    hidden_dropout: float = 0.0,
    attention_dropout: float = 0.0,
    recompute_granularity: str | None = None,
    calculate_per_token_loss: bool = True,
    **overrides: Any,
) -> TransformerConfig:
    """Return the megatron-core configuration of `llama` laid out as `parallel`.

    `recompute_granularity` is None, "selective" (attention is recomputed in the backward pass) or "full" (whole
    layers). `overrides` are further TransformerConfig fields and win over everything chosen here. Fused kernels are
    switched on only with CUDA; on the CPU they do not exist.
    """
    values: dict[str, Any] = {
        "num_layers": llama.num_hidden_layers,
        "hidden_size": llama.hidden_size,
        "ffn_hidden_size": llama.intermediate_size,
        "num_attention_heads": llama.num_attention_heads,
        "num_query_groups": llama.num_key_value_heads,
        "kv_channels": llama.head_dim,
        "normalization": "RMSNorm",
        "layernorm_epsilon": llama.rms_norm_eps,
        "activation_func": F.silu,
        "gated_linear_unit": True,
        "add_bias_linear": False,
        "hidden_dropout": hidden_dropout,
        "attention_dropout": attention_dropout,
        "init_method_std": 0.02,  # transformers' initializer_range for Llama
        "tensor_model_parallel_size": parallel.tensor_model_parallel_size,
        "pipeline_model_parallel_size": parallel.pipeline_model_parallel_size,
        "sequence_parallel": parallel.sequence_parallel,
        "params_dtype": params_dtype,
        "pipeline_dtype": params_dtype,
        "bf16": params_dtype == torch.bfloat16,
        "fp16": params_dtype == torch.float16,
        "calculate_per_token_loss": calculate_per_token_loss,
        "variable_seq_lengths": False,
        **_recompute_settings(recompute_granularity),
        **(_cuda_settings(layer_spec_name(params_dtype)) if torch.cuda.is_available() else _cpu_settings()),
        **overrides,
    }
    return TransformerConfig(**values)


def _recompute_settings(granularity: str | None) -> dict[str, Any]:
    if granularity == "full":
        return {"recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": 1}
    return {"recompute_granularity": granularity}


def _cpu_settings() -> dict[str, Any]:
    return {
        "use_cpu_initialization": True,
        "masked_softmax_fusion": False,
        "bias_activation_fusion": False,
        "bias_dropout_fusion": False,
        "gradient_accumulation_fusion": False,
        "apply_rope_fusion": False,
        "persist_layer_norm": False,
    }


def _cuda_settings(spec_name: str) -> dict[str, Any]:
    return {
        "masked_softmax_fusion": False,  # belongs to megatron-core's unfused attention, which is never used here
        "bias_activation_fusion": True,
        "bias_dropout_fusion": True,
        "cross_entropy_loss_fusion": True,
        "cross_entropy_fusion_impl": "native",
        "apply_rope_fusion": spec_name == "transformer_engine",
        # Apex's kernel: the output layer is megatron-core's own linear under either spec and needs it.
        "gradient_accumulation_fusion": importlib.util.find_spec("fused_weight_gradient_mlp_cuda") is not None,
    }


def inverse_frequencies(llama: LlamaConfig) -> torch.Tensor:
    """Rotary inverse frequencies, fp32 `[head_dim / 2]`.

    Plain: `theta^(-2i/d)` (RoPE, arXiv:2104.09864). "linear" divides them by the factor. "llama3" divides long
    wavelengths by the factor, keeps short ones and blends between (transformers
    `modeling_rope_utils._compute_llama3_parameters`). Computed here because megatron-core fixes all but the factor of
    the Llama-3 rule.
    """
    exponents = torch.arange(0, llama.head_dim, 2, dtype=torch.int64).float() / llama.head_dim
    frequencies = 1.0 / (llama.rope_theta**exponents)
    scaling = llama.rope_scaling
    if scaling is None:
        return frequencies
    factor = scaling["factor"]
    if scaling["rope_type"] == "linear":
        return frequencies / factor
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    original_length = scaling["original_max_position_embeddings"]
    wavelengths = 2 * math.pi / frequencies
    smooth = (original_length / wavelengths - low) / (high - low)
    blended = (1 - smooth) * frequencies / factor + smooth * frequencies
    scaled = torch.where(wavelengths > original_length / low, frequencies / factor, blended)
    return torch.where(wavelengths < original_length / high, frequencies, scaled)


class LlamaModel(GPTModel):
    """GPTModel whose loss gives the rows that pad the vocabulary no probability.

    megatron-core counts padding rows as words; masked, the loss equals the unpadded model's and they get no gradient.
    """

    real_vocab_size: int

    def compute_language_model_loss(self, labels: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Cross entropy per token `[b, s]` from labels `[b, s]` and logits `[s, b, padded vocabulary / tp]`."""
        columns = logits.shape[-1]
        first = columns * parallel_state.get_tensor_model_parallel_rank()
        real = max(0, min(columns, self.real_vocab_size - first))
        if real < columns:
            is_padding = torch.arange(columns, device=logits.device) >= real
            logits = logits.masked_fill(is_padding, torch.finfo(logits.dtype).min)
        return super().compute_language_model_loss(labels, logits)


def build_gpt_model(llama: LlamaConfig, config: TransformerConfig, *, spec_name: str | None = None) -> LlamaModel:
    """Build this rank's pipeline stage of the model, with weights drawn at random.

    Needs `initialize_model_parallel` before. Logits have `padded_vocab_size(llama.vocab_size)` columns, divided over
    the tensor-parallel ranks; call the model with `runtime_gather_output=True` to see them whole. `spec_name` is
    "local" or "transformer_engine"; by default what `layer_spec_name` says.
    """
    model = LlamaModel(
        config=config,
        transformer_layer_spec=block_spec(config, spec_name or layer_spec_name(config.params_dtype)),
        vocab_size=padded_vocab_size(llama.vocab_size),
        max_sequence_length=llama.max_position_embeddings,
        pre_process=parallel_state.is_pipeline_first_stage(),
        post_process=parallel_state.is_pipeline_last_stage(),
        share_embeddings_and_output_weights=llama.tie_word_embeddings,
        position_embedding_type="rope",
        rotary_base=llama.rope_theta,
    )
    model.real_vocab_size = llama.vocab_size
    model.rotary_pos_emb.inv_freq = inverse_frequencies(llama).to(model.rotary_pos_emb.inv_freq.device)
    return model
