"""Literals are read from several threads at once."""

import gc
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from megatron_agent.environments.literals import literal_eval


@pytest.fixture
def frequent_switches() -> Iterator[None]:
    """Threads switch, and garbage is collected, as often as can be: `ast.literal_eval` alone fails within seconds."""
    interval, thresholds = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(1e-6)
    gc.set_threshold(5)
    yield
    sys.setswitchinterval(interval)
    gc.set_threshold(*thresholds)


class Cyclic:
    """Garbage that runs Python code when it is collected, where threads switch."""

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        for _ in range(50):
            pass


def test_threads_do_not_disturb_one_another(frequent_switches: None) -> None:
    text = '["36", "19", {"a": (1, 2)}]'

    def read(_: int) -> list[object]:
        values = []
        for _ in range(1500):
            Cyclic()
            values.append(literal_eval(text))
        return values

    with ThreadPoolExecutor(5) as pool:
        for values in pool.map(read, range(5)):
            assert values == [["36", "19", {"a": (1, 2)}]] * 1500
