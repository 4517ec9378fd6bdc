"""Bytes that the forward pass of one micro-batch keeps for its backward pass, term by term.

The terms are the tensors that autograd saves, without the weights. For the layers of this repository
(`model/layer_specs.py`, `local`) they are counted from the modules' own code and tested to the byte against
`torch.autograd.graph.saved_tensors_hooks`. For Transformer Engine's layers they follow what its modules save, which is
the accounting of Korthikanti et al. (arXiv:2205.05198, section 4) with grouped queries and SwiGLU.

Symbols: t tokens of a micro-batch (rows x seq_length / context parallelism), n tokens / tensor parallelism under
sequence parallelism and t without, h hidden, f intermediate, a heads, g key/value heads, d head size, V padded
vocabulary; a, g, f and V are divided by the tensor parallelism T. c is bytes of an activation: 2 in bf16, 4 in fp32.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, fields

from megatron_agent.model.config import LlamaConfig, padded_vocab_size
from megatron_agent.model.kernels import Switches
from megatron_agent.model.layout import ParallelConfig
from megatron_agent.model.lora_config import LoraConfig

FP32 = 4
INT64 = 8
BOOL = 1


@dataclass(frozen=True)
class Backend:
    """What computes, as far as memory depends on it; the fusions are those of `KernelConfig`."""

    cuda: bool
    transformer_engine: bool
    bias_activation_fusion: bool
    apply_rope_fusion: bool
    gradient_accumulation_fusion: bool
    fused_optimizer: bool
    fp8: bool

    @staticmethod
    def from_switches(switches: Switches, *, cuda: bool) -> "Backend":
        """Take the decisions of `resolve_kernels`."""
        values = {field.name: switches[field.name].on for field in fields(Backend) if field.name != "cuda"}
        # The CPU runtime puts a SwiGLU of our own that keeps its input only into the slot of the fused one.
        return Backend(cuda=cuda, **{**values, "bias_activation_fusion": values["bias_activation_fusion"] or not cuda})


@dataclass(frozen=True)
class Workload:
    """Everything the activations of one rank depend on."""

    llama: LlamaConfig
    parallel: ParallelConfig
    backend: Backend
    bf16: bool
    micro_batch_size: int
    seq_length: int
    hidden_dropout: float
    recompute_granularity: str | None
    recompute_num_layers: int
    lora: LoraConfig = field(default_factory=LoraConfig)
    trained_share: float = 1.0  # of the positions; only these have logits. A row may be trained as a whole

    @property
    def width(self) -> int:
        """c: bytes of an activation."""
        return 2 if self.bf16 else FP32

    @property
    def tp(self) -> int:
        """T: tensor-parallel ranks."""
        return self.parallel.tensor_model_parallel_size

    @property
    def tokens(self) -> int:
        """t: tokens of a micro-batch on one rank."""
        return self.micro_batch_size * self.seq_length // self.parallel.context_parallel_size

    @property
    def trained_tokens(self) -> int:
        """Positions with a loss."""
        return int(self.tokens * self.trained_share)

    @property
    def norm_tokens(self) -> int:
        """n: tokens that norms and dropouts see on one rank."""
        return self.tokens // self.tp if self.parallel.sequence_parallel else self.tokens

    @property
    def hidden_bytes(self) -> int:
        """c n h: one hidden state."""
        return self.width * self.norm_tokens * self.llama.hidden_size

    @property
    def mlp_bytes(self) -> int:
        """c t f / T: one intermediate state."""
        return self.width * self.tokens * self.llama.intermediate_size // self.tp

    @property
    def logits_elements(self) -> int:
        """t V / T, of trained positions."""
        return self.trained_tokens * padded_vocab_size(self.llama.vocab_size) // self.tp

    @property
    def dropout_bytes(self) -> int:
        """One dropout: a byte a value on CUDA; the scaled mask in the activation's type on the CPU; 0 without."""
        if not self.hidden_dropout:
            return 0
        return self.norm_tokens * self.llama.hidden_size * BOOL if self.backend.cuda else self.hidden_bytes


Terms = dict[str, int]
"""Bytes by what they are."""


