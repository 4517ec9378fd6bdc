"""The two modules of our own inside a layer."""

import pytest
import torch

from megatron_agent.model.layout import ParallelConfig
from tests.model.tiny import LLAMA3_ROPE


def settings(**overrides: object) -> object:
    from megatron_agent.model.builder import transformer_config
    from megatron_agent.model.config import LlamaConfig

    llama = LlamaConfig(64, 96, 2, 4, 2, 16, 301)
    return transformer_config(llama, ParallelConfig(), params_dtype=torch.float32, **overrides)


def attention(**overrides: object) -> torch.nn.Module:
    from megatron.core.transformer.enums import AttnMaskType

    from megatron_agent.model.attention import SegmentedAttention

    return SegmentedAttention(settings(**overrides), 1, AttnMaskType.causal, "self")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rms_norm_has_the_bits_of_hugging_face(dtype: torch.dtype, single_rank: None) -> None:
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    from megatron_agent.model.norm import RMSNorm

    torch.manual_seed(0)
    ours, theirs = RMSNorm(settings(), 64, eps=1e-5).to(dtype), LlamaRMSNorm(64, eps=1e-5).to(dtype)
    ours.weight.data.uniform_(0.5, 1.5)
    theirs.weight.data.copy_(ours.weight.data)
    x = torch.randn(5, 2, 64).to(dtype) * 3
    assert torch.equal(ours(x), theirs(x))


def test_rms_norm_has_the_gradients_of_autograd(single_rank: None) -> None:
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    from megatron_agent.model.norm import RMSNorm

    torch.manual_seed(0)
    ours, theirs = RMSNorm(settings(), 64, eps=1e-5), LlamaRMSNorm(64, eps=1e-5)
    ours.weight.data.uniform_(0.5, 1.5)
    theirs.weight.data.copy_(ours.weight.data)
    x, gradient = torch.randn(5, 2, 64, requires_grad=True), torch.randn(5, 2, 64)
    for got, expected in zip(
        torch.autograd.grad(ours(x), (x, ours.weight), gradient),
        torch.autograd.grad(theirs(x), (x, theirs.weight), gradient),
        strict=True,
    ):
        torch.testing.assert_close(got, expected)


def test_norm_weights_are_marked_for_sequence_parallelism(single_rank: None) -> None:
    from megatron_agent.model.builder import transformer_config
    from megatron_agent.model.config import LlamaConfig
    from megatron_agent.model.norm import RMSNorm

    llama = LlamaConfig(64, 96, 2, 4, 2, 16, 301)
    divided = transformer_config(llama, ParallelConfig(2, 1, True), params_dtype=torch.float32)
    assert RMSNorm(divided, 64).weight.sequence_parallel is True
    assert RMSNorm(settings(), 64).weight.sequence_parallel is False


def test_packed_attention_equals_a_dense_block_diagonal_mask(single_rank: None) -> None:
    from megatron_agent.model.attention import packed_seq_params

    torch.manual_seed(0)
    bounds = torch.tensor([0, 5, 6, 30, 64], dtype=torch.int32)
    query, key, value = torch.randn(64, 4, 16), torch.randn(64, 2, 16), torch.randn(64, 2, 16)
    got = attention()(query, key, value, None, packed_seq_params=packed_seq_params(bounds))
    segment = torch.bucketize(torch.arange(64), bounds[1:], right=True)
    mask = (segment[:, None] == segment[None]).tril()
    key, value = key.repeat_interleave(2, dim=1), value.repeat_interleave(2, dim=1)  # one key for two queries
    scores = torch.einsum("qhd,khd->hqk", query, key) / 16**0.5
    expected = torch.einsum("hqk,khd->qhd", scores.masked_fill(~mask, -torch.inf).softmax(-1), value)
    torch.testing.assert_close(got, expected)


def test_attention_dropout_acts_in_training_only_and_follows_the_seed(single_rank: None) -> None:
    from megatron_agent.model.attention import packed_seq_params
    from megatron_agent.model.parallel import seed_model_parallel

    torch.manual_seed(0)
    inputs = torch.randn(64, 4, 16), torch.randn(64, 2, 16), torch.randn(64, 2, 16)
    packed = packed_seq_params(torch.tensor([0, 30, 64], dtype=torch.int32))
    module = attention(attention_dropout=0.5)

    def output(seed: int) -> torch.Tensor:
        seed_model_parallel(seed)
        return module(*inputs, None, packed_seq_params=packed)

    module.train()
    assert torch.equal(output(1), output(1))
    assert not torch.equal(output(1), output(2))
    module.eval()
    assert torch.equal(output(1), output(2))


def test_attention_refuses_masks_and_odd_segments(single_rank: None) -> None:
    from megatron_agent.model.attention import packed_seq_params

    x = torch.randn(4, 1, 4, 16)
    with pytest.raises(ValueError, match="attention_mask=None"):
        attention()(x, x[:, :, :2], x[:, :, :2], torch.ones(1))
    for bounds in ([0], [1, 4], [0, 4, 4], [0, 4, 3]):
        with pytest.raises(ValueError, match="rise strictly from 0"):
            packed_seq_params(torch.tensor(bounds, dtype=torch.int32))


def test_maximum_length_is_that_of_the_longest_segment() -> None:
    """The row length in its place would make rotary positions run on over segments."""
    from megatron_agent.model.attention import packed_seq_params

    assert packed_seq_params(torch.tensor([0, 10, 64], dtype=torch.int32)).max_seqlen_q == 54


def test_llama3_frequencies_equal_those_of_transformers(single_rank: None) -> None:
    from transformers import LlamaConfig as HfConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    from megatron_agent.model.builder import inverse_frequencies
    from megatron_agent.model.config import LlamaConfig

    scaling = {key: value for key, value in LLAMA3_ROPE.items() if key != "rope_theta"}
    scaling["original_max_position_embeddings"] = 8192
    ours = LlamaConfig(4096, 96, 2, 32, 8, 128, 301, rope_theta=500000.0, rope_scaling=scaling)
    hf = HfConfig(hidden_size=4096, num_attention_heads=32, rope_parameters={**scaling, "rope_theta": 500000.0})
    expected, _ = ROPE_INIT_FUNCTIONS["llama3"](hf, "cpu")
    assert torch.equal(inverse_frequencies(ours), expected)
