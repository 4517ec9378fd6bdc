"""Doctor as a user runs it, and with libraries that are broken in the ways compiled libraries break."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from packaging.specifiers import SpecifierSet

from megatron_agent.installation.examine import examine
from megatron_agent.installation.libraries import GPU_LIBRARIES, NEEDED, import_each, in_range, wanted_versions
from megatron_agent.installation.library_findings import gpu_library_findings, importable, needed_findings
from megatron_agent.installation.machine_findings import (
    collective_findings,
    folder_finding,
    gpu_finding,
    kernel_switches,
    tokenizer_finding,
)
from megatron_agent.installation.probe import Probe
from megatron_agent.installation.table import Examination, Finding, verdict
from megatron_agent.installation.try_import import try_import
from megatron_agent.training.config import TrainConfig
from tests.chat.tiny_tokenizers import train_chatml, train_sentencepiece

H100 = {"name": "NVIDIA H100 80GB HBM3", "memory_bytes": 79 * 2**30, "compute_capability": [9, 0]}
GPU_MACHINE = {
    "cuda": True,
    "compute_capability": [9, 0],
    "transformer_engine": True,
    "wgrad_kernel": False,
    "fused_adam": "transformer_engine",
}
GPU_PROBE = Probe(
    torch="2.9.0",
    cuda_build="13.0",
    cuda=True,
    devices=[H100] * 8,
    nccl="2.27.7",
    collectives={"gloo": None, "nccl": None},
    machine=GPU_MACHINE,
)
NO_DRIVER = "OSError: libcuda.so.1: cannot open shared object file: No such file or directory"


def run_doctor(*arguments: str | Path, status: int = 0) -> str:
    command = [sys.executable, "-m", "megatron_agent.doctor", *map(str, arguments)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert process.returncode == status, process.stdout + process.stderr
    return process.stdout if status < 2 else process.stderr


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, str], None]:
    """Put a library of that module name, version and content before all others, in child processes too."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    monkeypatch.syspath_prepend(str(tmp_path))

    def put(module: str, version: str, content: str) -> None:
        name = module.split(".")[0]
        package = tmp_path.joinpath(*module.split("."))
        package.mkdir(parents=True)
        (tmp_path / name / "__init__.py").touch()
        (package / "__init__.py").write_text(content)
        metadata = tmp_path / f"{name}-{version}.dist-info" / "METADATA"
        metadata.parent.mkdir()
        metadata.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")

    return put


def transformer_engine(expect: str) -> Finding:
    failures = import_each(importable(GPU_LIBRARIES))
    return gpu_library_findings(wanted_versions(), failures, expect)[0]  # type: ignore[arg-type]


def test_help_is_quick_and_loads_no_torch() -> None:
    code = (
        "import sys, megatron_agent.doctor as doctor\n"
        "try: doctor.main(['--help'])\n"
        "except SystemExit: print('torch' in sys.modules, 'rich' in sys.modules)"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.endswith("False False\n")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_machine_without_a_gpu(tmp_path: Path) -> None:
    report = tmp_path / "doctor.json"
    output = run_doctor("--output-dir", tmp_path / "new", "--json", report)
    assert output.splitlines()[-1] == "doctor: usable on the CPU (gloo); no GPU is used"
    assert "megatron-core" in output
    found = json.loads(report.read_text())
    assert found["usable"] is True
    assert found["torch"]["collectives"] == {"gloo": None}
    rows = {finding["name"]: finding for finding in found["findings"]}
    assert rows["torch"]["found"] == f"{torch.__version__}, no CUDA"
    assert rows["write access"]["used"] == "will be made"
    assert not (tmp_path / "new").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_gpus_expected_where_there_are_none() -> None:
    lines = run_doctor("--expect", "gpu", "--quiet", status=1).splitlines()
    assert lines[-1].startswith("doctor: NOT usable: driver: nvidia-smi is not installed")
    assert any(line.startswith("GPUs: ") for line in lines[:-1])


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--expect", "tpu"], "invalid choice: 'tpu'"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--json", "/"], "--json /: expected the path of a file to write, got a folder"),
    ],
)
def test_bad_arguments(arguments: list[str], reason: str) -> None:
    assert reason in run_doctor(*arguments, status=2)


