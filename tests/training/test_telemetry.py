"""metrics.jsonl survives kills: lines of steps to be repeated, and a line cut in the middle, go away."""

import json
from pathlib import Path

from megatron_agent.files import append_json_line
from megatron_agent.training.telemetry import drop_lines_after


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