def total(terms: Terms) -> int:
    """Sum of the terms in bytes."""
    return sum(terms.values())


def add_terms(parts: Iterable[Terms]) -> Terms:
    """Add terms of the same name."""
    result: Terms = {}
    for part in parts:
        for name, size in part.items():
            result[name] = result.get(name, 0) + size
    return result


def keeps_input(work: Workload, projection: str) -> bool:
    """True where a projection saves its input: with LoRA only for an adapter, a frozen weight needs no gradient."""
    return not work.lora.r or projection in work.lora.target_modules


def norm_terms(work: Workload, projection: str) -> Terms:
    """RMSNorm followed by `projection`: Transformer Engine's input (local: the normalised value), 1/rms, the output."""
    output = work.hidden_bytes if keeps_input(work, projection) else 0
    return {"norms": work.norm_tokens * FP32 + work.hidden_bytes + output}


def attention_terms(work: Workload) -> Terms:
    """Query, key, value, attention, output projection and its dropout.

    Saved: rotated query and key; the output, which is the projection's input; log-sum-exp; and the value. This is a
    view of the whole qkv projection and holds all of it, unless it is copied (Transformer Engine makes strides equal,
    the CPU in bf16 computes on copies in fp32; but a recomputed attention keeps its inputs as they came). The local
    attention also keeps the output of each conversation before they are joined.
    """
    llama, tp, backend = work.llama, work.tp, work.backend
    heads, groups = llama.num_attention_heads // tp, llama.num_key_value_heads // tp
    head = work.width * work.tokens * llama.head_dim
    recomputed = work.recompute_granularity == "selective"
    through_fp32 = work.bf16 and not backend.cuda and not recomputed
    value_is_copied = through_fp32 or (backend.transformer_engine and not recomputed)
    inside = (FP32 if through_fp32 else work.width) * work.tokens * llama.head_dim
    size = inside * (heads + groups + (groups if value_is_copied else heads + 2 * groups))
    if not recomputed:
        size += inside * heads + work.tokens * heads * FP32
    joined = not backend.transformer_engine or recomputed  # else the attention's output is the projection's input
    if joined and keeps_input(work, "linear_proj"):
        size += head * heads
    # Without the fused kernel, cosine and sine of query and key; on the CPU once for all layers (`layers_terms`).
    angles = 4 * head if backend.cuda and not backend.apply_rope_fusion else 0
    return {"attention": size, "rotary cosine and sine": angles, "dropout": work.dropout_bytes}


def mlp_terms(work: Workload) -> Terms:
    """Gate and up projection, SwiGLU, down projection and its dropout.

    Fused SwiGLU saves its input 2f; the down projection its input f. Unfused (megatron-core's `MLP.glu`), silu(gate)
    and a copy of `up` (it adds `glu_linear_offset`) are saved too.
    """
    states = (2 if work.backend.bias_activation_fusion else 4) + keeps_input(work, "linear_fc2")
    return {"MLP": states * work.mlp_bytes, "dropout": work.dropout_bytes}


def layer_terms(work: Workload) -> Terms:
    """One layer whose forward pass keeps everything its backward pass needs."""
    norms = norm_terms(work, "linear_qkv"), norm_terms(work, "linear_fc1")
    return add_terms([*norms, attention_terms(work), mlp_terms(work), lora_terms(work)])


def lora_terms(work: Workload) -> Terms:
    """Adapters of one layer: the r-wide product, plain and scaled, and the mask of its input's dropout.

    The input, dropped out or not, is counted where a projection without LoRA would save it.
    """
    lora = work.lora
    if not lora.r:
        return {}
    size = len(lora.target_modules) * 2 * work.width * work.tokens * lora.r
    if lora.lora_dropout:
        mask = BOOL if work.backend.cuda else work.width
        size += work.tokens * mask * sum(adapter_inputs(work.llama, target, work.tp) for target in lora.target_modules)
    return {"LoRA": size}


def adapter_inputs(llama: LlamaConfig, target: str, tp: int) -> int:
    """Input features of a projection on one tensor-parallel rank."""
    row_parallel = {"linear_proj": llama.num_attention_heads * llama.head_dim, "linear_fc2": llama.intermediate_size}
    return row_parallel[target] // tp if target in row_parallel else llama.hidden_size


