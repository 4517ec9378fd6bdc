"""The GPU checks rehearsed on a CPU, so that no line of them runs for the first time on a GPU."""

import json
import sys
from pathlib import Path

import pytest
import torch

from tests.gpu import comparisons
from tests.gpu.__main__ import CHECKS, main
from tests.gpu.record import hardware, versions, write_result

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="tests/gpu runs the real thing here")


def test_nothing_here_imports_transformer_engine() -> None:
    assert not any(name.split(".")[0] == "transformer_engine" for name in sys.modules)


@pytest.mark.parametrize("check", [name for name in CHECKS if name != "layouts"])
def test_check_passes_on_a_cpu(check: str, tmp_path: Path) -> None:
    result = CHECKS[check]("cpu", tmp_path)
    assert result["met"], result
    json.dumps(result)
    if check in ("specs", "adam"):  # twice the same run
        assert result["largest_loss_difference"] == 0
    if check == "mfu":
        tiny = result["shapes"]["tiny"]
        assert tiny["mfu"] == pytest.approx(tiny["tflops_per_gpu"] / 0.1, rel=0.01)
        assert not list(tmp_path.rglob("iter_*"))


def test_layouts_are_compared_or_named_as_not_run(tmp_path: Path) -> None:
    result = comparisons.layouts("cpu", tmp_path, ("TP2_SP", "DP8"))
    assert result["met"], result
    assert list(result["layouts"]) == ["TP2_SP"]
    assert result["not_run"] == {"DP8": "needs 8 GPUs, 2 are here"}


def test_command_refuses_where_no_gpu_is_and_records_where_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="no GPU here"):
        main(["attention"])
    with pytest.raises(SystemExit) as ended:
        main(["attention", "--device", "cpu", "--json", str(tmp_path / "r.json")])
    assert ended.value.code == 0
    record = json.loads((tmp_path / "r.json").read_text())
    assert record["check"] == "attention"
    assert record["met"] is True
    assert record["kernel"] == "SegmentedAttention"
    assert "cores" in record["hardware"]
    assert "torch" in record["versions"]
    assert "wrote" in capsys.readouterr().out


def test_a_difference_beyond_the_tolerance_is_not_met(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The comparison sees what it must: one run with another learning rate."""
    untouched = comparisons.train

    def other_rate(inputs, name, nproc=1, **sections):  # type: ignore[no-untyped-def]
        rate = {"optimizer": {"lr": 3e-3}} if name == "fused" else {}
        return untouched(inputs, name, nproc, **sections, **rate)

    monkeypatch.setattr(comparisons, "train", other_rate)
    assert not comparisons.fused_adam("cpu", tmp_path)["met"]


def test_hardware_of_a_gpu_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Properties:
        name, total_memory, major, minor = "NVIDIA H100 80GB HBM3", 80 * 2**30, 9, 0

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: Properties())
    monkeypatch.setattr(torch.cuda.nccl, "version", lambda: (2, 27, 3))
    found = hardware("cuda")
    assert found["gpus"] == ["NVIDIA H100 80GB HBM3"] * 2
    assert found["compute_capability"] == ["9.0"]
    assert found["nccl"] == "2.27.3"
    write_result("attention", "cuda", {"met": True}, tmp_path / "deep" / "r.json")
    assert json.loads((tmp_path / "deep" / "r.json").read_text())["hardware"]["memory_gib"] == [80.0, 80.0]
    assert versions()["torch"]
