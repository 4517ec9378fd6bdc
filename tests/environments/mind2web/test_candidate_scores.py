"""The ranker's scores: read from pickles of every protocol, and nothing but numbers."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megatron_agent.environments.mind2web.candidate_scores import find_scores, read_ranks
from megatron_agent.errors import UserError


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_with_numbers_of_python_and_numpy(tmp_path: Path, protocol: int) -> None:
    ranks: dict[str, dict[str, Any]] = {
        "task_a": {"10": 0, "11": np.int64(1), "12": np.int32(2), "13": np.array([3], dtype=">i4")[0]},
        "task_b": {"20": np.uint8(200), "21": np.float64(1.0)},
    }
    scores = {"task_a": {"10": np.float32(0.5), "11": 0.25, "12": np.float16(0.125)}, "task_b": {}}
    path = tmp_path / "scores_all_data.pkl"
    path.write_bytes(pickle.dumps({"scores": scores, "ranks": ranks}, protocol))
    read = read_ranks(path)
    assert read == {"task_a": {"10": 0, "11": 1, "12": 2, "13": 3}, "task_b": {"20": 200, "21": 1.0}}
    assert {type(rank) for ranking in read.values() for rank in ranking.values()} <= {int, float}


class Runs:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch RAN",)


class Evaluates:
    def __reduce__(self) -> tuple[Any, ...]:
        return eval, ("open('RAN', 'w')",)


@pytest.mark.parametrize("hostile", [Runs(), Evaluates(), np.array([1]), np.str_("x"), Path("x"), {1}.__class__, print])
def test_pickles_with_anything_else_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hostile: object
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "scores_all_data.pkl"
    for protocol in (0, 2, 5):
        path.write_bytes(pickle.dumps({"ranks": {"task_a": {"10": hostile}}}, protocol))
        with pytest.raises(UserError, match="expected candidate scores: UnpicklingError"):
            read_ranks(path)
    assert not Path("RAN").exists()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("s.pkl", b"", "expected candidate scores: EOFError"),
        ("s.pkl", b"\x80\x05garbage", "expected candidate scores"),
        ("s.pkl", pickle.dumps([1]), 'found no "ranks"'),
        ("s.json", b"{", "expected candidate scores: JSONDecodeError"),
        ("s.json", b'{"scores": {}}', 'found no "ranks"'),
        ("s.json", b'{"ranks": {"a": [1]}}', "\"ranks\" of 'a': expected {node: rank}, got list"),
    ],
)
def test_damaged_scores(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_ranks(tmp_path / name)
    assert words in str(caught.value)
    with pytest.raises(UserError, match="cannot be read"):
        read_ranks(tmp_path / "missing.pkl")


def test_scores_are_found_beside_the_tasks(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "data_std"
    folder.mkdir(parents=True)
    assert find_scores(folder) is None
    scores = tmp_path / "data" / "scores_all_data.pkl"
    scores.touch()
    assert find_scores(folder) == find_scores(folder / "std_0.json") == scores
    (folder / "scores_all_data.json").write_text(json.dumps({"ranks": {}}))
    assert find_scores(folder) == folder / "scores_all_data.json"
