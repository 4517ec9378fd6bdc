"""From a Llama configuration to megatron-core: transformer configuration and this rank's model."""

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel
from megatron.core.tensor_parallel import gather_from_sequence_parallel_region
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor

from megatron_agent.model.config import LlamaConfig, padded_vocab_size
from megatron_agent.model.kernels import KernelConfig, Switches, local_switches
from megatron_agent.model.layer_specs import block_spec
from megatron_agent.model.layout import ParallelConfig


def transformer_config(
    llama: LlamaConfig,
    parallel: ParallelConfig,
    *,
    params_dtype: torch.dtype,
    switches: Switches | None = None,
    kernels: KernelConfig | None = None,
    hidden_dropout: float = 0.0,
    attention_dropout: float = 0.0,
    recompute_granularity: str | None = None,
    recompute_num_layers: int = 1,
    calculate_per_token_loss: bool = True,
    **overrides: Any,
) -> TransformerConfig:
    """Return the megatron-core configuration of `llama` laid out as `parallel`.

    `switches` are the decisions of `resolve_kernels` on `kernels`; without them nothing is fused or overlapped and the
    layers are megatron-core's own. `recompute_granularity` is None, "selective" (attention is recomputed in the
    backward pass) or "full" (whole layers, `recompute_num_layers` at a time). `overrides` are further
    TransformerConfig fields and win over everything chosen here.
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
        "params_dtype": params_dtype,
        "bf16": params_dtype == torch.bfloat16,
        "fp16": params_dtype == torch.float16,
        "calculate_per_token_loss": calculate_per_token_loss,
        "use_cpu_initialization": not torch.cuda.is_available(),
        **_parallel_settings(parallel, params_dtype),
        **_recompute_settings(recompute_granularity, recompute_num_layers),
        **_kernel_settings(switches or local_switches(), kernels or KernelConfig()),
        **overrides,
    }
    return TransformerConfig(**values)


def _parallel_settings(parallel: ParallelConfig, params_dtype: torch.dtype) -> dict[str, Any]:
    return {
        "tensor_model_parallel_size": parallel.tensor_model_parallel_size,
        "pipeline_model_parallel_size": parallel.pipeline_model_parallel_size,
        "virtual_pipeline_model_parallel_size": parallel.virtual_pipeline_model_parallel_size,
        "num_layers_in_first_pipeline_stage": parallel.num_layers_in_first_pipeline_stage,
        "num_layers_in_last_pipeline_stage": parallel.num_layers_in_last_pipeline_stage,
        "context_parallel_size": parallel.context_parallel_size,
        "sequence_parallel": parallel.sequence_parallel,
        "pipeline_dtype": params_dtype,
        "variable_seq_lengths": False,
        # What a stage has sent on is not needed for its own backward pass. Gloo's overlapped sends (of interleaved
        # pipelines) still read it when megatron-core frees it; NCCL's are ordered by their stream.
        "deallocate_pipeline_outputs": parallel.pipeline_model_parallel_size > 1
        and (torch.cuda.is_available() or parallel.virtual_pipeline_model_parallel_size is None),
    }


def _recompute_settings(granularity: str | None, num_layers: int) -> dict[str, Any]:
    if granularity == "full":
        return {"recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": num_layers}
    return {"recompute_granularity": granularity}


def _kernel_settings(switches: Switches, kernels: KernelConfig) -> dict[str, Any]:
    on = {name: switch.on for name, switch in switches.items()}
    return {
        "transformer_impl": "transformer_engine" if on["transformer_engine"] else "local",
        "masked_softmax_fusion": False,  # belongs to megatron-core's unfused attention, which is never used here
        "persist_layer_norm": False,  # apex's LayerNorm; Llama has RMSNorm
        "gradient_accumulation_fusion": on["gradient_accumulation_fusion"],
        # On the CPU the slot of the fused kernel holds our SwiGLU (cpu_runtime.py).
        "bias_activation_fusion": on["bias_activation_fusion"] or not torch.cuda.is_available(),
        "bias_dropout_fusion": on["bias_dropout_fusion"],
        "apply_rope_fusion": on["apply_rope_fusion"],
        "cross_entropy_loss_fusion": on["cross_entropy_loss_fusion"],
        "cross_entropy_fusion_impl": "native",
        "overlap_p2p_comm": on["overlap_p2p_comm"],
        "batch_p2p_comm": not on["overlap_p2p_comm"],
        "tp_comm_overlap": on["tp_comm_overlap"],
        "tp_comm_bootstrap_backend": "nccl",
        **({"fp8": kernels.fp8, "fp8_recipe": kernels.fp8_recipe} if on["fp8"] else {}),
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


@contextmanager
def _replicated_input(output_layer: Any) -> Iterator[None]:
    """Let a sequence-parallel output layer take input that was gathered already, and leave its gradient unreduced."""
    kept = output_layer.sequence_parallel, output_layer.disable_grad_reduce
    output_layer.sequence_parallel, output_layer.disable_grad_reduce = False, True
    try:
        yield
    finally:
        output_layer.sequence_parallel, output_layer.disable_grad_reduce = kept


class LlamaModel(GPTModel):
    """GPTModel whose loss gives the rows that pad the vocabulary no probability.

    megatron-core counts padding rows as words; masked, the loss equals the unpadded model's and they get no gradient.
    """

    real_vocab_size: int
    trained_positions: Tensor | None = None

    def forward(self, *inputs: Any, trained_positions: Tensor | None = None, **keywords: Any) -> Tensor:
        """As GPTModel. `trained_positions` `[n]` of `[s * b]`, with labels: all other positions have loss 0 and are
        left out of the output layer, whose logits are the largest activation and a fifth of a small model's work."""
        self.trained_positions = trained_positions
        return super().forward(*inputs, **keywords)

    def _postprocess(self, *, hidden_states: Tensor, labels: Tensor | None, **inputs: Any) -> Tensor:
        trained, self.trained_positions = self.trained_positions, None
        if not self.post_process or labels is None or trained is None:
            return super()._postprocess(hidden_states=hidden_states, labels=labels, **inputs)
        scattered = self.output_layer.sequence_parallel
        if scattered:  # backward, the gradients of the ranks' columns are summed and scattered again
            hidden_states = gather_from_sequence_parallel_region(hidden_states, group=self.pg_collection.tp)
        with _replicated_input(self.output_layer) if scattered else nullcontext():
            losses = super()._postprocess(
                hidden_states=hidden_states.flatten(0, 1).index_select(0, trained).unsqueeze(1),
                labels=labels.t().flatten().index_select(0, trained).unsqueeze(0),
                **inputs,
            )
        by_position = losses.new_zeros(labels.numel()).index_copy(0, trained, losses[0])
        return by_position.view(labels.shape[1], labels.shape[0]).t()

    def compute_language_model_loss(self, labels: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Cross entropy per token `[b, s]` from labels `[b, s]` and logits `[s, b, padded vocabulary / tp]`."""
        columns = logits.shape[-1]
        first = columns * parallel_state.get_tensor_model_parallel_rank()
        real = max(0, min(columns, self.real_vocab_size - first))
        if real < columns:
            is_padding = torch.arange(columns, device=logits.device) >= real
            logits = logits.masked_fill(is_padding, torch.finfo(logits.dtype).min)
        return super().compute_language_model_loss(labels, logits)


def build_gpt_model(llama: LlamaConfig, config: TransformerConfig, vp_stage: int | None = None) -> LlamaModel:
    """Build this rank's pipeline stage of the model, with weights drawn at random.

    Needs `initialize_model_parallel` before. Logits have `padded_vocab_size(llama.vocab_size)` columns, divided over
    the tensor-parallel ranks; call the model with `runtime_gather_output=True` to see them whole. `vp_stage` is the
    number of the virtual stage, where the pipeline has any.
    """
    model = LlamaModel(
        config=config,
        transformer_layer_spec=block_spec(config, vp_stage),
        vocab_size=padded_vocab_size(llama.vocab_size),
        max_sequence_length=llama.max_position_embeddings,
        pre_process=parallel_state.is_pipeline_first_stage(ignore_virtual=False, vp_stage=vp_stage),
        post_process=parallel_state.is_pipeline_last_stage(ignore_virtual=False, vp_stage=vp_stage),
        share_embeddings_and_output_weights=llama.tie_word_embeddings,
        position_embedding_type="rope",
        rotary_base=llama.rope_theta,
        vp_stage=vp_stage,
    )
    model.real_vocab_size = llama.vocab_size
    model.rotary_pos_emb.inv_freq = inverse_frequencies(llama).to(model.rotary_pos_emb.inv_freq.device)
    return model


def build_model_chunks(llama: LlamaConfig, config: TransformerConfig) -> list[LlamaModel]:
    """Build what this rank holds: one model, or one for each of its virtual pipeline stages, in their order."""
    virtual_stages = config.virtual_pipeline_model_parallel_size
    if virtual_stages is None:
        return [build_gpt_model(llama, config)]
    return [build_gpt_model(llama, config, vp_stage) for vp_stage in range(virtual_stages)]
