"""Model FLOPs utilisation of the training command on models of 1B and 7B shape, random weights, packed rows.

    python -m tests.gpu mfu [--json F]

FLOPs count what packed attention needs (megatron_agent/training/flops.py); the peak is that of the GPU's data sheet
(megatron_agent/training/hardware.py).
"""

import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from megatron_agent.model.config import PRESETS, LlamaConfig
from tests.gpu.runs import TINY, Inputs, Section, Size, train, write_conversations

ONE_B = LlamaConfig(2048, 8192, 16, 32, 8, 64, 128256, rope_theta=500000.0, tie_word_embeddings=True)
SHAPES: dict[str, tuple[LlamaConfig, int, Section]] = {
    # name: (shape, least number of GPUs of 80 GB, layout). 7B: weights, gradients and Adam take 18 bytes a parameter,
    # 121 GB in all, so TP2 on two GPUs and the distributed optimizer on more.
    "1B": (ONE_B, 1, {}),
    "7B": (PRESETS["llama-2-7b"], 2, {"tensor_model_parallel_size": 2, "sequence_parallel": True}),
}
STEPS, WARMUP, ROWS_PER_GPU = 12, 4, 8


def mfu(device: str, folder: Path) -> dict[str, Any]:
    """Measure every shape that fits; on a CPU a tiny one, against a made-up peak of 0.1 TFLOP/s."""
    if device == "cpu":
        tiny = LlamaConfig(128, 192, 2, 2, 2, 64, 301)
        return {"shapes": {"tiny": measure(folder, "tiny", tiny, 1, {}, TINY, "cpu")}, "not_run": {}, "met": True}
    gpus = torch.cuda.device_count()
    shapes, not_run = {}, {}
    for name, (llama, needed, parallel) in SHAPES.items():
        if gpus < needed:
            not_run[name] = f"needs {needed} GPUs of 80 GB, {gpus} are here"
            continue
        size = Size(
            llama.hidden_size,
            llama.intermediate_size,
            llama.num_hidden_layers,
            llama.num_attention_heads,
            llama.num_key_value_heads,
            llama.vocab_size,
            seq_length=4096,
            conversations=1000,
            steps=STEPS,
        )
        shapes[name] = measure(folder, name, llama, gpus, parallel, size, device)
    return {"shapes": shapes, "not_run": not_run, "met": bool(shapes)}


def measure(
    folder: Path, name: str, llama: LlamaConfig, gpus: int, parallel: Section, size: Size, device: str
) -> dict[str, Any]:
    """Train `size.steps` steps on all GPUs; return medians over the steps after the warm-up."""
    inputs = Inputs(folder / name, size, device)
    inputs.hf.mkdir(parents=True)
    config = replace(llama, max_position_embeddings=max(size.seq_length, llama.max_position_embeddings)).to_hf()
    (inputs.hf / "config.json").write_text(json.dumps(config), encoding="utf-8")
    write_conversations(inputs.folder / "data", size)
    rows = ROWS_PER_GPU * gpus
    metrics = train(
        inputs,
        "run",
        gpus,
        model={"checkpoint": None, "config": str(inputs.hf)},
        training={"precision": "bf16", "global_batch_size": rows},
        parallel=parallel,
        checkpoint={"save_interval": 0},  # 94 GB for the 7B
        telemetry={"peak_tflops": 0.1} if device == "cpu" else {},
    )
    steady = metrics[min(WARMUP, len(metrics) - 1) :]

    def median(field: str) -> float | None:
        values = [line[field] for line in steady]
        return None if None in values else float(f"{statistics.median(values):.4g}")

    return {
        "parameters": llama.num_parameters(),
        "gpus": gpus,
        "parallel": parallel,
        "rows_per_step": rows,
        "seq_length": size.seq_length,
        "mfu": median("mfu"),
        "tflops_per_gpu": median("tflops_per_gpu"),
        "tokens_per_second_per_gpu": round((median("tokens_per_second") or 0) / gpus, 1),
        "trained_tokens_per_second": median("trained_tokens_per_second"),
        "seconds_per_step": median("seconds"),
        "memory": steady[-1]["memory"],
    }
