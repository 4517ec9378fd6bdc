"""Signals and time budgets: a checkpoint on all ranks, status 85, and the same losses afterwards at any layout."""

import json
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from megatron_agent.model.checkpoint_folder import complete_checkpoints, latest_checkpoint, verify_checkpoint
from megatron_agent.training.signals import EXIT_REQUEUE, TIME_BUDGET, StopClock
from tests.distributed import run_distributed
from tests.training.conftest import read_metrics
from tests.training.launching import Launcher, compared, wait_until

TP2_PP2 = {"tensor_model_parallel_size": 2, "pipeline_model_parallel_size": 2}
STEPS = 12


def steps_written(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_stop_by_signal_and_resume_at_other_layouts(
    launcher: Launcher, write_config: Callable[..., Path], tmp_path: Path
) -> None:
    """One of four ranks gets SIGTERM at a random step of TP2 x PP2; TP1 x PP2 x DP2 and one rank go on."""
    seed = random.randrange(2**32)
    generator = random.Random(seed)
    sections = {"training": {"train_iters": STEPS, "eval_interval": 4}, "data": {"cache_dir": str(tmp_path / "cache")}}
    config = write_config("whole", parallel=TP2_PP2, **sections)
    statuses, output = launcher.run(config, tmp_path / "whole.log", ranks=4)
    assert statuses == [0] * 4, output
    whole = compared(read_metrics(tmp_path / "whole"))

    config = write_config("stopped", parallel=TP2_PP2, **sections)
    run = launcher.start(config, tmp_path / "stopped.log", ranks=4)
    wanted, victim = generator.randrange(1, STEPS - 4), generator.randrange(4)
    wait_until(lambda: steps_written(tmp_path / "stopped") >= wanted)
    run.signal(victim, signal.SIGTERM)
    about = f"seed {seed}: rank {victim} after step {wanted}\n"
    assert run.wait() == [EXIT_REQUEUE] * 4, about + run.output()
    assert "SIGTERM received. Ending with status 85" in run.output()
    done = steps_written(tmp_path / "stopped")
    checkpoint = latest_checkpoint(tmp_path / "stopped" / "checkpoints")
    assert checkpoint is not None
    assert checkpoint.name == f"iter_{done:07d}", about
    verify_checkpoint(checkpoint)

    for name, parallel, ranks in (("PP2_DP2", {"pipeline_model_parallel_size": 2}, 4), ("one_rank", {}, 1)):
        shutil.copytree(tmp_path / "stopped", tmp_path / name)
        config = write_config(name, parallel=parallel, **sections)
        statuses, output = launcher.run(config, tmp_path / f"{name}.log", ranks=ranks)
        assert statuses == [0] * ranks, about + output
        resumed = compared(read_metrics(tmp_path / name))
        assert [record["step"] for record in resumed] == list(range(1, STEPS + 1)), about
        assert resumed[:done] == compared(read_metrics(tmp_path / "stopped")), about
        for ours, reference in zip(resumed, whole, strict=True):
            assert ours["loss"] == pytest.approx(reference["loss"], rel=1e-5), about
            assert ours["trained_tokens"] == reference["trained_tokens"]


def test_more_signals_do_not_break_the_checkpoint(
    launcher: Launcher, write_config: Callable[..., Path], tmp_path: Path
) -> None:
    """SIGUSR1 stops too; SIGTERM during the write changes nothing. The save in flight is waited for."""
    config = write_config(training={"train_iters": 200, "eval_interval": 0}, checkpoint={"save_interval": 3})
    run = launcher.start(config, tmp_path / "log", prepare="tests.training.faulty:slow_writes")
    wait_until(lambda: steps_written(tmp_path / "run") >= 3)
    run.signal(0, signal.SIGUSR1)
    while not run.ended(0.2):
        run.signal(0, signal.SIGTERM)
    assert run.wait() == [EXIT_REQUEUE], run.output()
    assert "SIGUSR1 received" in run.output()
    done = steps_written(tmp_path / "run")
    assert done < 200
    folders = complete_checkpoints(tmp_path / "run" / "checkpoints")
    assert folders[-1].name == f"iter_{done:07d}"
    for folder in folders:
        verify_checkpoint(folder)
    assert not list((tmp_path / "run" / "checkpoints").glob(".iter*"))


def test_time_is_up_before_the_first_step(
    launcher: Launcher, write_config: Callable[..., Path], tmp_path: Path
) -> None:
    config = write_config(reliability={"exit_duration_in_mins": 0})
    statuses, output = launcher.run(config, tmp_path / "log", ranks=2)
    assert statuses == [EXIT_REQUEUE] * 2, output
    assert "stopped before the first step: the time budget is spent" in output
    assert steps_written(tmp_path / "run") == 0
    assert complete_checkpoints(tmp_path / "run" / "checkpoints") == []


def test_the_clock_of_rank_0_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    clocks = [StopClock(0.5, rank) for rank in (0, 1)]
    unlimited = StopClock(None, 0)
    assert [clock.reason() for clock in (*clocks, unlimited)] == [0, 0, 0]
    now = 130.0
    assert [clock.reason() for clock in (*clocks, unlimited)] == [TIME_BUDGET, 0, 0]


def test_a_background_save_holds_the_state_of_its_step(
    launcher: Launcher, write_config: Callable[..., Path], tmp_path: Path
) -> None:
    """The slow write begins when later steps have changed the weights; the file is that of a run that waited."""
    files = {}
    for name, async_save in (("waited", False), ("background", True)):
        config = write_config(
            name,
            training={"train_iters": 6, "eval_interval": 3},
            checkpoint={"save_interval": 3, "async_save": async_save, "keep_last": 0},
        )
        statuses, output = launcher.run(
            config, tmp_path / f"{name}.log", ranks=2, prepare="tests.training.faulty:slow_writes"
        )
        assert statuses == [0, 0], output
        folder = tmp_path / name / "checkpoints" / "iter_0000003"
        verify_checkpoint(folder)
        files[name] = json.loads((folder / "manifest.json").read_text())["files"]
        run_file = json.loads((folder / "run.json").read_text())
        validation = read_metrics(tmp_path / name, "validation.jsonl")[1]
        assert validation["step"] == 3
        assert run_file["validation_loss"] == pytest.approx(sum(validation["loss"].values()) / 2)
    assert output.index("step 4/6") < output.index("saved ")  # training did not wait
    tensors = [name for name in files["waited"] if name.endswith(".distcp")]
    assert tensors
    for name in tensors:
        assert files["background"][name] == files["waited"][name]


def test_under_torchrun_a_stopped_run_is_resumed(write_config: Callable[..., Path], tmp_path: Path) -> None:
    """torchrun ends with 1 where its ranks ended with 85, and says so."""
    config = write_config(reliability={"exit_duration_in_mins": 0}, training={"train_iters": 2, "eval_interval": 0})
    process = run_distributed("megatron_agent.train", 1, ["--config", config], returncode=1)
    assert "exitcode  : 85" in process.stderr
    run_distributed("megatron_agent.train", 1, ["--config", config, "--reliability.exit_duration_in_mins", "null"])
    assert steps_written(tmp_path / "run") == 2
