"""metrics.jsonl, the console, TensorBoard and W&B: what a run tells, read back by the tools themselves."""

import json
import os
import re
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from megatron_agent.dataset.rows import PackedRows
from megatron_agent.errors import UserError
from megatron_agent.files import append_json_line
from megatron_agent.training.config import TrainConfig, parse_config
from megatron_agent.training.memory import peak_rss
from megatron_agent.training.sections import TelemetrySection
from megatron_agent.training.step import StepResult
from megatron_agent.training.step_record import StepWork, step_record
from megatron_agent.training.telemetry import Telemetry, curves, drop_lines_after, long_line
from megatron_agent.training.tensorboard_run import TensorboardRun
from megatron_agent.training.wandb_run import RUN_ID_FILE, WandbRun, check_wandb
from tests.distributed import REPOSITORY, run_distributed
from tests.training.conftest import read_metrics

PARTS = {
    "data": 0.5,
    "forward_backward": 2.0,
    "reduce": 0.5,
    "optimizer": 0.5,
    "other": 0.5,
    "checkpoint": 7.0,
    "evaluation": 1.0,
    "logging": 0.25,
}


def record(step: int = 3, loss: float = 2.5, **changed: Any) -> dict[str, Any]:
    report = torch.tensor([[30.0, 10.0], [0.0, 0.0], [70.0, 30.0]], dtype=torch.float64)
    work = StepWork(tokens=80, flops=6e15, world_size=4, peak_tflops=1000.0)
    values = {
        "result": StepResult(loss, 1.5, report, applied=True, flags=[], micro_batches_not_finite=[]),
        "work": work,
        **changed,
    }
    return step_record(
        step=step,
        lr=1e-4,
        source_names=["agent", "gpt-4", "gpt-3.5"],
        seconds=4.0,
        parts=PARTS,
        memory={"allocated": 2**30, "reserved": 3 * 2**30},
        **values,
    )


def test_fields_by_hand() -> None:
    assert record() == {
        "step": 3,
        "loss": 2.5,
        "grad_norm": 1.5,
        "lr": 1e-4,
        "trained_tokens": 40,
        "tokens": 80,
        "seconds": 4.0,
        "tokens_per_second": 20.0,
        "trained_tokens_per_second": 10.0,
        "world_size": 4,
        "tflops_per_gpu": 375.0,  # 6e15 in 4 s on 4 ranks
        "mfu": 0.375,
        "source_loss": {"agent": 3.0, "gpt-3.5": 70 / 30},  # gpt-4 had no trained token
        "time": PARTS,
        "memory": {"allocated": 2**30, "reserved": 3 * 2**30},
    }


def test_unknown_peak_and_bad_numbers_are_null() -> None:
    bad = record(loss=float("nan"), work=StepWork(80, 6e15, 4, None))
    assert (bad["loss"], bad["mfu"], bad["tflops_per_gpu"]) == (None, None, 375.0)
    json.loads(json.dumps(bad, allow_nan=False))
    assert "train/loss" not in curves(bad)
    assert "train/mfu" not in curves(bad)
    assert "loss nan" in long_line(bad)
    assert "MFU" not in long_line(bad)


def test_the_console_line() -> None:
    assert long_line(record()) == (
        "loss 2.5000 | grad norm 1.500 | lr 1.000e-04 | 20 tokens/s | 375 TFLOP/s/GPU (MFU 37.5%) | 3.0 GiB"
    )


def test_drop_lines_after(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for step in range(1, 6):
        append_json_line(path, {"step": step})
    with open(path, "a") as handle:
        handle.write('{"step": 6, "lo')
    drop_lines_after(path, 3)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3]


def test_drop_lines_of_a_run_that_never_started(tmp_path: Path) -> None:
    drop_lines_after(tmp_path / "metrics.jsonl", 0)
    assert not (tmp_path / "metrics.jsonl").exists()


