"""Model FLOPs against torch's own counter on a transformers Llama, and against sums made by hand."""

import subprocess
import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from megatron_agent.model.config import PRESETS, LlamaConfig
from megatron_agent.training.flops import matmul_weights, model_flops

TINY = LlamaConfig(
    hidden_size=64,
    intermediate_size=112,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=24,  # heads * head_dim differs from hidden_size
    vocab_size=200,
)


def counted(llama: LlamaConfig, lengths: list[int], lora_rank: int = 0) -> tuple[int, int]:
    """Return torch's count of forward and backward over rows of these lengths, and the number of adapter weights.

    Eager attention multiplies the whole square of scores, so torch counts twice the causal half.
    """
    from transformers import LlamaConfig as HFConfig
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM(HFConfig(**llama.to_hf(), attn_implementation="eager"))
    if lora_rank:
        from peft import LoraConfig, get_peft_model

        names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        model = get_peft_model(model, LoraConfig(r=lora_rank, target_modules=names))
    with FlopCounterMode(display=False) as counter:
        for length in lengths:
            tokens = torch.randint(llama.vocab_size, (1, length))
            model(tokens).logits.sum().backward()
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    return counter.get_total_flops(), trained


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("lengths", [[48], [7, 48, 16]])
def test_full_training_against_torch(tied: bool, lengths: list[int]) -> None:
    llama = LlamaConfig(**{**TINY.__dict__, "tie_word_embeddings": tied})
    squares = sum(length * length for length in lengths)
    whole_square = 2 * squares  # undoes the causal half, as eager attention does
    assert model_flops(llama, sum(lengths), whole_square) == counted(llama, lengths)[0]


def test_lora_against_torch_and_peft() -> None:
    lengths = [12, 40]
    squares, tokens = sum(length * length for length in lengths), sum(lengths)
    total, adapters = counted(TINY, lengths, lora_rank=4)
    # Nothing below the first layer is trained, so torch skips the input gradient of its q, k and v.
    h, qkv = TINY.hidden_size, (TINY.num_attention_heads + 2 * TINY.num_key_value_heads) * TINY.head_dim
    first_layer = 2 * tokens * (h * qkv + 3 * h * 4)
    assert model_flops(TINY, tokens, 2 * squares, adapter_weights=adapters) - first_layer == total
    assert model_flops(TINY, tokens, squares, adapters) < model_flops(TINY, tokens, squares)


def test_the_paper_scale_by_hand() -> None:
    """Llama-2-7B: all 6,738,415,616 weights but embedding and norms, and 6 of them per token."""
    llama = PRESETS["llama-2-7b"]
    assert matmul_weights(llama) == 6_738_415_616 - 32000 * 4096 - (2 * 32 + 1) * 4096
    row = model_flops(llama, 4096, 4096**2)
    # arXiv:2104.04473 counts the attention's square whole: 12 s l h per token, here half of it.
    assert row == pytest.approx(4096 * (6 * matmul_weights(llama) + 6 * 4096 * 32 * 4096), rel=1e-12)
    # 16 conversations of 256 tokens need a sixteenth of the attention.
    packed = model_flops(llama, 4096, 16 * 256**2)
    assert row - packed == pytest.approx(15 / 16 * 6 * 4096 * 4096 * 32 * 4096, rel=1e-9)


def test_no_torch_is_imported() -> None:
    code = "import sys, megatron_agent.training.flops; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
