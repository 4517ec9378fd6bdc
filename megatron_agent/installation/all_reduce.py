"""An all-reduce over all ranks: does it come through, is the sum right, and how fast is it?"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from megatron_agent.installation.place import Place
from megatron_agent.installation.try_import import first_line

STAGES = ("start", "joining", "reducing", "done")
"""How far a rank came; a rank waits in a stage for all others to reach it."""
ELEMENTS = {"cuda": 2**26, "cpu": 2**20}
"""Of fp32: 256 MiB saturates the links of a node of GPUs; on a CPU 4 MiB takes milliseconds."""
REPEATS = {"cuda": 10, "cpu": 3}


@dataclass
class AllReduce:
    """What one rank saw of it."""

    error: str | None = None
    hung: bool = False
    """The time limit passed; the call has not returned and never may."""
    bandwidth: float = 0.0
    """Bus bandwidth in bytes/s as nccl-tests counts it: 2 (n - 1) / n x bytes / seconds; 0 for a single rank."""


def all_reduce_within(
    seconds: float, reduce: Callable[[], float], stop: Callable[[], bool] = lambda: False
) -> AllReduce:
    """Call `reduce` (which returns the bandwidth) in a thread, for `seconds` or until `stop`; a hang is left behind.

    After a hang, end the process with `os._exit`: the thread cannot be stopped.
    """
    result = AllReduce(hung=True)

    def run() -> None:
        nonlocal result
        try:
            result = AllReduce(bandwidth=reduce())
        except BaseException as error:  # whatever the library raises is the finding
            result = AllReduce(error=first_line(error))

    thread = threading.Thread(target=run, name="all-reduce", daemon=True)
    thread.start()
    end = time.monotonic() + seconds
    while thread.is_alive() and time.monotonic() < end and not stop():
        thread.join(0.1)
    return result


def all_reduce(place: Place, device: str, store: dist.Store, timeout: float, on_stage: Callable[[str], None]) -> float:
    """Join a process group of all ranks (NCCL or gloo), check a sum, measure, leave; return the bus bandwidth.

    `on_stage` is called with each of `STAGES` as it begins. Raises what torch raises, and ArithmeticError for a wrong
    sum.
    """
    on_stage("joining")
    target = torch.device("cpu")
    if device == "cuda":
        target = torch.device("cuda", place.local_rank)
        torch.cuda.set_device(target)
    group_store = dist.PrefixStore("all_reduce", store)
    dist.init_process_group(
        "nccl" if device == "cuda" else "gloo",
        store=group_store,
        rank=place.rank,
        world_size=place.world_size,
        timeout=timedelta(seconds=2 * timeout),  # ours comes first, and knows who is missing
    )
    on_stage("reducing")
    bandwidth = _checked_bandwidth(place, target, ELEMENTS[device], REPEATS[device])
    dist.destroy_process_group()
    on_stage("done")
    return bandwidth


def _checked_bandwidth(place: Place, device: torch.device, elements: int, repeats: int) -> float:
    pattern = torch.arange(elements, dtype=torch.float32, device=device) % 7 + 1
    values = (place.rank + 1) * pattern
    dist.all_reduce(values)
    expected = place.world_size * (place.world_size + 1) // 2 * pattern  # whole numbers: exact in fp32
    wrong = int((values != expected).sum())
    if wrong:
        raise ArithmeticError(f"the all-reduce gave {wrong:,} wrong sums of {elements:,}")
    _synchronize(device)
    values.zero_()
    start = time.perf_counter()
    for _ in range(repeats):
        dist.all_reduce(values)
    _synchronize(device)
    seconds = (time.perf_counter() - start) / repeats
    return 2 * (place.world_size - 1) / place.world_size * values.nbytes / seconds


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
