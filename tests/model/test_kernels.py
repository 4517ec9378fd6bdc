"""Which switches are on, on machines that are not here."""

import pytest

from megatron_agent.errors import UserError
from megatron_agent.model.kernels import KernelConfig, Machine, Switches, resolve_kernels, this_machine
from megatron_agent.model.layout import ParallelConfig

NGC_H100 = Machine(True, (9, 0), transformer_engine=True, wgrad_kernel=True, fused_adam="transformer_engine")
NGC_A100 = Machine(True, (8, 0), transformer_engine=True, wgrad_kernel=True, fused_adam="transformer_engine")
BARE_GPU = Machine(True, (8, 0))
TP2_SP = ParallelConfig(2, 1, True)


def resolve(
    machine: Machine, parallel: ParallelConfig = TP2_SP, precision: str = "bf16", dp: int = 4, **kernels: object
) -> Switches:
    return resolve_kernels(
        KernelConfig(**kernels),  # type: ignore[arg-type]
        parallel,
        machine,
        precision=precision,  # type: ignore[arg-type]
        data_parallel_size=dp,
    )


def names_on(switches: Switches) -> set[str]:
    return {name for name, switch in switches.items() if switch.on}


def test_everything_with_a_library_is_on_by_default() -> None:
    on = names_on(resolve(NGC_H100))
    assert on == set(resolve(NGC_H100)) - {"overlap_p2p_comm", "tp_comm_overlap", "fp8"}


def test_nothing_needs_a_library_on_a_bare_gpu() -> None:
    switches = resolve(BARE_GPU)
    assert names_on(switches) == {
        "bias_activation_fusion",
        "bias_dropout_fusion",
        "cross_entropy_loss_fusion",
        "overlap_grad_reduce",
        "overlap_param_gather",
    }
    assert "apex's kernel" in switches["gradient_accumulation_fusion"].reason
    assert switches["apply_rope_fusion"].reason == "needs Transformer Engine's layers"


def test_a_cpu_has_none_and_says_why() -> None:
    switches = resolve(Machine())
    assert not names_on(switches)
    assert all(switch.reason for switch in switches.values())
    assert this_machine() == Machine()  # where the tests run


def test_fp32_leaves_transformer_engine() -> None:
    switches = resolve(NGC_H100, precision="fp32")
    assert not switches["transformer_engine"].on
    assert "fp32" in switches["transformer_engine"].reason


def test_fp32_keeps_its_loss_gradients() -> None:
    """Megatron-core's fused cross entropy rounds them to bf16, whatever the precision."""
    assert not resolve(NGC_H100, precision="fp32")["cross_entropy_loss_fusion"].on
    assert resolve(NGC_H100)["cross_entropy_loss_fusion"].on


def test_a_switch_can_be_set_off() -> None:
    switches = resolve(NGC_H100, overlap_grad_reduce=False)
    assert not switches["overlap_grad_reduce"].on
    assert switches["overlap_grad_reduce"].reason == "set by --kernels.overlap_grad_reduce"
    assert not switches["overlap_param_gather"].on  # needs the other


def test_one_data_parallel_rank_has_nothing_to_overlap() -> None:
    assert not resolve(NGC_H100, dp=1)["overlap_grad_reduce"].on


@pytest.mark.parametrize(
    ("machine", "kernels", "message"),
    [
        (Machine(), {"transformer_engine": True}, "--kernels.transformer_engine true: needs CUDA"),
        (NGC_A100, {"fp8": "hybrid"}, "--kernels.fp8 hybrid: recipe tensorwise needs compute capability 8.9"),
        (NGC_H100, {"fp8": "hybrid", "fp8_recipe": "mxfp8"}, "needs compute capability 10.0, this GPU has 9.0"),
        (BARE_GPU, {"apply_rope_fusion": True}, "--kernels.apply_rope_fusion true: needs Transformer Engine"),
        (NGC_H100, {"overlap_p2p_comm": True}, "needs virtual_pipeline_model_parallel_size"),
    ],
)
def test_what_cannot_be_on_is_refused(machine: Machine, kernels: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as error:
        resolve(machine, **kernels)
    assert message in str(error.value)


def test_fp8_where_it_works() -> None:
    assert resolve(NGC_H100, fp8="hybrid")["fp8"].on
    assert resolve(NGC_H100, fp8="e4m3", fp8_recipe="blockwise")["fp8"].on


def test_context_parallelism_needs_transformer_engine() -> None:
    parallel = ParallelConfig(2, 1, True, context_parallel_size=2)
    assert resolve(NGC_H100, parallel)["transformer_engine"].on
    with pytest.raises(UserError, match=r"--parallel\.context_parallel_size 2: needs Transformer Engine"):
        resolve(BARE_GPU, parallel)


def test_interleaved_pipelines_overlap_their_sends_everywhere() -> None:
    """Two ranks without would exchange activations and gradients silently."""
    parallel = ParallelConfig(1, 2, virtual_pipeline_model_parallel_size=2)
    assert resolve(Machine(), parallel)["overlap_p2p_comm"].on
    with pytest.raises(UserError, match=r"--kernels\.overlap_p2p_comm false: an interleaved pipeline of 2 ranks"):
        resolve(Machine(), parallel, overlap_p2p_comm=False)
    assert not resolve(Machine(), ParallelConfig(1, 4, virtual_pipeline_model_parallel_size=2), overlap_p2p_comm=False)[
        "overlap_p2p_comm"
    ].on
