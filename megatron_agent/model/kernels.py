"""Which fused kernels and overlapped communication a run uses, and why not the others.

Nothing here imports torch before :func:`this_machine` is called: readable from `--help`.
"""

from dataclasses import dataclass, fields
from typing import Literal

from megatron_agent.errors import UserError
from megatron_agent.model.layout import ParallelConfig


@dataclass
class KernelConfig:
    """Fused kernels, overlapped communication, FP8. A switch left out is on wherever what it needs is there; training
    prints each with the reason. A switch set to true where it cannot work is an error."""

    transformer_engine: bool | None = None
    """Transformer Engine's layers with THD flash attention; else megatron-core's linears and segmented attention."""
    fused_optimizer: bool | None = None
    """Fused Adam of Transformer Engine or apex; else torch's AdamW."""
    gradient_accumulation_fusion: bool | None = None
    """Weight gradients are added to the fp32 buffer inside the matrix product (apex or Transformer Engine)."""
    bias_activation_fusion: bool | None = None
    """SwiGLU in one kernel."""
    bias_dropout_fusion: bool | None = None
    """Dropout and residual addition in one kernel."""
    apply_rope_fusion: bool | None = None
    """Rotary embedding in one kernel (Transformer Engine)."""
    cross_entropy_loss_fusion: bool | None = None
    """Vocabulary-parallel cross entropy in one kernel with one reduction."""
    overlap_grad_reduce: bool | None = None
    """Reduce gradients while the backward pass goes on (more than one data-parallel rank)."""
    overlap_param_gather: bool | None = None
    """Gather updated weights while the next forward pass goes on (needs overlap_grad_reduce)."""
    overlap_p2p_comm: bool | None = None
    """Send activations between pipeline stages while computing (interleaved pipelines only)."""
    tp_comm_overlap: bool | None = None
    """Overlap tensor-parallel communication with matrix products (Transformer Engine's user buffers; needs
    sequence_parallel)."""
    fp8: Literal["hybrid", "e4m3"] | None = None
    """Matrix products in FP8 (Transformer Engine, compute capability 8.9 or newer); `hybrid`: e5m2 gradients."""
    fp8_recipe: Literal["delayed", "tensorwise", "blockwise", "mxfp8"] = "tensorwise"
    """How FP8 scales are chosen. `delayed` keeps a history that checkpoints do not hold: a resume starts it anew."""


@dataclass(frozen=True)
class Machine:
    """What the switches depend on: the device of this rank and the libraries that work on it."""

    cuda: bool = False
    compute_capability: tuple[int, int] = (0, 0)
    transformer_engine: bool = False
    wgrad_kernel: bool = False
    """Apex's `fused_weight_gradient_mlp_cuda`."""
    fused_adam: str | None = None
    """Library that brings a fused Adam."""


@dataclass(frozen=True)
class Switch:
    """One decision."""

    name: str
    on: bool
    reason: str


Switches = dict[str, Switch]
# FP8 recipes and the compute capability their scaling needs.
FP8_CAPABILITY = {"delayed": (8, 9), "tensorwise": (8, 9), "blockwise": (9, 0), "mxfp8": (10, 0)}


def this_machine() -> Machine:
    """Look at the device and the installed libraries."""
    import torch

    if not torch.cuda.is_available():
        return Machine()
    from megatron.core import optimizer
    from megatron.core.extensions.transformer_engine import HAVE_TE
    from megatron.core.tensor_parallel import layers

    library = optimizer.Adam.__module__.split(".")[0]
    return Machine(
        cuda=True,
        compute_capability=torch.cuda.get_device_capability(),
        transformer_engine=HAVE_TE,
        wgrad_kernel=layers._grad_accum_fusion_available,
        fused_adam=None if library == "torch" else library,
    )


