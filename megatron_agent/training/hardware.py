"""What a GPU can do at most: the denominator of MFU. No torch import."""

import re
from typing import Literal

from megatron_agent.training.config import TrainConfig

Precision = Literal["fp8", "bf16", "tf32", "fp32"]

# Dense TFLOP/s with fp32 accumulation, in the order (fp8, bf16, tf32, fp32); None: not supported. NVIDIA's data
# sheets print tensor-core figures of most of these GPUs with 2:4 sparsity: here is half of those. The first pattern
# that is found in the name torch.cuda.get_device_name() gives counts, so a longer name stands before a shorter one.
_PEAKS: tuple[tuple[str, tuple[float | None, ...]], ...] = (
    # NVIDIA Blackwell architecture technical brief; HGX B200 and GB200 NVL72 data sheets
    (r"GB200", (5000, 2500, 1250, 80)),
    (r"B200", (4500, 2250, 1100, 75)),
    (r"B100", (3500, 1750, 900, 60)),
    # H100, H200 and GH200 data sheets; H800 and A800 differ from H100 and A100 in their links only
    (r"H20\b", (296, 148, 74, 44)),
    (r"GH200", (1979, 989.5, 494.5, 67)),
    (r"H[12]00 NVL", (1670.5, 835.5, 417.5, 60)),
    (r"H[18]00 PCIe", (1513, 756.5, 378, 51)),
    (r"H(100|200|800)\b", (1979, 989.5, 494.5, 67)),
    # Data sheets of A100, A40, A30, A10
    (r"A[18]00\b", (None, 312, 156, 19.5)),
    (r"A40\b", (None, 149.7, 74.8, 37.4)),
    (r"A30\b", (None, 165, 82, 10.3)),
    (r"A10\b", (None, 125, 62.5, 31.2)),
    # Data sheets of L40S, L40, L4
    (r"L40S\b", (733, 362.05, 183, 91.6)),
    (r"L40\b", (362, 181.05, 90.5, 90.5)),
    (r"L4\b", (242.5, 121, 60, 30.3)),
    # GA102 and Ada whitepapers, RTX Blackwell whitepaper
    (r"RTX 6000 Ada", (728.5, 364.2, 182.1, 91.1)),
    (r"RTX A6000", (None, 154.8, 77.4, 38.7)),
    (r"RTX 5090\b", (419, 209.5, 104.8, 104.8)),
    (r"RTX 4090\b", (330.3, 165.2, 82.6, 82.6)),
    (r"RTX 3090\b(?! Ti)", (None, 71, 35.6, 35.6)),
    (r"V100\b", (None, None, None, 15.7)),
)
_SMALLER = re.compile(r"\bMIG\b|Laptop|Max-Q|RTX 4090 D|RTX 5090 D|A100X|GRID")
_COLUMNS: tuple[Precision, ...] = ("fp8", "bf16", "tf32", "fp32")


def peak_tflops(device_name: str, precision: Precision) -> float | None:
    """Return the peak dense TFLOP/s of one GPU by the name CUDA gives it; None when it is not in the table.

    A slice of a GPU (MIG) and a reduced version of it (laptops) are not the GPU and give None too. `tf32` is what
    fp32 matrix products run at where TF32 is allowed.
    """
    if _SMALLER.search(device_name):
        return None
    for pattern, peaks in _PEAKS:
        if re.search(rf"\b{pattern}", device_name):
            return peaks[_COLUMNS.index(precision)]
    return None


def training_peak(config: TrainConfig, device_name: str, tf32_allowed: bool) -> tuple[float | None, str]:
    """Return the peak TFLOP/s that MFU of this run is measured against (None: no MFU), and the line that says so.

    `device_name` is CUDA's name of the GPU, or "CPU"; `tf32_allowed` is `torch.backends.cuda.matmul.allow_tf32`.
    """
    precision: Precision = "fp8" if config.kernels.fp8 else config.training.precision
    if precision == "fp32" and tf32_allowed:
        precision = "tf32"
    given = config.telemetry.peak_tflops
    if given is not None:
        return given, f"of {given:,g} TFLOP/s a GPU (--telemetry.peak_tflops)"
    peak = peak_tflops(device_name, precision)
    if peak is None:
        return None, f"not reported: peak of {device_name} in {precision} unknown; give --telemetry.peak_tflops"
    return peak, f"of {peak:,g} TFLOP/s a GPU ({device_name}, {precision}, dense)"
