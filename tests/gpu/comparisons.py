"""Training runs that must agree: layer specs, precisions, optimizers, layouts, and weights through both specs."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from tests.gpu.runs import SMALL, TINY, Inputs, Section, can_learn, difference, make_inputs, train

Result = dict[str, Any]

LAYOUTS: dict[str, tuple[int, Section]] = {
    "TP2": (2, {"tensor_model_parallel_size": 2}),
    "TP2_SP": (2, {"tensor_model_parallel_size": 2, "sequence_parallel": True}),
    "PP2": (2, {"pipeline_model_parallel_size": 2}),
    "PP2_virtual2": (2, {"pipeline_model_parallel_size": 2, "virtual_pipeline_model_parallel_size": 2}),
    "DP2": (2, {}),
    "CP2": (2, {"context_parallel_size": 2}),
    "TP2_PP2_SP": (4, {"tensor_model_parallel_size": 2, "pipeline_model_parallel_size": 2, "sequence_parallel": True}),
    "DP8": (8, {}),
    "TP2_PP2_DP2": (8, {"tensor_model_parallel_size": 2, "pipeline_model_parallel_size": 2}),
    "TP2_CP2_DP2_SP": (
        8,
        {"tensor_model_parallel_size": 2, "context_parallel_size": 2, "sequence_parallel": True},
    ),
}
BF16_TOLERANCE = 1e-2  # relative, of a step's loss; the same sums in another order
FP32_TOLERANCE = 1e-4
PRECISION_TOLERANCE = {"bf16": 2e-2, "fp8_delayed": 5e-2, "fp8_tensorwise": 5e-2}  # of the last loss, to fp32's


def inputs_for(device: str, folder: Path) -> Inputs:
    """Small inputs on GPUs, tiny ones on a CPU."""
    return make_inputs(folder, TINY if device == "cpu" else SMALL, device)


def spec_against_spec(device: str, folder: Path) -> Result:
    """Train in bf16 with Transformer Engine's layers and with the TE-free ones (on a CPU: TE-free twice)."""
    inputs = inputs_for(device, folder)
    bf16 = {"precision": "bf16"}
    local = train(inputs, "local", training=bf16, kernels={"transformer_engine": False})
    other = train(inputs, "engine", training=bf16, kernels={"transformer_engine": device != "cpu"})
    found = difference(other, local)
    met = found["largest_loss_difference"] < BF16_TOLERANCE and can_learn(other)
    return {**found, "tolerance": BF16_TOLERANCE, "met": met}


def fused_adam(device: str, folder: Path) -> Result:
    """Train in fp32 with Transformer Engine's or apex's fused Adam and with torch's AdamW (on a CPU: AdamW twice)."""
    inputs = inputs_for(device, folder)
    plain = train(inputs, "adamw", kernels={"fused_optimizer": False})
    fused = train(inputs, "fused", kernels={"fused_optimizer": device != "cpu"})
    found = difference(fused, plain)
    met = found["largest_loss_difference"] < FP32_TOLERANCE and can_learn(fused)
    return {**found, "tolerance": FP32_TOLERANCE, "met": met}


def precisions(device: str, folder: Path) -> Result:
    """Loss curves in fp32, bf16 and, where the GPU has it, FP8 under two recipes."""
    inputs = inputs_for(device, folder)
    curves = {"fp32": train(inputs, "fp32"), "bf16": train(inputs, "bf16", training={"precision": "bf16"})}
    fp8 = device != "cpu" and torch.cuda.get_device_capability() >= (8, 9)
    for recipe in ("delayed", "tensorwise") if fp8 else ():
        curves[f"fp8_{recipe}"] = train(
            inputs, f"fp8_{recipe}", training={"precision": "bf16"}, kernels={"fp8": "hybrid", "fp8_recipe": recipe}
        )
    last = {name: metrics[-1]["loss"] for name, metrics in curves.items()}
    distance = {name: abs(last[name] / last["fp32"] - 1) for name in curves if name != "fp32"}
    return {
        "losses": {name: [line["loss"] for line in metrics] for name, metrics in curves.items()},
        "last_loss_difference_from_fp32": distance,
        "tolerance": {name: PRECISION_TOLERANCE[name] for name in distance},
        "not_run": {} if fp8 else {"fp8": "needs a GPU of compute capability 8.9 or newer"},
        "met": all(distance[name] < PRECISION_TOLERANCE[name] for name in distance) and can_learn(curves["fp32"]),
    }


def layouts(device: str, folder: Path, names: tuple[str, ...] = tuple(LAYOUTS)) -> Result:
    """Train in bf16 in every layout that the GPUs at hand allow, against one GPU."""
    inputs = inputs_for(device, folder)
    ranks = torch.cuda.device_count() if device != "cpu" else 2
    bf16 = {"precision": "bf16"}
    reference = train(inputs, "one", training=bf16)
    found, not_run = {}, {}
    for name in names:
        needed, parallel = LAYOUTS[name]
        if needed > ranks:
            not_run[name] = f"needs {needed} GPUs, {ranks} are here"
            continue
        metrics = train(inputs, name, needed, training=bf16, parallel=parallel)
        found[name] = difference(metrics, reference)
    met = all(values["largest_loss_difference"] < BF16_TOLERANCE for values in found.values())
    return {"layouts": found, "not_run": not_run, "tolerance": BF16_TOLERANCE, "met": met and can_learn(reference)}


def round_trip(device: str, folder: Path) -> Result:
    """Hugging Face -> Megatron -> model of either spec -> checkpoint -> Hugging Face: every bit as at the start.

    The run between makes one step with learning rate 0.
    """
    from checkpoints_convert.megatron_to_hf import main as megatron_to_hf
    from checkpoints_convert.verify import same_bits

    inputs = inputs_for(device, folder)
    start = load_file(inputs.hf / "model.safetensors")
    different: dict[str, list[str]] = {}
    for name, engine in (("local", False), ("transformer_engine", True)):
        if engine and device == "cpu":
            continue
        # fp32 weights would keep the engine out: its packed attention has no fp32 kernel.
        precision = "bf16" if engine else "fp32"
        training = {"train_iters": 1, "precision": precision}
        still = {"lr": 0.0, "min_lr": 0.0, "weight_decay": 0.0}
        train(inputs, name, training=training, optimizer=still, kernels={"transformer_engine": engine})
        target = folder / f"{name}_hf"
        megatron_to_hf(["--megatron", str(folder / name / "checkpoints"), "--output", str(target)])
        end = load_file(target / "model.safetensors")
        expected = {key: value.bfloat16() if engine else value for key, value in start.items()}
        names = sorted(start.keys() | end.keys())
        different[name] = [key for key in names if key not in end or not same_bits(expected[key], end[key])]
    return {"different_tensors": different, "tensors": len(start), "met": not any(different.values())}