def test_a_library_that_is_well(install: Callable[[str, str, str], None]) -> None:
    install("transformer_engine.pytorch", "2.9.0+145a3121cc", "")
    finding = transformer_engine("image")
    assert (finding.state, finding.found) == ("ok", "2.9.0+145a3121cc")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            "raise ImportError('transformer_engine_torch.so: undefined symbol: _ZN3c10\\nmore')",
            "does not import: ImportError: transformer_engine_torch.so: undefined symbol: _ZN3c10",
        ),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "crashed (SIGSEGV)"),
        ("import sys; sys.exit(3)", "does not import: SystemExit: 3"),
        ("import os; print('oh', flush=True); os._exit(3)", "ended with status 3"),
    ],
)
def test_a_library_that_is_broken(install: Callable[[str, str, str], None], content: str, reason: str) -> None:
    install("transformer_engine.pytorch", "2.9.0", content)
    for expect in ("gpu", "cpu", "image"):
        finding = transformer_engine(expect)
        assert finding.state == "error"
        assert reason in finding.found
        assert finding.mend


def test_a_missing_driver_is_no_fault_of_the_library(install: Callable[[str, str, str], None]) -> None:
    install("transformer_engine.pytorch", "2.9.0", f"raise OSError({NO_DRIVER.removeprefix('OSError: ')!r})")
    states = {expect: transformer_engine(expect).state for expect in ("gpu", "image", "cpu")}
    assert states == {"gpu": "error", "image": "note", "cpu": "note"}


def test_a_version_that_megatron_core_does_not_name(install: Callable[[str, str, str], None]) -> None:
    install("transformer_engine.pytorch", "2.3.0", "")
    finding = transformer_engine("gpu")
    assert finding.state == "error"
    assert finding.found.startswith("2.3.0, expected ")
    assert ">=2.9" in finding.found


def test_an_image_without_transformer_engine() -> None:
    states = {
        expect: gpu_library_findings({}, {}, expect)[0].state  # type: ignore[arg-type]
        for expect in ("gpu", "cpu", "image")
    }
    assert states == {"gpu": "note", "cpu": "ok", "image": "error"}


def test_versions() -> None:
    assert in_range("2.9.0a0+145a3121cc.nv25.10", SpecifierSet(">=2.9,<2.12"))
    assert not in_range("2.12.0", SpecifierSet(">=2.9,<2.12"))
    assert in_range("anything", None)
    assert not in_range("not a version", SpecifierSet(">=1"))
    assert "0.16.1" in wanted_versions()["megatron-core"]


def test_megatron_core_behind_a_library_without_its_driver() -> None:
    """Megatron-core imports Transformer Engine and lets its OSError through."""
    probe = Probe(torch="2.9.0", megatron_error=NO_DRIVER)
    states = {}
    for expect in ("gpu", "image"):
        rows = needed_findings({}, {}, probe, expect)  # type: ignore[arg-type]
        states[expect] = next(row.state for row in rows if row.name == "megatron-core")
    assert states == {"gpu": "error", "image": "note"}


def test_a_needed_library_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from megatron_agent.installation import library_findings

    real = library_findings.installed_version
    monkeypatch.setattr(
        library_findings, "installed_version", lambda name: None if name == "sentencepiece" else real(name)
    )
    rows = needed_findings({"sentencepiece": SpecifierSet()}, {}, Probe(torch="2.9.0"), "cpu")
    (missing,) = [row for row in rows if row.state == "error"]
    assert (missing.name, missing.found, missing.mend) == (
        "sentencepiece",
        "not installed",
        "pip install 'sentencepiece'",
    )


