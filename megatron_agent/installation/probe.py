"""What torch can do on this machine, found out in a process of its own: a broken driver may end or hang it.

    python -m megatron_agent.installation.probe

prints lines of JSON, the fields of :class:`Probe`: what torch can do before it imports megatron-core, then everything.
"""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from megatron_agent.installation.try_import import NO_DRIVER, first_line, how_it_ended
from megatron_agent.model.kernels import Machine

SECONDS = 120
COLLECTIVE_SECONDS = 30


@dataclass
class Probe:
    """What was found; a field called `..._error` holds the first line of what went wrong."""

    torch: str | None = None
    torch_error: str | None = None
    cuda_build: str | None = None
    """CUDA version torch was built for; None: a build without CUDA."""
    cuda: bool = False
    cuda_error: str | None = None
    devices: list[dict[str, Any]] = field(default_factory=list)
    """`name`, `memory_bytes` and `compute_capability` of each GPU that answered a kernel."""
    nccl: str | None = None
    collectives: dict[str, str | None] = field(default_factory=dict)
    """By backend: None when an all-reduce gave the right sum, else what went wrong."""
    machine: dict[str, Any] | None = None
    """What `model.kernels.this_machine` says, which imports megatron-core."""
    megatron_error: str | None = None

    @property
    def no_driver(self) -> bool:
        """True when megatron-core fails for want of NVIDIA's driver alone."""
        return NO_DRIVER in (self.megatron_error or "")

    def kernels_machine(self) -> Machine | None:
        """What the kernel switches depend on; None where it could not be found out."""
        if self.machine is None:
            return None
        return Machine(**{**self.machine, "compute_capability": tuple(self.machine["compute_capability"])})


def run_probe() -> Probe:
    """Run the probe in a child process; a crash or a hang becomes `torch_error`, `megatron_error` once torch works."""
    command = [sys.executable, "-m", "megatron_agent.installation.probe"]
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        output, end = (error.stdout or b"").decode(errors="replace"), f"did not answer within {SECONDS} s"
    else:
        output, end = process.stdout, how_it_ended(process)
    try:
        probe = Probe(**json.loads(output.splitlines()[-1]))
    except (ValueError, IndexError):
        return Probe(torch_error=f"torch {end}")
    if probe.torch_error is None and probe.machine is None and probe.megatron_error is None:
        probe.megatron_error = end
    return probe


def look(tell: Callable[[Probe], None]) -> Probe:
    """Find everything out in this process; `tell` is called with what torch can do before megatron-core is imported."""
    probe = Probe()
    try:
        import torch
        import torch.distributed
    except BaseException as error:
        probe.torch_error = first_line(error)
        return probe
    probe.torch, probe.cuda_build = torch.__version__, torch.version.cuda
    try:
        probe.cuda = torch.cuda.is_available()
        if not probe.cuda and torch.version.cuda:
            torch.cuda.init()  # says why
        for index in range(torch.cuda.device_count() if probe.cuda else 0):
            probe.devices.append(_device(index))
    except BaseException as error:
        probe.cuda_error = first_line(error)
    if torch.version.cuda and torch.distributed.is_nccl_available():
        probe.nccl = ".".join(map(str, torch.cuda.nccl.version()))
    probe.collectives["gloo"] = _try_collective("gloo", "cpu")
    if probe.cuda and not probe.cuda_error:
        probe.collectives["nccl"] = _try_collective("nccl", "cuda")
    tell(probe)
    try:
        import megatron.core.optimizer  # noqa: F401

        from megatron_agent.model.kernels import this_machine

        probe.machine = dataclasses.asdict(this_machine())
    except BaseException as error:
        probe.megatron_error = first_line(error)
    return probe


def _device(index: int) -> dict[str, Any]:
    """Run a kernel on a GPU, which fails where torch has none for its architecture, and describe it."""
    import torch

    if float(torch.ones(8, device=f"cuda:{index}").sum()) != 8:
        raise RuntimeError(f"GPU {index} adds 8 ones to something else: it is broken")
    properties = torch.cuda.get_device_properties(index)
    return {
        "name": properties.name,
        "memory_bytes": properties.total_memory,
        "compute_capability": [properties.major, properties.minor],
    }


def _try_collective(backend: str, device: str) -> str | None:
    """All-reduce in a world of this process alone; return what went wrong."""
    import torch
    import torch.distributed as dist

    os.environ["GLOO_SOCKET_IFNAME"] = "lo"  # the name of this machine may not resolve, and does not matter here
    os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
    limit = timedelta(seconds=COLLECTIVE_SECONDS)
    try:
        with tempfile.TemporaryDirectory() as folder:
            store = dist.FileStore(str(Path(folder, "store")), 1)
            dist.init_process_group(backend, store=store, rank=0, world_size=1, timeout=limit)
            try:
                values = torch.arange(1000, dtype=torch.float32, device=device)
                dist.all_reduce(values)
                if not torch.equal(values.cpu(), torch.arange(1000, dtype=torch.float32)):
                    return "the all-reduce gave wrong sums"
            finally:
                dist.destroy_process_group()
    except BaseException as error:
        return first_line(error)
    return None


def main() -> None:
    """Run the command."""
    warnings.simplefilter("ignore")

    def tell(probe: Probe) -> None:
        print("\n" + json.dumps(dataclasses.asdict(probe)), flush=True)

    tell(look(tell))


if __name__ == "__main__":
    main()
