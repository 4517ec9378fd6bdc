"""CPU forms of GPU kernels: each against the plain steps it replaces, values and gradients."""

import pytest
import torch
import torch.nn.functional as F

from megatron_agent.model import cpu_products
from megatron_agent.model.rotary import apply_rotary_thd
from megatron_agent.model.swiglu import swiglu

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the CPU runtime is for machines without CUDA")


def gradients(output: torch.Tensor, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Gradients of a sum weighted at random, with the same bf16 weights for every output of one shape."""
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(3)).bfloat16().to(output.dtype)
    return torch.autograd.grad(output, inputs, weights)


def test_swiglu_equals_its_definition(single_rank: None) -> None:
    x = torch.randn(7, 1, 24, requires_grad=True)
    gate, up = x.chunk(2, dim=-1)
    expected = F.silu(gate) * up
    torch.testing.assert_close(swiglu(x, None), expected)
    torch.testing.assert_close(gradients(swiglu(x, None), x), gradients(expected, x))
    assert torch.autograd.gradcheck(lambda value: swiglu(value, None), x.detach().double().requires_grad_())
    with pytest.raises(ValueError, match="no bias"):
        swiglu(x, torch.zeros(24))


def test_rotation_equals_megatron_cores(single_rank: None, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    from megatron.core import parallel_state
    from megatron.core.models.common.embeddings import rope_utils

    assert rope_utils._apply_rotary_pos_emb_thd is apply_rotary_thd  # what layers call
    spec = importlib.util.find_spec(rope_utils.__name__)
    untouched = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(untouched)
    group = parallel_state.get_context_parallel_group()
    for bounds in ([0, 5, 6, 30, 64], [0, 64]):  # other segments after the first: nothing kept from them
        cu_seqlens = torch.tensor(bounds, dtype=torch.int32)
        angles = torch.outer(torch.arange(max(cu_seqlens.diff())).float(), 10000 ** -(torch.arange(8) / 8))
        freqs = torch.cat([angles, angles], dim=-1)[:, None, None]
        for heads in (4, 2):
            x = torch.randn(64, heads, 16, requires_grad=True)
            expected = untouched._apply_rotary_pos_emb_thd(x, cu_seqlens, freqs, cp_group=group)
            got = apply_rotary_thd(x, cu_seqlens, freqs, cp_group=group)
            torch.testing.assert_close(got, expected)
            torch.testing.assert_close(gradients(got, x), gradients(expected, x))
    with pytest.raises(ValueError, match="only Llama's"):
        apply_rotary_thd(x, cu_seqlens, freqs, rotary_interleaved=True)


@pytest.mark.parametrize("shape", [(64, 48), (3, 64, 48)])
def test_bf16_products_are_rounded_once(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    multiply = cpu_products.through_fp32(torch.matmul)
    a, b = torch.randn(*shape).bfloat16().requires_grad_(), torch.randn(48, 32).bfloat16().requires_grad_()
    got = multiply(a, b)
    exact = a.double() @ b.double()
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.double(), exact.detach(), rtol=2**-8, atol=1e-5)
    for value, expected in zip(gradients(got, a, b), gradients(exact, a, b), strict=True):
        assert value.dtype == torch.bfloat16
        torch.testing.assert_close(value.double(), expected.double(), rtol=2**-8, atol=1e-5)
    assert torch.equal(multiply(a.float(), b.float()), torch.matmul(a.float(), b.float()))


def test_bf16_attention_is_nearer_to_fp32_than_torchs_own(single_rank: None) -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, 2, 40, 16).bfloat16() for _ in range(3))
    operation = torch._C._nn.scaled_dot_product_attention
    exact = operation(query.double(), key.double(), value.double(), is_causal=True)
    native = (operation(query, key, value, is_causal=True) - exact).abs().mean()
    ours = cpu_products.through_fp32(operation)(query, key, value, is_causal=True)
    assert ours.dtype == torch.bfloat16
    assert (ours - exact).abs().mean() <= native


def test_products_are_replaced_only_without_bf16_units(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False)
    monkeypatch.setattr(cpu_products.platform, "machine", lambda: "x86_64")
    assert cpu_products.bf16_products_reason()[0]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert not cpu_products.bf16_products_reason()[0]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert not cpu_products.bf16_products_reason()[0]
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(cpu_products.platform, "machine", lambda: "aarch64")
    assert not cpu_products.lacks_bf16_units()


@pytest.mark.skipif(not cpu_products.lacks_bf16_units(), reason="this processor multiplies bf16 itself")
def test_bf16_products_of_megatron_core_go_through_fp32(single_rank: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward and both products of the backward pass: no bf16 kernel is left in a linear layer."""
    from megatron.core.tensor_parallel.layers import ColumnParallelLinear

    from tests.model.test_attention_and_norm import settings

    layer = ColumnParallelLinear(16, 8, config=settings(), init_method=torch.nn.init.normal_, bias=False).bfloat16()
    x = torch.randn(5, 1, 16).bfloat16().requires_grad_()
    seen = []

    class Record(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.bmm, torch.ops.aten.addmm):
                seen.append(args[0].dtype)
            return func(*args, **(kwargs or {}))

    with Record():
        layer(x)[0].sum().backward()
    assert seen == [torch.float32] * 3
