"""Where the time of a step goes, without slowing it down.

`reduce` is megatron-core's `finalize_model_grads`, which the pipeline schedule calls once, after the last backward
pass: it waits for the reduction of gradients over data-parallel ranks (all of it, or with overlap_grad_reduce what is
still under way), reduces those of norms and tied embeddings, and divides by the number of trained tokens.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

STEP_PARTS = ("data", "forward_backward", "reduce", "optimizer")
BETWEEN_PARTS = ("checkpoint", "evaluation", "logging")

T = TypeVar("T")


@dataclass
class _Span:
    part: str
    parent: "_Span | None"
    in_step: bool
    start: Any  # perf_counter seconds on a CPU, an event on the stream with CUDA
    end: Any = None


class StepTimers:
    """Measures the parts of a step: `with timers.measure("optimizer"): ...`.

    A part inside another is taken out of it, so that the parts add up. On a GPU a part is bounded by events on the
    current stream, which the host does not wait for; they are read once, at the end of the step. A part is then the
    time the stream took for it: work that the host does while the GPU is busy costs nothing and shows as nothing,
    and communication on other streams (overlap_grad_reduce, overlap_param_gather) shows only as far as the stream
    waits for it.
    """

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.spans: list[_Span] = []
        self.open: _Span | None = None
        self.step_started: float | None = None
        self.free_events: list[Any] = []

    def start_step(self) -> None:
        """Begin a step; what was measured since the last one (checkpoint, evaluation, logging) is reported with it."""
        self.step_started = time.perf_counter()

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        """Add the time of the block to `part`."""
        span = _Span(part, self.open, self.step_started is not None, self._mark())
        self.spans.append(span)
        self.open = span
        try:
            yield
        finally:
            span.end = self._mark()
            self.open = span.parent

    def wrap(self, part: str, function: Callable[..., T]) -> Callable[..., T]:
        """Return `function` with the time of its calls added to `part`."""

        def timed(*args: Any, **kwargs: Any) -> T:
            with self.measure(part):
                return function(*args, **kwargs)

        return timed

    def end_step(self) -> tuple[float, dict[str, float]]:
        """Return the seconds of the step and of its parts, and forget them. Waits for the GPU.

        `data`, `forward_backward`, `reduce`, `optimizer` and `other` add up to the step; `checkpoint`, `evaluation` and
        `logging` passed between the previous step and this one.
        """
        if self.step_started is None:
            raise RuntimeError("end_step() without start_step()")
        if self.cuda:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - self.step_started
        parts = dict.fromkeys((*STEP_PARTS, *BETWEEN_PARTS), 0.0)
        inside = 0.0
        for span in self.spans:
            if not span.in_step and span.parent is not None:
                continue  # an evaluation's own data is part of the evaluation, not of the step's data
            duration = self._seconds(span)
            parts[span.part] = parts.get(span.part, 0.0) + duration
            if span.parent is not None:
                parts[span.parent.part] -= duration
            elif span.in_step:
                inside += duration
        parts["other"] = max(seconds - inside, 0.0)  # events and the host's clock differ by microseconds
        if self.cuda:
            self.free_events += [event for span in self.spans for event in (span.start, span.end)]
        self.spans.clear()
        self.step_started = None
        return seconds, parts

    def _mark(self) -> Any:
        if not self.cuda:
            return time.perf_counter()
        event = self.free_events.pop() if self.free_events else torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _seconds(self, span: _Span) -> float:
        seconds: float = span.start.elapsed_time(span.end) / 1000 if self.cuda else span.end - span.start
        return seconds
