"""Model FLOPs of a training step: what the arithmetic of the model needs, whatever a kernel does. No torch import.

The count follows Megatron-LM (arXiv:2104.04473, appendix "Floating-point operations") and PaLM (arXiv:2204.02311,
appendix B): matrix products only, a multiplication with its addition is two operations, the backward pass of a
product costs two products of the same size (gradient of the input, gradient of the weight). Not counted: norms,
activations, softmax, rotary embedding, the embedding's look-up, the optimizer, and recomputed activations (they are
the hardware's work, not the model's).
"""

from megatron_agent.model.config import LlamaConfig


def matmul_weights(llama: LlamaConfig) -> int:
    """Return the weights that every token is multiplied with: those of the projections and of the output layer.

    Norms and the embedding are not among them; a tied output layer is. Vocabulary padding is not counted.
    """
    h, f, d = llama.hidden_size, llama.intermediate_size, llama.head_dim
    heads, groups = llama.num_attention_heads, llama.num_key_value_heads
    qkv, proj, gate_up, down = h * (heads + 2 * groups) * d, heads * d * h, 2 * h * f, f * h
    return llama.num_hidden_layers * (qkv + proj + gate_up + down) + h * llama.vocab_size


def model_flops(
    llama: LlamaConfig,
    tokens: float,
    sum_of_squared_lengths: float,
    adapter_weights: int | None = None,
    output_tokens: float | None = None,
) -> float:
    """Return the floating-point operations of forward and backward passes over packed conversations.

    `tokens`: positions of all conversations, trained or not: the loss of one token needs all before it. Padding is no
    conversation; left out, it lowers the utilisation as any other waste does. `output_tokens`: positions with a loss,
    the only ones the output layer runs over; all of them if not given. `sum_of_squared_lengths`: sum of length² over
    the conversations, in tokens². With O the weights of the output layer, W the others of `matmul_weights`, L layers,
    n heads of size d:

        forward weights    2 W tokens + 2 O output_tokens
        forward attention  L * (2 + 2) n d * sum(length²) / 2      scores and values; causal: half of the square
        full training      3 * (forward weights + forward attention)

    `adapter_weights` counts LoRA: the number of trained adapter weights in the whole model, the others being frozen.
    A frozen weight needs no gradient of its own, so its product costs 2 forward passes instead of 3:

        LoRA               2 * forward weights + 3 * (2 adapter_weights tokens + forward attention)
    """
    output = llama.hidden_size * llama.vocab_size
    weights = 2.0 * (matmul_weights(llama) - output) * tokens
    weights += 2.0 * output * (tokens if output_tokens is None else output_tokens)
    width = llama.num_attention_heads * llama.head_dim
    attention = llama.num_hidden_layers * 2.0 * width * sum_of_squared_lengths
    if adapter_weights is None:
        return 3.0 * (weights + attention)
    return 2.0 * weights + 3.0 * (2.0 * adapter_weights * tokens + attention)