def test_a_machine_with_gpus() -> None:
    assert gpu_finding(GPU_PROBE, "gpu").found == "8 x NVIDIA H100 80GB HBM3, 79.0 GB, compute capability 9.0"
    assert [finding.state for finding in collective_findings(GPU_PROBE, "gpu")] == ["ok", "ok"]
    switches, problem = kernel_switches(TrainConfig(), GPU_PROBE)
    assert problem is None
    assert switches["transformer_engine"].on
    examination = Examination("gpu", [], switches, GPU_PROBE)
    expected = "doctor: usable on 8 x NVIDIA H100 80GB HBM3 (NCCL) with Transformer Engine's layers"
    assert verdict(examination) == expected


def test_kernels_that_cannot_work_here() -> None:
    config = TrainConfig()
    config.kernels.gradient_accumulation_fusion = True
    _, problem = kernel_switches(config, GPU_PROBE)
    assert problem is not None
    assert "--kernels.gradient_accumulation_fusion true: apex's kernel" in problem.found


def test_a_collective_that_fails() -> None:
    probe = Probe(torch="2.9.0", cuda=True, nccl="2.27.7", collectives={"gloo": None, "nccl": "DistBackendError: x"})
    gloo, nccl = collective_findings(probe, "gpu")
    assert (gloo.state, nccl.state) == ("ok", "error")
    assert "2.27.7, all-reduce failed: DistBackendError: x" in nccl.found


def test_folders(tmp_path: Path) -> None:
    assert folder_finding(tmp_path / "a" / "b", asked=True).state == "ok"
    (tmp_path / "file").touch()
    assert folder_finding(tmp_path / "file" / "b", asked=True).state == "error"
    assert folder_finding(tmp_path / "file" / "b", asked=False).state == "note"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_tokenizers(tmp_path: Path) -> None:
    (tmp_path / "chatml").mkdir()
    for path in (train_sentencepiece(tmp_path), train_chatml(tmp_path / "chatml")):
        finding = tokenizer_finding(path)
        assert finding.state == "ok", finding
        assert "ids, SHA-256" in finding.found


def test_broken_tokenizers(tmp_path: Path) -> None:
    assert tokenizer_finding(tmp_path / "nowhere").state == "error"
    (tmp_path / "tokenizer.json").write_text("{}")
    broken = tokenizer_finding(tmp_path)
    assert broken.state == "error"
    assert "tokenizer.json" in broken.found


def test_all_that_is_needed_imports_here() -> None:
    assert try_import([module for library in NEEDED for module in library.modules]) is None
    failure = try_import(["numpy", "no_such_module"])
    assert failure is not None
    assert failure.reason == "ModuleNotFoundError: No module named 'no_such_module'"


def test_the_model_of_a_configuration_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from megatron_agent.installation import examine as module

    monkeypatch.setattr(module, "run_probe", lambda: GPU_PROBE)
    config = TrainConfig()
    config.model.checkpoint = str(tmp_path / "nowhere")
    config.training.output_dir = str(tmp_path / "run")
    examination = examine("cpu", config)
    (error,) = examination.errors
    assert error.name == "model"
    assert str(tmp_path / "nowhere") in error.found


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "crashed (SIGSEGV)"),
        ("raise OSError('transformer_engine_torch.so: undefined symbol: _ZN3c10')", "undefined symbol: _ZN3c10"),
    ],
)
def test_a_broken_library_is_named_not_who_imports_it(
    install: Callable[[str, str, str], None], tmp_path: Path, content: str, reason: str
) -> None:
    install("transformer_engine.pytorch", "2.9.0", content)
    lines = run_doctor("--quiet", "--output-dir", tmp_path, status=1).splitlines()
    rows = dict(line.split(": ", 1) for line in lines)
    assert rows["doctor"].startswith("NOT usable: transformer-engine: 2.9.0; does not import: ")
    assert reason in rows["doctor"]
    assert "does not import because of transformer-engine" in rows["megatron-core"]
    assert "torch" not in rows
    assert "--force-reinstall" not in "".join(lines)
