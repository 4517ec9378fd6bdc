"""The board without processes: who counts as missing, who may write."""

import os
import resource
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch.distributed as dist

from megatron_agent.installation.gather import Board, collect, open_board
from megatron_agent.installation.libraries import Library, import_together
from megatron_agent.installation.place import Place


def test_only_a_new_sign_of_life_counts() -> None:
    """Rank 0 hashed for a while before it looked: a rank that died meanwhile is not waited for twice."""
    board = Board(dist.HashStore())
    board.write("alive/1", 17.5)
    board.write("report/2", "here")
    start = time.monotonic()
    assert collect(board, "report", [1, 2], 0.4) == ({2: "here"}, [1])
    assert time.monotonic() - start < 0.8


def test_a_rank_that_gives_signs_of_life_is_waited_for() -> None:
    board = Board(dist.HashStore())
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(collect, board, "report", [1], 0.3)
        for number in range(8):
            board.write("alive/1", number)
            time.sleep(0.1)
        board.write("report/1", "late")
        assert waiting.result() == ({1: "late"}, [])


def test_slow_imports_give_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow.py").write_text("import time; time.sleep(1.2)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    signs: list[float] = []
    slow = Library("slow", ("slow",), "")
    assert import_together([slow], lambda: signs.append(time.monotonic())) == {}
    assert signs


def test_rank_0_may_hold_the_connections_of_all_ranks() -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1] // 2, limits[1]))
    try:
        open_board(Place(rank=0, world_size=1, local_rank=0, node="node1", address="127.0.0.1", port=0), timeout=5)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (limits[1], limits[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
