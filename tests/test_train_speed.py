"""The training-speed benchmark's own arithmetic, with contestants that only pretend to train."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megatron_agent.dataset.rows import build_row
from tests.benchmarks import train_speed
from tests.benchmarks.train_peer import conversations_of_row, micro_batches

SECONDS = {"ours": 1.0, "padded": 2.0, "padding_free": 1.25}


def pretend(name: str, folder: Path, config: Path) -> list[dict[str, Any]]:
    step = {"step": 1, "loss": 2.0, "seconds": SECONDS[name], "trained_tokens": 600, "tokens": 1024, "positions": 2048}
    time = {"data": 0.001, "forward_backward": 0.9, "reduce": 0.04, "optimizer": 0.05, "logging": 0.0}
    return [{**step, "seconds": 9.0, "time": time}, {**step, "step": 2, "time": time}]


def run(monkeypatch: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    monkeypatch.setattr(train_speed, "prepare", lambda folder, seq_length: {"data": {}, "sources": {}})
    output = folder / "result.json"
    arguments = ["train_speed", "--folder", str(folder), "--tokens", "1024", "--json", str(output)]
    monkeypatch.setattr(sys, "argv", arguments)
    train_speed.main()
    return json.loads(output.read_text())


@pytest.mark.skipif("__import__('torch').cuda.is_available()", reason="on a GPU the command measures MFU")
def test_ratios_overhead_and_losses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train_speed, "run_contestant", pretend)
    result = run(monkeypatch, tmp_path)
    assert result["ours_is_faster_by"] == {"padded": 2.0, "padding_free": 1.25}
    assert result["overhead_of_the_loop"] == pytest.approx(0.01)
    assert result["met"] is True
    assert result["rounds"] == 3
    assert "ours is 2.00 x as fast (wanted 1.5)" in capsys.readouterr().out

    def other_losses(name: str, folder: Path, config: Path) -> list[dict[str, Any]]:
        return [{**step, "loss": 2.1 if name == "padded" else 2.0} for step in pretend(name, folder, config)]

    monkeypatch.setattr(train_speed, "run_contestant", other_losses)
    with pytest.raises(SystemExit, match="not one task"):
        run(monkeypatch, tmp_path)


def test_peers_get_the_conversations_of_our_rows() -> None:
    pieces = [(np.arange(10, 15), np.array([0, 0, 1, 1, 1], bool)), (np.arange(20, 23), np.array([0, 1, 1], bool))]
    row = build_row(pieces, np.arange(2), seq_length=12)
    assert conversations_of_row(row) == [
        {"input_ids": [10, 11, 12, 13, 14], "labels": [-100, -100, 12, 13, 14]},
        {"input_ids": [20, 21, 22], "labels": [-100, 21, 22]},
    ]
    steps = micro_batches([[row] * 8, [row] * 7], padded=True)  # 16 and 14 conversations: two micro-batches each
    assert [[len(batch) for batch in step] for step in steps] == [[8, 8], [7, 7]]
    assert [len(step) for step in micro_batches([[row] * 3], padded=False)] == [3]