def resolve_kernels(
    kernels: KernelConfig,
    parallel: ParallelConfig,
    machine: Machine,
    *,
    precision: Literal["bf16", "fp16", "fp32"],
    data_parallel_size: int,
) -> Switches:
    """Decide every switch of `kernels` on this machine, by name.

    Raises :class:`UserError` for a switch set to true that cannot be on, and for context parallelism without
    Transformer Engine.
    """
    switches: Switches = {}
    problems = []

    def decide(name: str, *requirements: tuple[bool, str], automatic: bool = True, why_off: str = "") -> None:
        wanted = getattr(kernels, name)
        missing = next((text for met, text in requirements if not met), None)
        flag = f"--kernels.{name}"
        if wanted and missing:
            problems.append(f"{flag} {wanted if isinstance(wanted, str) else 'true'}: {missing}")
        if missing:
            switches[name] = Switch(name, False, missing)
        elif wanted is None:
            switches[name] = Switch(name, automatic, "available" if automatic else why_off)
        else:
            switches[name] = Switch(name, bool(wanted), f"set by {flag}")

    cuda = (machine.cuda, "needs CUDA")
    decide(
        "transformer_engine",
        cuda,
        (machine.transformer_engine, "Transformer Engine is not installed, or does not import with this torch"),
        (precision != "fp32", "its packed attention has no fp32 kernel"),
    )
    engine = (switches["transformer_engine"].on, "needs Transformer Engine's layers")
    decide("fused_optimizer", cuda, (machine.fused_adam is not None, "neither Transformer Engine nor apex is there"))
    decide(
        "gradient_accumulation_fusion",
        cuda,
        # The output layer is megatron-core's own linear, with Transformer Engine too.
        (machine.wgrad_kernel, "apex's kernel fused_weight_gradient_mlp_cuda is not there"),
    )
    decide("bias_activation_fusion", (machine.cuda, "needs CUDA; the CPU has its own (model/swiglu.py)"))
    decide("bias_dropout_fusion", cuda)
    decide("apply_rope_fusion", engine)
    decide("cross_entropy_loss_fusion", cuda, (precision == "bf16", "its backward pass rounds the gradient to bf16"))
    # Gloo can overlap as well; on a CPU there is nothing to gain, so it is left to those who ask for it.
    on_cpu = "no gain without CUDA"
    decide(
        "overlap_grad_reduce",
        (data_parallel_size * parallel.context_parallel_size > 1, "one data-parallel rank has nothing to reduce"),
        automatic=machine.cuda,
        why_off=on_cpu,
    )
    decide(
        "overlap_param_gather",
        (switches["overlap_grad_reduce"].on, "needs overlap_grad_reduce"),
        automatic=machine.cuda,
        why_off=on_cpu,
    )
    decide(
        "overlap_p2p_comm",
        (bool(parallel.virtual_pipeline_model_parallel_size), "needs virtual_pipeline_model_parallel_size"),
    )
    interleaved_pair = parallel.virtual_pipeline_model_parallel_size and parallel.pipeline_model_parallel_size == 2
    if interleaved_pair and not switches["overlap_p2p_comm"].on:
        # Megatron-core's batched sends do not tell the two directions between the same two ranks apart: activations and
        # gradients are silently exchanged.
        problems.append(
            "--kernels.overlap_p2p_comm false: an interleaved pipeline of 2 ranks needs it; leave it out, or set "
            "--parallel.pipeline_model_parallel_size above 2"
        )
    decide(
        "tp_comm_overlap",
        engine,
        (parallel.sequence_parallel, "needs sequence_parallel"),
        (parallel.context_parallel_size == 1, "context parallelism pads rows to different sizes"),
        automatic=False,
        why_off="opt-in: its buffers need NVLink among the tensor-parallel ranks and take memory of their own",
    )
    capability, needed = machine.compute_capability, FP8_CAPABILITY[kernels.fp8_recipe]
    decide(
        "fp8",
        engine,
        (
            capability >= needed,
            f"recipe {kernels.fp8_recipe} needs compute capability {needed[0]}.{needed[1]}, "
            f"this GPU has {capability[0]}.{capability[1]}",
        ),
        automatic=False,
        why_off="opt-in: changes the numbers",
    )
    if parallel.context_parallel_size > 1 and not switches["transformer_engine"].on:
        problems.append(
            f"--parallel.context_parallel_size {parallel.context_parallel_size}: needs Transformer Engine's layers "
            f"({switches['transformer_engine'].reason}); set it to 1"
        )
    if problems:
        raise UserError("these settings cannot work here:\n  " + "\n  ".join(problems))
    order = [field.name for field in fields(KernelConfig) if field.name in switches]
    return {name: switches[name] for name in order}


def local_switches() -> Switches:
    """The switches of the layers without Transformer Engine and without any fusion: what conversion checks run on."""
    return resolve_kernels(KernelConfig(), ParallelConfig(), Machine(), precision="fp32", data_parallel_size=1)
