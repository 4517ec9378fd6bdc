"""Parts of a step against a clock that the test moves."""

import pytest
import torch

from megatron_agent.training import timers as timers_module
from megatron_agent.training.timers import StepTimers


class Clock:
    """`perf_counter` that moves only when told."""

    now = 100.0

    def perf_counter(self) -> float:
        return self.now

    def spend(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(timers_module, "time", clock)
    return clock


def cpu_timers() -> StepTimers:
    return StepTimers(torch.device("cpu"))


def test_parts_add_up_and_inner_parts_leave_outer_ones(clock: Clock) -> None:
    timers = cpu_timers()

    def finalize() -> str:
        clock.spend(2.0)
        return "reduced"

    reduce = timers.wrap("reduce", finalize)
    timers.start_step()
    with timers.measure("data"):
        clock.spend(1.0)
    with timers.measure("forward_backward"):
        for _ in range(3):
            with timers.measure("data"):
                clock.spend(0.25)
            clock.spend(4.0)
        assert reduce() == "reduced"
    clock.spend(0.5)
    with timers.measure("optimizer"):
        clock.spend(3.0)
    seconds, parts = timers.end_step()
    assert seconds == 1.0 + 3 * 4.25 + 2.0 + 0.5 + 3.0
    assert parts == {
        "data": 1.75,
        "forward_backward": 12.0,
        "reduce": 2.0,
        "optimizer": 3.0,
        "checkpoint": 0.0,
        "evaluation": 0.0,
        "logging": 0.0,
        "other": 0.5,
    }


def test_what_passes_between_steps_is_not_in_the_step(clock: Clock) -> None:
    timers = cpu_timers()
    with timers.measure("evaluation"), timers.measure("data"):
        clock.spend(5.0)
    timers.start_step()
    with timers.measure("forward_backward"):
        clock.spend(1.0)
    seconds, parts = timers.end_step()
    assert (seconds, parts["evaluation"], parts["data"], parts["other"]) == (1.0, 5.0, 0.0, 0.0)
    with timers.measure("checkpoint"):
        clock.spend(7.0)
    timers.start_step()
    seconds, parts = timers.end_step()
    assert (seconds, parts["checkpoint"], parts["evaluation"], parts["forward_backward"]) == (0.0, 7.0, 0.0, 0.0)


def test_a_failure_inside_a_part_closes_it(clock: Clock) -> None:
    timers = cpu_timers()
    timers.start_step()

    def fail() -> None:
        clock.spend(1.0)
        raise KeyError

    with pytest.raises(KeyError):
        timers.wrap("data", fail)()
    with timers.measure("optimizer"):
        clock.spend(2.0)
    _, parts = timers.end_step()
    assert (parts["data"], parts["optimizer"]) == (1.0, 2.0)
    with pytest.raises(RuntimeError, match="without start_step"):
        timers.end_step()


class FakeEvent:
    """An event on a stream whose time runs apart from the host's; counts those that were ever made."""

    stream_milliseconds = 0.0
    made = 0

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing
        FakeEvent.made += 1

    def record(self) -> None:
        self.at = FakeEvent.stream_milliseconds

    def elapsed_time(self, end: "FakeEvent") -> float:
        return end.at - self.at


def test_with_cuda_the_stream_is_timed_and_events_are_used_again(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    synchronized = []
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: synchronized.append(True))
    timers = StepTimers(torch.device("cuda"))
    for _ in range(3):
        timers.start_step()
        with timers.measure("forward_backward"):
            FakeEvent.stream_milliseconds += 1500  # the host only launches kernels
        clock.spend(2.0)
        seconds, parts = timers.end_step()
        assert (seconds, parts["forward_backward"], parts["other"]) == (2.0, 1.5, 0.5)
    assert len(synchronized) == 3  # once a step
    assert FakeEvent.made == 2
