"""What a run does beside its steps: evaluation, saving and resuming, LoRA."""

import json
from pathlib import Path

from tests.gpu.comparisons import BF16_TOLERANCE, Result, inputs_for
from tests.gpu.runs import Section, can_learn, difference, train


def evaluation(device: str, folder: Path) -> Result:
    """Evaluate after every step, on held-out rows that do not fill the micro-batches, with each kind of layers.

    A micro-batch without a trained token is what fused kernels may not be made for.
    """
    inputs = inputs_for(device, folder)
    losses: dict[str, list[float]] = {}
    for name, engine in (("local", False), ("transformer_engine", True)):
        if engine and device == "cpu":
            continue
        training = {"precision": "bf16", "eval_interval": 1, "micro_batch_size": 4}
        held_out = {"validation_fraction": 0.1}
        train(inputs, name, training=training, data=held_out, kernels={"transformer_engine": engine})
        lines = (folder / name / "validation.jsonl").read_text(encoding="utf-8").splitlines()
        losses[name] = [json.loads(line)["loss"]["general"] for line in lines]
    pairs = list(zip(*losses.values(), strict=True))
    largest = max(max(values) / min(values) - 1 for values in pairs)
    met = largest < BF16_TOLERANCE and all(len(curve) == inputs.size.steps + 1 for curve in losses.values())
    return {"losses": losses, "largest_difference": largest, "tolerance": BF16_TOLERANCE, "met": met}


def resume(device: str, folder: Path) -> Result:
    """Resume in the middle with fused Adam and with torch's AdamW: the rest as in a run that was not stopped."""
    inputs = inputs_for(device, folder)
    half = inputs.size.steps // 2
    found: dict[str, dict[str, float]] = {}
    for name, fused in (("adamw", False), ("fused", True)):
        if fused and device == "cpu":
            continue
        sections: dict[str, Section] = {
            "training": {"precision": "bf16"},
            "checkpoint": {"save_interval": half, "keep_last": 0},
            "kernels": {"fused_optimizer": fused},
        }
        whole = train(inputs, name, **sections)
        middle = inputs.folder / name / "checkpoints" / f"iter_{half:07d}"
        resumed = train(inputs, f"{name}_resumed", start=middle, **sections)
        found[name] = difference(resumed, whole[half:])
    met = all(values["largest_loss_difference"] < BF16_TOLERANCE for values in found.values())
    return {"runs": found, "tolerance": BF16_TOLERANCE, "met": met}


def lora(device: str, folder: Path) -> Result:
    """Train adapters on Transformer Engine's layers and on the TE-free ones (on a CPU: TE-free twice)."""
    inputs = inputs_for(device, folder)
    common: dict[str, Section] = {"training": {"precision": "bf16"}, "lora": {"r": 8}, "optimizer": {"lr": 1e-2}}
    local = train(inputs, "local", **common, kernels={"transformer_engine": False})
    other = train(inputs, "engine", **common, kernels={"transformer_engine": device != "cpu"})
    found = difference(other, local)
    met = found["largest_loss_difference"] < BF16_TOLERANCE and can_learn(other)
    return {**found, "tolerance": BF16_TOLERANCE, "met": met}