def read_tensorboard(folder: Path) -> dict[str, dict[int, float]]:
    """Return the curves as TensorBoard itself reads them: value by step by name."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {name: {event.step: event.value for event in events.Scalars(name)} for name in events.Tags()["scalars"]}


def test_tensorboard_forgets_steps_that_are_done_again(tmp_path: Path) -> None:
    """Restarted after step 2, then from nothing."""
    for start_step, steps, read in (
        (0, (1, 2, 3, 4), {1: 1.0, 2: 2.0, 3: 3.0, 4: 4.0}),
        (2, (3,), {1: 1.0, 2: 2.0, 3: 4.0}),
        (0, (1,), {1: 1.0}),
    ):
        run = TensorboardRun(tmp_path, start_step)
        for step in steps:
            run.log(step, {"train/loss": step + 0.5 * start_step})
        run.close()
        assert read_tensorboard(tmp_path) == {"train/loss": read}
        time.sleep(1.1)  # TensorBoard reads files in the order of the second in their name


def test_a_run_on_two_ranks(write_config: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines of a real run against its data, its clock and the formula of its FLOPs."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    config_file = write_config(
        "run",
        training={"train_iters": 4, "eval_interval": 2},
        checkpoint={"save_interval": 2},
        telemetry={"log_interval": 3, "peak_tflops": 0.5, "wandb_project": "tests"},
    )
    printed = run_distributed("megatron_agent.train", 2, ["--config", config_file]).stdout
    output = tmp_path / "run"
    lines = read_metrics(output)
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert re.findall(r"^step (\d)/4 \| loss", printed, re.MULTILINE) == ["3", "4"]
    assert re.search(r"MFU +of 0.5 TFLOP/s a GPU \(--telemetry.peak_tflops\)", printed)

    config = parse_config(["--config", str(config_file)])
    rows = PackedRows(config.data, config.num_rows)
    weights = 4 * (64 * (4 + 2 * 2) * 16 + 64 * 64 + 3 * 64 * 96)
    for line in lines:
        step_rows = [rows.row(i) for i in range(4 * line["step"] - 4, 4 * line["step"])]
        lengths = np.concatenate([np.diff(row.cu_seqlens)[row.segment_sources >= 0] for row in step_rows])
        trained = sum(row.loss_mask.sum() for row in step_rows)
        flops = 6 * (weights * lengths.sum() + 64 * 301 * trained) + 4 * 6 * 64 * (lengths**2).sum()
        assert line["tflops_per_gpu"] == pytest.approx(flops / line["seconds"] / 2 / 1e12, rel=1e-9)
        assert line["mfu"] == pytest.approx(line["tflops_per_gpu"] / 0.5, rel=1e-9)
        assert line["trained_tokens"] == sum(row.loss_mask.sum() for row in step_rows)
        assert line["tokens_per_second"] == pytest.approx(4 * 64 / line["seconds"])
        inside = ("data", "forward_backward", "reduce", "optimizer", "other")
        assert sum(line["time"][part] for part in inside) == pytest.approx(line["seconds"], rel=1e-6)
        assert all(line["time"][part] > 0 for part in inside)
        assert line["memory"]["rss"] > 50 * 2**20
    # The save after step 2 goes on in the background and is put in place when it is done.
    assert lines[0]["time"]["checkpoint"] == 0 < lines[2]["time"]["checkpoint"]
    assert [line["time"]["evaluation"] > 0 for line in lines] == [True, False, True, False]

    curves_read = read_tensorboard(output / "tensorboard")
    for name in ("loss", "mfu", "trained_tokens_per_second"):
        assert curves_read[f"train/{name}"] == pytest.approx({line["step"]: line[name] for line in lines})
    assert curves_read["time/reduce"] == pytest.approx({line["step"]: line["time"]["reduce"] for line in lines})
    for source in ("agent", "general"):
        held_out = {line["step"]: line["loss"][source] for line in read_metrics(output, "validation.jsonl")}
        assert curves_read[f"validation_loss/{source}"] == pytest.approx(held_out)
    assert [step for step, _ in read_wandb(output, "train/loss")] == [1, 2, 3, 4]
    assert dict(read_wandb(output, "train/loss")) == pytest.approx({line["step"]: line["loss"] for line in lines})


def read_wandb(output_dir: Path, name: str) -> list[tuple[int, float]]:
    """Return `(step, value)` of a curve from the files of W&B's offline runs, in the order they were made."""
    from wandb.proto.wandb_internal_pb2 import Record

    found = []
    for file in sorted(output_dir.glob("wandb/offline-run-*/*.wandb")):
        for data in leveldb_records(file.read_bytes(), header=7):
            entry = Record()
            entry.ParseFromString(data)
            values = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in entry.history.item}
            if name in values:
                found.append((values["step"], values[name]))
    return found


