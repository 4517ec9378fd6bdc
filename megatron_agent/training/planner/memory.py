"""Peak memory of one rank: what is there all the time, activations in flight, and what a phase needs for a moment.

    peak = weights + gradients + optimizer state + max over phases (activations alive + temporaries of the phase)

The symbols are those of `activations.py`; P is the number of parameters the rank holds, D the ranks over which the
distributed optimizer divides its state (data x context parallelism).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from megatron_agent.model.config import LlamaConfig, padded_vocab_size
from megatron_agent.model.layout import ParallelConfig
from megatron_agent.model.lora_config import LoraConfig
from megatron_agent.training.planner.activations import (
    FP32,
    Terms,
    Workload,
    adapter_inputs,
    adapter_outputs,
    adapter_weights,
    add_terms,
    chunk_terms,
    head_terms,
    recomputed_terms,
    total,
)
from megatron_agent.training.planner.schedule import chunk_layers, in_flight


@dataclass(frozen=True)
class RankShape:
    """What the memory of one rank depends on, beside the workload: from the real model (`ranks.py`) or by formula."""

    stage: int
    stages: int
    chunk_layers: tuple[int, ...]
    parameters: int  # held by this rank, padding included
    trainable_parameters: int  # those with gradients: all without LoRA
    largest_parameter: int  # elements of the largest trained tensor

    @property
    def first(self) -> bool:
        """Holds the embedding (in its first chunk)."""
        return self.stage == 0

    @property
    def last(self) -> bool:
        """Holds the output layer (in its last chunk)."""
        return self.stage == self.stages - 1


def layer_weights(llama: LlamaConfig) -> int:
    """Weights of the four projections of a layer, over all tensor-parallel ranks."""
    h, d = llama.hidden_size, llama.head_dim
    heads, groups = llama.num_attention_heads, llama.num_key_value_heads
    return h * (heads + 2 * groups) * d + heads * d * h + 3 * h * llama.intermediate_size


def with_adapters(shape: RankShape, llama: LlamaConfig, lora: LoraConfig, tp: int) -> RankShape:
    """Return the shape with LoRA adapters beside its frozen weights; unchanged when `lora.r` is 0."""
    if not lora.r:
        return shape
    adapters = sum(shape.chunk_layers) * adapter_weights(llama, lora, tp)
    largest = max(
        lora.r * max(adapter_inputs(llama, t, tp), adapter_outputs(llama, t, tp)) for t in lora.target_modules
    )
    return replace(
        shape,
        parameters=shape.parameters + adapters,
        trainable_parameters=adapters,
        largest_parameter=largest,
    )


def rank_shapes(llama: LlamaConfig, parallel: ParallelConfig) -> list[RankShape]:
    """Return the shape of every pipeline stage by formula; `ranks.py` has them from the real model."""
    tp, h = parallel.tensor_model_parallel_size, llama.hidden_size
    per_stage = chunk_layers(llama, parallel)
    embedding = h * padded_vocab_size(llama.vocab_size) // tp
    shapes = []
    for stage, layers in enumerate(per_stage):
        first, last = stage == 0, stage == len(per_stage) - 1
        parameters = sum(layers) * (layer_weights(llama) // tp + 2 * h)
        parameters += embedding if first else 0
        parameters += h if last else 0  # final norm
        parameters += embedding if last and not (first and llama.tie_word_embeddings) else 0
        gate_up = 2 * h * llama.intermediate_size // tp
        largest = max(gate_up if any(layers) else 0, embedding if first or last else 0)
        shapes.append(RankShape(stage, len(per_stage), tuple(layers), parameters, parameters, largest))
    return shapes


@dataclass(frozen=True)
class RankMemory:
    """Bytes of one rank at its peak. `activations` and `temporaries` are those alive in `phase`."""

    weights: int
    gradients: int
    optimizer_state: int
    activations: Terms
    temporaries: Terms
    phase: str
    microbatches_in_flight: tuple[int, ...]  # of each chunk

    @property
    def peak(self) -> int:
        """Sum in bytes."""
        return self.weights + self.gradients + self.optimizer_state + total(self.activations) + total(self.temporaries)

    def terms(self) -> Terms:
        """Every term by name, largest first."""
        static = {"weights": self.weights, "gradients": self.gradients, "optimizer state": self.optimizer_state}
        everything = add_terms([static, self.activations, self.temporaries])
        return dict(sorted(everything.items(), key=lambda item: -item[1]))


def rank_memory(work: Workload, rank: RankShape, num_microbatches: int, optimizer_shards: int) -> RankMemory:
    """Return the peak of `rank`. `num_microbatches` run in one step on this rank; D = `optimizer_shards`.

    Weights: c P, and with FP8 two more bytes for each weight of a projection. Gradients: 4 P, accumulated and reduced
    in fp32. Optimizer state: 8 P / D (two moments) and in bf16 4 P / D (fp32 weights); in fp32 the optimizer works on
    views of the weights (megatron-core's `DistributedOptimizer._build_model_and_main_param_groups`). With LoRA, P of
    gradients and optimizer state counts the adapters only.
    """
    last_chunk = len(rank.chunk_layers) - 1
    chunks = [
        chunk_terms(work, layers, first=rank.first and index == 0, last=rank.last and index == last_chunk)
        for index, layers in enumerate(rank.chunk_layers)
    ]
    alive = in_flight(rank.stages, rank.stage, [total(chunk) for chunk in chunks], num_microbatches)
    activations = _sum_of_chunks(chunks, alive)
    # Backward passes free what they have used: the head's tensors before the layers', all of them before the embedding.
    in_layers = _without(activations, head_terms(work)) if rank.last else activations
    at_embedding = _sum_of_chunks(chunks, [alive[0] - 1, *alive[1:]])
    master_weights = FP32 if work.bf16 else 0
    static = {
        "weights": work.width * rank.parameters + fp8_weight_bytes(work, sum(rank.chunk_layers)),
        "gradients": FP32 * rank.trainable_parameters,
        "optimizer_state": (2 * FP32 + master_weights) * rank.trainable_parameters // optimizer_shards,
    }
    phases: list[tuple[str, Terms, Terms]] = [
        ("backward of a layer", in_layers, layer_backward_terms(work, rank.chunk_layers)),
        ("start", {}, start_terms(work, rank, static["optimizer_state"])),
        ("gradient reduction and weight gathering", {}, collective_terms(work, rank)),
        ("optimizer step", {}, optimizer_step_terms(work, rank, optimizer_shards)),
    ]
    if rank.last:
        phases += [
            ("loss, forward", activations, loss_forward_terms(work)),
            ("output layer, backward", activations, output_layer_backward_terms(work)),
        ]
    if rank.first:
        phases.append(("embedding, backward", at_embedding, embedding_backward_terms(work)))
    phase, kept, temporaries = max(phases, key=lambda item: total(item[1]) + total(item[2]))
    return RankMemory(
        **static, activations=kept, temporaries=temporaries, phase=phase, microbatches_in_flight=tuple(alive)
    )


def fp8_weight_bytes(work: Workload, layers: int) -> int:
    """Transformer Engine keeps each projection's weight and its transpose in FP8 beside the bf16 one."""
    return 2 * layers * layer_weights(work.llama) // work.tp if work.backend.fp8 else 0


def _sum_of_chunks(chunks: Sequence[Terms], counts: Sequence[int]) -> Terms:
    scaled = ({name: count * size for name, size in chunk.items()} for count, chunk in zip(counts, chunks, strict=True))
    return {name: size for name, size in add_terms(scaled).items() if size}


def _without(terms: Terms, used: Terms) -> Terms:
    return {name: rest for name, size in terms.items() if (rest := size - used.get(name, 0))}


def gathered_bytes(work: Workload) -> int:
    """Sequence parallelism gathers the input of a projection into one buffer, c t h, kept for the next."""
    return work.width * work.tokens * work.llama.hidden_size if work.parallel.sequence_parallel else 0


def weight_gradient_bytes(work: Workload, elements: int) -> int:
    """A weight gradient before it is added to the fp32 buffer; none with gradient accumulation fusion."""
    return 0 if work.backend.gradient_accumulation_fusion or work.lora.r else work.width * elements


def layer_backward_terms(work: Workload, chunk_layers: Sequence[int]) -> Terms:
    """Temporaries while the last layer runs backward, when all activations are still there.

    The largest of three moments, with the residual's gradient beside: at the down projection the gradients of its
    output and input and of its weight; at SwiGLU two more intermediate states than it has freed, three on the CPU; at
    the gate and up projection the gradient of their weight, when the MLP's saved tensors are gone but for its gradient.
    """
    llama, mlp = work.llama, work.mlp_bytes
    residual = work.hidden_bytes
    full_hidden = work.width * work.tokens * llama.hidden_size
    down = llama.hidden_size * llama.intermediate_size // work.tp
    saved = 3 if work.backend.bias_activation_fusion else 5
    at_down = full_hidden + mlp + weight_gradient_bytes(work, down)
    at_swiglu = (2 if work.backend.cuda else 3) * mlp
    at_up = full_hidden + (2 - saved) * mlp + weight_gradient_bytes(work, 2 * down)
    moment = residual + max(at_down, at_swiglu, at_up)
    return add_terms(
        [{"layer gradients": moment}, recomputed_terms(work, max(chunk_layers)), _gathered(work)],
    )


def _gathered(work: Workload) -> Terms:
    gathered = gathered_bytes(work)
    return {"gathered sequence": gathered} if gathered else {}


def loss_forward_terms(work: Workload) -> Terms:
    """Beside the saved fp32 probabilities: the logits they came from, and their copy with padding masked.

    Without padding fp32 logits become the probabilities in place.
    """
    logits = work.width * work.logits_elements
    copies = (1 if work.bf16 else 0) + (1 if _vocabulary_is_padded(work) else 0)
    return add_terms([{"logits before the loss": copies * logits}, _gathered(work)])


def output_layer_backward_terms(work: Workload) -> Terms:
    """The gradient of the logits is made in the place of the probabilities; a copy follows in bf16 or to mask padding.

    Then the output layer's weight gradient and the gradient of its input, when only the last copy is left.
    """
    logits = work.width * work.logits_elements
    copied = work.bf16 or _vocabulary_is_padded(work)
    weight = weight_gradient_bytes(work, _vocabulary_elements(work))
    hidden = work.width * work.trained_tokens * work.llama.hidden_size
    freed = FP32 * work.logits_elements - logits  # the probabilities, when the bf16 gradient has taken over
    moment = max(logits if copied else 0, weight + hidden - freed)
    return add_terms([{"logits gradients": moment}, _gathered(work)])


def embedding_backward_terms(work: Workload) -> Terms:
    """Last in the backward pass: gradient of the embedding's output and of the whole embedding, never fused."""
    hidden = work.width * work.tokens * work.llama.hidden_size
    weight = 0 if work.lora.r else work.width * _vocabulary_elements(work)
    return add_terms([{"embedding gradients": 2 * hidden + weight}, _gathered(work)])


def start_terms(work: Workload, rank: RankShape, optimizer_state: int) -> Terms:
    """Before training, when each chunk moves into one buffer: its weights once more, but no optimizer state yet.

    On the CPU a buffer takes memory only as it is filled, and what was moved is given back.
    """
    chunk = work.width * rank.parameters // len(rank.chunk_layers)
    return {"weights beside their buffer": max(0, chunk - optimizer_state)} if work.backend.cuda else {}


def collective_terms(work: Workload, rank: RankShape) -> Terms:
    """gloo copies the buffer it reduces (4 P) and, later, the weights it gathers (c P); NCCL works in place."""
    return {} if work.backend.cuda else {"gloo's copy of the gradients": FP32 * rank.trainable_parameters}


def optimizer_step_terms(work: Workload, rank: RankShape, optimizer_shards: int) -> Terms:
    """What Adam makes on the way; gradients are views of the buffer.

    Fused Adam makes nothing. torch's AdamW makes on CUDA the denominators of all weights at once (`foreach`), on the
    CPU two temporaries of one weight.
    """
    if work.backend.fused_optimizer:
        return {}
    shard = rank.trainable_parameters // optimizer_shards
    one_weight = min(rank.largest_parameter, shard)
    return {"Adam denominators": FP32 * (shard if work.backend.cuda else 2 * one_weight)}


def _vocabulary_is_padded(work: Workload) -> bool:
    """True when the last tensor rank masks padding columns (the largest of the tensor ranks decides)."""
    return padded_vocab_size(work.llama.vocab_size) != work.llama.vocab_size


def _vocabulary_elements(work: Workload) -> int:
    """h V / T."""
    return work.llama.hidden_size * padded_vocab_size(work.llama.vocab_size) // work.tp
