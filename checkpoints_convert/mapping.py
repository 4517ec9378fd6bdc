"""Llama weights in Hugging Face's and in megatron-core's names, as data used by both directions.

Hugging Face stores one tensor per layer and projection; megatron-core's checkpoint stacks the layers along a first axis
and fuses projections. A rule says which tensors meet in one key and how.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from megatron_agent.model.config import LlamaConfig, padded_vocab_size

if TYPE_CHECKING:
    import torch

Kind = Literal["copy", "qkv", "gate_up", "vocabulary"]


@dataclass(frozen=True)
class Rule:
    """`megatron` key <- `hf` tensors, joined as `kind` says; `{layer}` in the names marks a stacked key."""

    megatron: str
    hf: tuple[str, ...]
    kind: Kind

    @property
    def per_layer(self) -> bool:
        """Whether the key stacks all layers."""
        return "{layer}" in self.hf[0]


_LAYER = "model.layers.{layer}."
RULES: tuple[Rule, ...] = (
    Rule("embedding.word_embeddings.weight", ("model.embed_tokens.weight",), "vocabulary"),
    Rule("decoder.layers.self_attention.linear_qkv.layer_norm_weight", (_LAYER + "input_layernorm.weight",), "copy"),
    Rule(
        "decoder.layers.self_attention.linear_qkv.weight",
        (
            _LAYER + "self_attn.q_proj.weight",
            _LAYER + "self_attn.k_proj.weight",
            _LAYER + "self_attn.v_proj.weight",
        ),
        "qkv",
    ),
    Rule("decoder.layers.self_attention.linear_proj.weight", (_LAYER + "self_attn.o_proj.weight",), "copy"),
    Rule("decoder.layers.mlp.linear_fc1.layer_norm_weight", (_LAYER + "post_attention_layernorm.weight",), "copy"),
    Rule(
        "decoder.layers.mlp.linear_fc1.weight",
        (_LAYER + "mlp.gate_proj.weight", _LAYER + "mlp.up_proj.weight"),
        "gate_up",
    ),
    Rule("decoder.layers.mlp.linear_fc2.weight", (_LAYER + "mlp.down_proj.weight",), "copy"),
    Rule("decoder.final_layernorm.weight", ("model.norm.weight",), "copy"),
    Rule("output_layer.weight", ("lm_head.weight",), "vocabulary"),
)
OUTPUT_LAYER = "lm_head.weight"
DERIVED_SUFFIX = "rotary_emb.inv_freq"  # old Llama files hold it; it follows from the configuration


def rules_for(config: LlamaConfig) -> tuple[Rule, ...]:
    """Rules that hold for this model: a tied output layer is not stored."""
    return tuple(rule for rule in RULES if not (config.tie_word_embeddings and OUTPUT_LAYER in rule.hf))


def hf_shapes(config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor of the Hugging Face checkpoint with its shape, in the order `save_pretrained` gives them."""
    h, d = config.hidden_size, config.head_dim
    by_suffix: dict[str, tuple[int, ...]] = {
        "embed_tokens.weight": (config.vocab_size, h),
        "lm_head.weight": (config.vocab_size, h),
        "q_proj.weight": (config.num_attention_heads * d, h),
        "k_proj.weight": (config.num_key_value_heads * d, h),
        "v_proj.weight": (config.num_key_value_heads * d, h),
        "o_proj.weight": (h, config.num_attention_heads * d),
        "gate_proj.weight": (config.intermediate_size, h),
        "up_proj.weight": (config.intermediate_size, h),
        "down_proj.weight": (h, config.intermediate_size),
    }
    names = [
        name.format(layer=layer)
        for rule in rules_for(config)
        for layer in (range(config.num_hidden_layers) if rule.per_layer else (0,))
        for name in rule.hf
    ]
    return {name: by_suffix.get(".".join(name.split(".")[-2:]), (h,)) for name in sorted(names)}


def megatron_shape(rule: Rule, config: LlamaConfig) -> tuple[int, ...]:
    """Global shape of a rule's key in the checkpoint: fused, padded, and stacked over the layers."""
    shapes = hf_shapes(config)
    parts = [shapes[name.format(layer=0)] for name in rule.hf]
    rows = sum(part[0] for part in parts)
    if rule.kind == "vocabulary":
        rows = padded_vocab_size(rows)
    stacked = (config.num_hidden_layers,) if rule.per_layer else ()
    return (*stacked, rows, *parts[0][1:])


def join_qkv(parts: "list[torch.Tensor]", config: LlamaConfig) -> "torch.Tensor":
    """Interleave query, key and value rows by query group: `[q x (heads / groups), k, v]` for each group.

    No rotary permutation: Hugging Face's rows are already in megatron-core's (not interleaved) order.
    """
    import torch

    groups, d = config.num_key_value_heads, config.head_dim
    query, key, value = (part.view(groups, -1, d, part.shape[-1]) for part in parts)
    return torch.cat([query, key, value], dim=1).reshape(-1, parts[0].shape[-1])


def split_qkv(fused: "torch.Tensor", config: LlamaConfig) -> "list[torch.Tensor]":
    """Undo `join_qkv`."""
    groups, d = config.num_key_value_heads, config.head_dim
    queries = config.num_attention_heads // groups
    by_group = fused.view(groups, queries + 2, d, fused.shape[-1])
    parts = by_group.split([queries, 1, 1], dim=1)
    return [part.reshape(-1, fused.shape[-1]) for part in parts]


def split(rule: Rule, tensor: "torch.Tensor", config: LlamaConfig) -> "list[torch.Tensor]":
    """One layer of a Megatron key (no layer axis) -> the Hugging Face tensors of the rule, contiguous."""
    if rule.kind == "qkv":
        parts = split_qkv(tensor, config)
    elif rule.kind == "gate_up":
        parts = list(tensor.chunk(2))
    elif rule.kind == "vocabulary":
        parts = [tensor[: config.vocab_size]]
    else:
        parts = [tensor]
    return [part.contiguous() for part in parts]


def units(config: LlamaConfig) -> Iterator[tuple[Rule, int | None]]:
    """All (rule, layer) pairs of a model, layer by layer; layer is None for keys that are not stacked."""
    rules = rules_for(config)
    yield from ((rule, None) for rule in rules if not rule.per_layer)
    for layer in range(config.num_hidden_layers):
        yield from ((rule, layer) for rule in rules if rule.per_layer)


def hf_names(rule: Rule, layer: int | None) -> list[str]:
    """Hugging Face names of a (rule, layer) pair."""
    return [name.format(layer=layer) for name in rule.hf]