def leveldb_records(log: bytes, header: int) -> Iterator[bytes]:
    """Yield the records of a log in LevelDB's format: blocks of 32 KiB, pieces with checksum, length and kind."""
    position, record = header, b""
    while position + 7 <= len(log):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", log, position)
        record += log[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield record
            record = b""


def test_wandb_goes_on_with_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resume from an older checkpoint: the same run, and the repeated step is not dropped."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    for steps in ((1, 2, 3), (3, 4)):
        run = WandbRun(TelemetrySection(wandb_project="tests"), tmp_path, {"seed": 1})
        for step in steps:
            run.log(step, {"train/loss": float(step)})
        run.close()
        time.sleep(1.1)  # W&B names the folder of a start by its second
    assert [step for step, _ in read_wandb(tmp_path, "train/loss")] == [1, 2, 3, 3, 4]
    run_id = (tmp_path / RUN_ID_FILE).read_text().strip()
    files = list(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    assert {file.name for file in files} == {f"run-{run_id}.wandb"}


def test_wandb_without_a_login_is_one_message(tmp_path: Path) -> None:
    """In a fresh process: wandb reads its environment once."""
    code = (
        "from pathlib import Path\nfrom megatron_agent.errors import run_command\n"
        "from megatron_agent.training.sections import TelemetrySection\n"
        "from megatron_agent.training.wandb_run import WandbRun\n"
        f"run_command(lambda: WandbRun(TelemetrySection(wandb_project='tests'), Path({str(tmp_path)!r}), {{}}))"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    environment |= {"HOME": str(tmp_path), "PYTHONPATH": str(REPOSITORY)}  # no ~/.netrc
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 2, result.stderr
    assert re.search(r"error: --telemetry.wandb_project tests: .*`wandb login`.*WANDB_MODE=offline", result.stderr)


def test_wandb_missing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"--telemetry.wandb_project tests needs the package wandb.*pip install wandb"):
        check_wandb(TelemetrySection(wandb_project="tests"))
    check_wandb(TelemetrySection())


def test_tensorboard_can_be_switched_off(tmp_path: Path) -> None:
    config = TrainConfig()
    config.training.output_dir, config.telemetry.tensorboard = str(tmp_path), False
    telemetry = Telemetry(config, 0)
    telemetry.log_step(record())
    telemetry.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.jsonl"]
    assert read_metrics(tmp_path) == [record()]


@pytest.mark.parametrize("peak", ["0", "-1", ".inf", ".nan"])
def test_an_impossible_peak_is_refused(peak: str) -> None:
    with pytest.raises(UserError, match=r"--telemetry.peak_tflops must be greater than 0 and finite"):
        parse_config(["--model.config", "llama-2-7b", "--data.agent", "[{prefix: x}]", "--data.general",
                      "[{prefix: y}]", f"--telemetry.peak_tflops={peak}"])  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_rss_counts_what_was_touched_and_freed() -> None:
    before = peak_rss()
    block = np.ones(64 * 2**20 // 8 + before // 8)  # more than all this process ever held
    assert peak_rss() - before > 60 * 2**20
    size = peak_rss()
    del block
    assert peak_rss() >= size - 2**20
