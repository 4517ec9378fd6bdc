"""nvidia-smi's recorded output (nvidia_smi/README.md), through a program of that name on the PATH."""

from pathlib import Path

import pytest

from megatron_agent.installation.gpus import MIB, Gpu, NoDriverError, query_gpus, read_gpus, read_table, visible
from megatron_agent.installation.node_report import NodeFacts, _look_at_node, busy_problems

RECORDED = Path(__file__).parent / "nvidia_smi"
HELD = ["pid 11327 (memhog)", "pid 11328 (memhog)", "pid 11345 (gpu_burn)"]


def recorded(name: str) -> list[dict[str, str]]:
    return read_table((RECORDED / f"{name}.csv").read_text())


def gpu(index: int, uuid: str) -> Gpu:
    return Gpu(index, uuid, "NVIDIA H200", "580.65.06", 143771 * MIB, 0, (9, 0))


def install_nvidia_smi(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_a_gpu_at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = f'case "$1" in --query-gpu*) kind=gpus;; *) kind=processes;; esac; cat {RECORDED}/h100_busy_$kind.csv'
    install_nvidia_smi(tmp_path, script, monkeypatch)
    (busy,) = query_gpus()
    assert (busy.name, busy.driver, busy.compute_capability) == ("NVIDIA H100 80GB HBM3", "590.48.01", (9, 0))
    assert (busy.total_bytes, busy.used_bytes) == (81559 * MIB, 19818 * MIB)
    assert [str(process) for process in busy.processes] == [
        "pid 11327 (memhog)",
        "pid 11328 (memhog)",
        "pid 11345 (gpu_burn)",
    ]
    (line,) = busy_problems([busy])
    assert line.startswith("GPU 0 has 19.4 of 79.6 GB in use by pid 11327 (memhog), pid 11328")


def test_what_a_node_says_of_its_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = f'case "$1" in --query-gpu*) kind=gpus;; *) kind=processes;; esac; cat {RECORDED}/h100_idle_$kind.csv'
    install_nvidia_smi(tmp_path, script, monkeypatch)
    facts = NodeFacts()
    assert _look_at_node(facts, "cuda") == []
    assert (facts.gpu, facts.gpu_count, facts.driver) == ("NVIDIA H100 80GB HBM3", 1, "590.48.01")
    assert (facts.gpu_bytes, facts.compute_capability) == (81559 * MIB, (9, 0))
    install_nvidia_smi(tmp_path, f"head -1 {RECORDED}/h100_idle_gpus.csv", monkeypatch)
    assert "nvidia-smi lists no GPU" in _look_at_node(NodeFacts(), "cuda")[0]


def test_an_idle_gpu() -> None:
    (idle,) = read_gpus(recorded("h100_idle_gpus"), recorded("h100_idle_processes"))
    assert (idle.used_bytes, idle.processes) == (0, ())
    assert busy_problems([idle]) == []


def test_a_process_of_another_container_has_no_name() -> None:
    row = {"index": "7", "uuid": "GPU-28780eb0-24d5-1f13-59b8-ae5c23617a72", "name": "NVIDIA H200"}
    row |= {
        "driver_version": "580.65.06",
        "memory.total": "143771 MiB",
        "memory.used": "58071 MiB",
        "compute_cap": "9.0",
    }
    (found,) = read_gpus([row], recorded("h200_processes"))
    assert [str(process) for process in found.processes] == ["pid 1758887"]


def test_a_name_with_commas() -> None:
    rows = read_table("gpu_uuid, pid, process_name, used_gpu_memory [MiB]\nGPU-1, 12, python, -c, x, 40 MiB\n")
    assert rows == [{"gpu_uuid": "GPU-1", "pid": "12", "process_name": "python, -c, x", "used_gpu_memory": "40 MiB"}]


def test_cuda_visible_devices() -> None:
    gpus = [gpu(0, "GPU-aa11"), gpu(1, "GPU-bb22"), gpu(2, "GPU-aa33")]
    assert visible(gpus, None) == gpus
    assert visible(gpus, "") == []
    assert visible(gpus, "2,0") == [gpus[2], gpus[0]]
    assert visible(gpus, "GPU-bb") == [gpus[1]]
    assert visible(gpus, "GPU-aa") == []  # two begin so
    assert visible(gpus, "1,-1,0") == [gpus[1]]
    assert all(gpu.divided for gpu in visible(gpus, "MIG-5a9b"))


def test_a_divided_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = (RECORDED / "h100_idle_gpus.csv").read_text().splitlines()
    table = tmp_path / "gpus.csv"
    table.write_text(f"{lines[0]}, mig.mode.current\n{lines[1]}, Enabled\n")
    install_nvidia_smi(tmp_path, f"cat {table}", monkeypatch)
    (line,) = _look_at_node(NodeFacts(), "cuda")
    assert line.startswith("GPU 0: divided (MIG), training takes whole GPUs")


def test_no_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoDriverError, match="nvidia-smi is not installed"):
        query_gpus()
    (line,) = _look_at_node(NodeFacts(), "cuda")
    assert "apptainer --nv" in line
    assert "reboot" not in line
    words = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."
    install_nvidia_smi(tmp_path, f'echo "{words}"; exit 9', monkeypatch)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(NoDriverError, match=f"failed with status 9: {words}"):
        query_gpus()
