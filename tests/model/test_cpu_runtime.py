"""The CPU runtime: what it redirects, and where it must not act."""

import pytest
import torch

from megatron_agent.model import cpu_runtime

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the CPU runtime is for machines without CUDA")


def test_cuda_devices_become_the_cpu() -> None:
    cpu_runtime.install()
    cpu_runtime.install()  # a second call does nothing
    assert len(cpu_runtime._installed) == 1
    for device in ("cuda", "cuda:3", torch.device("cuda", 1), torch.cuda.current_device(), 0):
        assert torch.zeros(2, device=device).device.type == "cpu"
        assert torch.ones(2).to(device=device).device.type == "cpu"
    assert torch.zeros(2, device="meta").device.type == "meta"
    assert torch.ones(2).cuda().device.type == "cpu"
    assert torch.ones(2).type() == "torch.cuda.FloatTensor"
    assert torch.ones(2).type(torch.int32).dtype == torch.int32
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        torch.cuda.current_stream().wait_stream(torch.cuda.default_stream())


def test_random_state_is_the_cpu_generators(single_rank: None) -> None:
    from megatron.core.tensor_parallel import get_cuda_rng_tracker

    torch.cuda.manual_seed(7)
    state = torch.cuda.get_rng_state()
    first = torch.rand(3)
    with get_cuda_rng_tracker().fork():
        forked = torch.rand(3)
    after = torch.rand(3)
    torch.cuda.set_rng_state(state)
    assert torch.equal(torch.rand(3), first)
    assert torch.equal(torch.rand(3), after)  # the fork left the default stream where it was
    assert not torch.equal(forked, after)


def test_refuses_to_act_where_cuda_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_runtime, "_installed", [])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(RuntimeError, match="must not be installed where CUDA is available"):
        cpu_runtime.install()