def adapter_outputs(llama: LlamaConfig, target: str, tp: int) -> int:
    """Output features of a projection on one tensor-parallel rank."""
    qkv = (llama.num_attention_heads + 2 * llama.num_key_value_heads) * llama.head_dim
    column_parallel = {"linear_qkv": qkv, "linear_fc1": 2 * llama.intermediate_size}
    return column_parallel[target] // tp if target in column_parallel else llama.hidden_size


def adapter_weights(llama: LlamaConfig, lora: LoraConfig, tp: int) -> int:
    """Weights of one layer's adapters on one tensor-parallel rank: A [r, inputs] and B [outputs, r]."""
    return sum(
        lora.r * (adapter_inputs(llama, target, tp) + adapter_outputs(llama, target, tp))
        for target in lora.target_modules
    )


def layers_terms(work: Workload, layers: int) -> Terms:
    """`layers` layers of one model chunk. Full recompute keeps one input for each `recompute_num_layers` of them."""
    if work.recompute_granularity == "full":
        return {"layer inputs": -(-layers // work.recompute_num_layers) * work.hidden_bytes} if layers else {}
    terms = {name: layers * size for name, size in layer_terms(work).items()}
    if layers and not work.backend.cuda:  # `model/rotary.py`: cosine of d and sine of d / 2 angles
        terms["rotary cosine and sine"] = 3 * work.width * work.tokens * work.llama.head_dim // 2
    return terms


def recomputed_terms(work: Workload, layers: int) -> Terms:
    """What full recompute brings back for one group of layers during its backward pass, beside the group's input."""
    if work.recompute_granularity != "full" or not layers:
        return {}
    alive = min(layers, work.recompute_num_layers) * total(layer_terms(work))
    return {"recomputed layers": alive - (work.hidden_bytes if saves_layer_input(work) else 0)}


def saves_layer_input(work: Workload) -> bool:
    """True where a layer's first norm saves its input, not the normalised value."""
    return work.backend.transformer_engine


def embedding_terms(work: Workload) -> Terms:
    """Token ids and the dropout after the embedding; under tensor parallelism also which ids are on other ranks."""
    mask = work.tokens * BOOL if work.tp > 1 else 0
    return {"embedding": work.tokens * INT64 + mask + work.dropout_bytes}


def head_terms(work: Workload) -> Terms:
    """Final norm, output layer and loss of the trained positions; their probabilities are kept in fp32.

    The output layer saves the trained positions' hidden states, gathered under sequence parallelism, and their numbers
    are kept for the way back.
    """
    selected = work.width * work.trained_tokens * work.llama.hidden_size if not work.lora.r else 0
    loss = FP32 * work.logits_elements + work.trained_tokens * (BOOL + 3 * INT64)
    norm = {"norms": work.norm_tokens * FP32 + work.hidden_bytes}
    return {**norm, "logits": loss + selected}


def stage_boundary_terms(work: Workload, *, first: bool, last: bool) -> Terms:
    """What the pipeline schedule keeps of a micro-batch: the received input, and in places the output it sent on.

    The input is among the saved tensors already where the first norm or a recomputed layer saves it in its own type.
    The output is freed once sent (`deallocate_pipeline_outputs`), but for gloo's interleaved pipelines.
    """
    saved = saves_layer_input(work) or work.recompute_granularity == "full"
    frees_output = work.backend.cuda or work.parallel.virtual_pipeline_model_parallel_size is None
    count = (0 if first or saved else 1) + (0 if last or frees_output else 1)
    return {"stage boundaries": count * work.hidden_bytes} if count else {}


def chunk_terms(work: Workload, layers: int, *, first: bool, last: bool) -> Terms:
    """One model chunk with `layers` layers and one micro-batch; `first` has the embedding, `last` the output layer."""
    parts = [layers_terms(work, layers), stage_boundary_terms(work, first=first, last=last)]
    if first:
        parts.append(embedding_terms(work))
    if last:
        parts.append(head_terms(work))
    return add_terms(parts)
