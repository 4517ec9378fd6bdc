"""A run killed anywhere and started again writes the same metrics as one that was never interrupted."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.distributed import run_distributed
from tests.training.conftest import TinyInputs, read_metrics, write_documents, write_tiny_config

WORKER = str(Path(__file__).with_name("killed.py"))
COMPARED = ("step", "loss", "grad_norm", "lr", "tokens", "trained_tokens", "source_loss")
# Dropout is on: a resume must repeat it too.
TRAINING = {"train_iters": 8, "hidden_dropout": 0.1, "global_batch_size": 2}


def compared(metrics: list[dict]) -> list[dict]:
    return [{name: record[name] for name in COMPARED} for record in metrics]


def run(arguments: list[str]) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def uninterrupted(tiny_inputs: TinyInputs, tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """Metrics of the run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    config = write_tiny_config(
        tiny_inputs, folder, training=TRAINING, checkpoint={"save_interval": 3, "async_save": False}
    )
    result = run(["-m", "megatron_agent.train", "--config", str(config)])
    assert result.returncode == 0, result.stderr
    return compared(read_metrics(folder / "run"))


@pytest.mark.parametrize(("point", "step"), [("step", 6), ("tensors", 6), ("rename", 6)])
def test_kill_and_resume_is_identical(
    point: str, step: int, write_config: Callable[..., Path], tmp_path: Path, uninterrupted: list[dict]
) -> None:
    config = write_config("killed", training=TRAINING, checkpoint={"save_interval": 3, "async_save": False})
    killed = run([WORKER, point, str(step), "--config", str(config)])
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    checkpoints = sorted(path.name for path in (tmp_path / "killed" / "checkpoints").glob("iter_*"))
    assert checkpoints == ["iter_0000003"]  # nothing of step 6 looks complete

    resumed = run(["-m", "megatron_agent.train", "--config", str(config)])
    assert resumed.returncode == 0, resumed.stderr
    assert "after step 3" in resumed.stdout
    assert compared(read_metrics(tmp_path / "killed")) == uninterrupted


@pytest.mark.parametrize(
    ("first", "then", "nproc", "precision", "hidden_dropout"),
    [
        ({}, {}, 2, "bf16", 0.1),
        ({"tensor_model_parallel_size": 2}, {"pipeline_model_parallel_size": 2}, 2, "fp32", 0.0),
    ],
    ids=["DP2_bf16", "TP2_to_PP2"],
)
def test_parallel_runs_resume(
    first: dict,
    then: dict,
    nproc: int,
    precision: str,
    hidden_dropout: float,
    write_config: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """Stopped after step 3 of 6, then the same or another layout: the remaining steps are those of one long run."""
    training = {"train_iters": 6, "precision": precision, "hidden_dropout": hidden_dropout}
    sections = {"training": training, "checkpoint": {"save_interval": 3, "keep_last": 0}}
    config = write_config("whole", parallel=first, **sections)
    run_distributed("megatron_agent.train", nproc, ["--config", config])
    whole = compared(read_metrics(tmp_path / "whole"))

    config = write_config("stopped", parallel=then, **sections)
    shutil.copytree(
        tmp_path / "whole" / "checkpoints" / "iter_0000003", tmp_path / "stopped" / "checkpoints" / "iter_0000003"
    )
    run_distributed("megatron_agent.train", nproc, ["--config", config])
    resumed = compared(read_metrics(tmp_path / "stopped"))
    assert [record["step"] for record in resumed] == [4, 5, 6]
    if first == then:
        assert resumed == whole[3:]
    else:
        for ours, reference in zip(resumed, whole[3:], strict=True):
            assert ours["loss"] == pytest.approx(reference["loss"], rel=1e-5)
            assert ours["grad_norm"] == pytest.approx(reference["grad_norm"], rel=1e-4)


@pytest.fixture(scope="module")
def finished(tiny_inputs: TinyInputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Configuration of a run of two steps that has ended."""
    config = write_tiny_config(tiny_inputs, tmp_path_factory.mktemp("finished"), training={"train_iters": 2})
    assert run(["-m", "megatron_agent.train", "--config", str(config)]).returncode == 0
    return config


def test_a_finished_run_does_nothing_more(finished: Path) -> None:
    before = read_metrics(finished.parent / "run")
    assert run(["-m", "megatron_agent.train", "--config", str(finished)]).returncode == 0
    assert read_metrics(finished.parent / "run") == before
    assert [record["step"] for record in before] == [1, 2]


def test_other_data_is_refused_on_resume(finished: Path) -> None:
    refused = run(["-m", "megatron_agent.train", "--config", str(finished), "--data.eta", "0.9"])
    assert refused.returncode == 2
    assert "--data.eta was 0.5, is 0.9" in refused.stderr


def test_rebuilt_data_is_refused_on_resume(finished: Path, tiny_inputs: TinyInputs, tmp_path: Path) -> None:
    """The same prefixes, other contents."""
    for source in tiny_inputs.data.glob("*.*"):
        shutil.copy(source, tmp_path)
    write_documents(tmp_path / "agent", 60, seed=77)
    sources = {name: f"[{{name: {name}, prefix: {tmp_path / name}}}]" for name in ("agent", "general")}
    arguments = ["--data.agent", sources["agent"], "--data.general", sources["general"]]
    refused = run(["-m", "megatron_agent.train", "--config", str(finished), *arguments])
    assert refused.returncode == 2
    assert "other data" in refused.stderr


@pytest.mark.parametrize("damage", ["cut", "altered"])
def test_a_damaged_checkpoint_is_refused(damage: str, finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished.parent / "run" / "checkpoints", tmp_path / "checkpoints")
    victim = next((tmp_path / "checkpoints").rglob("*.distcp"))
    content = bytearray(victim.read_bytes())
    if damage == "cut":
        content = content[:-1]
    else:
        content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    refused = run(["-m", "megatron_agent.train", "--config", str(finished), "--training.output_dir", str(tmp_path)])
    assert refused.returncode == 2
    assert victim.name in refused.stderr
