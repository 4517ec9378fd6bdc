"""The benchmark of the environments measures what it says; how fast they are is not tested here."""

import json
import os
from pathlib import Path

import pytest

from megatron_agent.errors import UserError
from tests.benchmarks.environment_speed import BARS, main

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "guess_number.py"


def test_a_world_is_measured_and_the_cores_are_given_back(tmp_path: Path) -> None:
    cores = os.sched_getaffinity(0)
    main(["--task", str(EXAMPLE), "--seconds", "0.05", "--limit", "3", "--json", str(tmp_path / "f.json")])
    figures = json.loads((tmp_path / "f.json").read_text())["guess_number"]
    assert (figures["tasks"], figures["steps"], figures["bar"]) == (3, 3, None)
    assert all(figures[name] > 0 for name in ("environment", "loop", "loop_by_cpu_time", "32_at_once"))
    assert os.sched_getaffinity(0) == cores
    assert (BARS["alfworld"], BARS["database"]) == (10, 1000)


def test_an_expert_that_fails_is_not_measured(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text(EXAMPLE.read_text().replace("guess[{task.number}]", "guess[{task.number + 1}]"))
    with pytest.raises(UserError, match=r"the expert got 0.0 on guess_1 \(limit reached\)"):
        main(["--task", str(wrong), "--seconds", "0.05"])
