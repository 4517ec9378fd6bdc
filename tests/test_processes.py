"""Work spread over processes: order, what is held ahead, and how it ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from megatron_agent.errors import UserError
from megatron_agent.processes import map_in_order

REPOSITORY = Path(__file__).resolve().parents[1]


def slow_square(number: int) -> tuple[int, int]:
    time.sleep(0.02 if number % 3 == 0 else 0)
    return number * number, os.getpid()


def fail_at_five(number: int) -> int:
    if number == 5:
        raise UserError("five")
    return number


def die_at_five(number: int) -> int:
    if number == 5:
        os._exit(9)
    return number


def missing_extra() -> None:
    raise UserError("an extra is missing")


def test_results_come_in_order_and_tasks_are_not_hoarded() -> None:
    taken = 0

    def tasks() -> Iterator[int]:
        nonlocal taken
        for number in range(40):
            taken += 1
            yield number

    squares, processes = [], set()
    for done, (square, process) in enumerate(map_in_order(slow_square, tasks(), 2)):
        squares.append(square)
        processes.add(process)
        assert taken <= done + 2 * 2 + 1
    assert squares == [number * number for number in range(40)]
    assert os.getpid() not in processes
    assert len(processes) == 2


@pytest.mark.parametrize(("tasks", "workers"), [([7], 4), ([], 2), ([1, 2, 3], 1)])
def test_little_work_stays_in_this_process(tasks: list[int], workers: int) -> None:
    results = list(map_in_order(slow_square, tasks, workers))
    assert results == [(task * task, os.getpid()) for task in tasks]


@pytest.mark.parametrize("workers", [1, 2])
def test_errors_of_tasks_and_of_the_initializer_reach_the_caller(workers: int) -> None:
    results = map_in_order(fail_at_five, range(10), workers)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(UserError, match="five"):
        next(results)
    with pytest.raises(UserError, match="an extra is missing"):
        list(map_in_order(fail_at_five, range(3), workers, missing_extra))


def test_a_killed_worker_is_named() -> None:
    with pytest.raises(UserError, match=r"a worker process was killed.*fewer --workers"):
        list(map_in_order(die_at_five, range(10), 2))


def test_workers_below_one() -> None:
    with pytest.raises(UserError, match="--workers 0: expected at least 1"):
        list(map_in_order(slow_square, [1], 0))


SCRIPT = """
import sys, time
from megatron_agent.processes import map_in_order
from tests.test_processes import slow_square
if __name__ == "__main__":
    for result in map_in_order(slow_square, iter(int, 1), 2):
        print("running", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_worker_outlives_its_parent(tmp_path: Path, number: signal.Signals) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    parent = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        start_new_session=True,
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"running\n"
    os.kill(parent.pid, number)
    parent.stdout.close()
    parent.wait()
    for _ in range(500):
        try:
            os.killpg(parent.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)
    pytest.fail("processes outlived their parent")
