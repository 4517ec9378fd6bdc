"""The memory a run needs at most, over all ranks."""

import resource
import sys
from pathlib import Path

import torch


def peak_memory(device: torch.device) -> dict[str, int]:
    """Return the peak memory of the fullest rank in bytes, since the start of the run. Collective.

    On a GPU `allocated` (tensors) and `reserved` (what the caching allocator holds, which is what runs out); on a CPU
    `rss`, the resident set of the process, memory-mapped data files included.
    """
    if device.type == "cuda":
        mine = {"allocated": torch.cuda.max_memory_allocated(), "reserved": torch.cuda.max_memory_reserved()}
    else:
        mine = {"rss": peak_rss()}
    largest = torch.tensor(list(mine.values()), dtype=torch.int64, device=device)
    torch.distributed.all_reduce(largest, op=torch.distributed.ReduceOp.MAX)
    return dict(zip(mine, largest.tolist(), strict=True))


def peak_rss() -> int:
    """Return the peak resident set of this process in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux: getrusage would count what the parent process held when it forked
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
