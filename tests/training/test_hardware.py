"""Peak TFLOP/s by the names that CUDA gives to GPUs, against NVIDIA's data sheets."""

import subprocess
import sys

import pytest

from megatron_agent.training.config import TrainConfig
from megatron_agent.training.hardware import peak_tflops, training_peak


@pytest.mark.parametrize(
    ("name", "bf16_with_sparsity"),  # as printed on the data sheet
    [
        ("NVIDIA A100-SXM4-80GB", 624),
        ("NVIDIA A100-PCIE-40GB", 624),
        ("NVIDIA A800-SXM4-80GB", 624),
        ("NVIDIA H100 80GB HBM3", 1979),
        ("NVIDIA H100 PCIe", 1513),
        ("NVIDIA H100 NVL", 1671),
        ("NVIDIA H800", 1979),
        ("NVIDIA H200", 1979),
        ("NVIDIA H200 NVL", 1671),
        ("NVIDIA GH200 480GB", 1979),
        ("NVIDIA H20", 296),
        ("NVIDIA B200", 4500),
        ("NVIDIA GB200", 5000),
        ("NVIDIA L40S", 724.1),
        ("NVIDIA L40", 362.1),
        ("NVIDIA L4", 242),
        ("NVIDIA A40", 299.4),
        ("NVIDIA RTX A6000", 309.7),
        ("NVIDIA RTX 6000 Ada Generation", 728.5),
        ("NVIDIA GeForce RTX 4090", 330.4),
        ("NVIDIA GeForce RTX 3090", 142),
        ("NVIDIA GeForce RTX 5090", 419),
    ],
)
def test_dense_bf16_is_half_of_the_data_sheet(name: str, bf16_with_sparsity: float) -> None:
    assert peak_tflops(name, "bf16") == pytest.approx(bf16_with_sparsity / 2, rel=1e-3)
    fp8 = peak_tflops(name, "fp8")
    assert fp8 is None or fp8 == pytest.approx(bf16_with_sparsity, rel=0.02)  # FP8 runs at twice the rate of bf16


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA A100-SXM4-80GB MIG 3g.40gb",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA A100X",
        "NVIDIA GeForce RTX 3090 Ti",
        "Tesla T4",
        "AMD Instinct MI300X",
        "CPU",
    ],
)
def test_what_is_not_in_the_table_has_no_peak(name: str) -> None:
    assert peak_tflops(name, "bf16") is None


def test_other_precisions() -> None:
    assert peak_tflops("NVIDIA A100-SXM4-80GB", "fp8") is None  # no FP8 before Ada and Hopper
    assert peak_tflops("NVIDIA A100-SXM4-80GB", "tf32") == 156
    assert peak_tflops("NVIDIA H100 80GB HBM3", "fp32") == 67
    assert peak_tflops("Tesla V100-SXM2-32GB", "bf16") is None


def config(precision: str, fp8: str | None = None, peak: float | None = None) -> TrainConfig:
    config = TrainConfig()
    config.training.precision, config.kernels.fp8, config.telemetry.peak_tflops = precision, fp8, peak  # type: ignore
    return config


@pytest.mark.parametrize(
    ("settings", "tf32_allowed", "peak", "said"),
    [
        (("bf16",), False, 989.5, "of 989.5 TFLOP/s a GPU (NVIDIA H200, bf16, dense)"),
        (("bf16", "hybrid"), False, 1979, "of 1,979 TFLOP/s a GPU (NVIDIA H200, fp8, dense)"),
        (("fp32",), False, 67, "of 67 TFLOP/s a GPU (NVIDIA H200, fp32, dense)"),
        (("fp32",), True, 494.5, "of 494.5 TFLOP/s a GPU (NVIDIA H200, tf32, dense)"),
        (("bf16", None, 700.0), False, 700.0, "of 700 TFLOP/s a GPU (--telemetry.peak_tflops)"),
    ],
)
def test_a_run_says_what_mfu_is_measured_against(settings: tuple, tf32_allowed: bool, peak: float, said: str) -> None:
    assert training_peak(config(*settings), "NVIDIA H200", tf32_allowed) == (peak, said)


def test_a_cpu_has_no_mfu_and_says_so() -> None:
    peak, said = training_peak(config("fp32"), "CPU", False)
    assert peak is None
    assert said == "not reported: peak of CPU in fp32 unknown; give --telemetry.peak_tflops"


def test_no_torch_is_imported() -> None:
    code = "import sys, megatron_agent.training.hardware; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
