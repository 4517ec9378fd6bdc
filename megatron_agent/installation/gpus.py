"""The GPUs of this machine as `nvidia-smi` tells of them, without a CUDA context: asking must not use their memory."""

import csv
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

MIB = 2**20
SECONDS = 30
GPU_FIELDS = (
    "index",
    "uuid",
    "name",
    "driver_version",
    "memory.total",
    "memory.used",
    "compute_cap",
    "mig.mode.current",
)
PROCESS_FIELDS = ("gpu_uuid", "pid", "process_name", "used_gpu_memory")
HIDDEN_NAMES = ("[Not Found]", "[N/A]", "[Unknown Error]", "")
"""What nvidia-smi writes for a process of another container, or of another user."""


@dataclass(frozen=True)
class GpuProcess:
    """A process that holds memory of a GPU."""

    pid: int
    name: str
    """Path of the program; empty where it is hidden from this container."""
    used_bytes: int

    def __str__(self) -> str:
        return f"pid {self.pid}" + (f" ({Path(self.name).name})" if self.name else "")


@dataclass(frozen=True)
class Gpu:
    """One GPU."""

    index: int
    uuid: str
    name: str
    driver: str
    total_bytes: int
    used_bytes: int
    compute_capability: tuple[int, int]
    processes: tuple[GpuProcess, ...] = field(default=())
    divided: bool = False
    """Into slices (MIG), each with a part of its memory."""


NEEDS_DRIVER = (
    "give the container GPUs and the driver's tools (docker --gpus all, apptainer --nv, `utility` among "
    "NVIDIA_DRIVER_CAPABILITIES), or install the driver"
)
NEEDS_REBOOT = "reboot the node, or leave it out (--exclude)"


class NoDriverError(Exception):
    """`nvidia-smi` is not there or does not answer; the message says which, and `mend` what to do."""

    def __init__(self, message: str, mend: str) -> None:
        super().__init__(message)
        self.mend = mend


def query_gpus() -> list[Gpu]:
    """Return the GPUs this process may use; :class:`NoDriverError` where the driver does not answer.

    `CUDA_VISIBLE_DEVICES`, which nvidia-smi does not heed, is applied.
    """
    gpus = read_table(_nvidia_smi(f"--query-gpu={','.join(GPU_FIELDS)}"))
    processes = read_table(_nvidia_smi(f"--query-compute-apps={','.join(PROCESS_FIELDS)}"))
    return visible(read_gpus(gpus, processes), os.environ.get("CUDA_VISIBLE_DEVICES"))


def driver_present() -> bool:
    """True where NVIDIA's driver is loaded, or its tool installed: a GPU is expected to work there."""
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def read_gpus(gpus: Sequence[dict[str, str]], processes: Sequence[dict[str, str]]) -> list[Gpu]:
    """Return the GPUs of two tables of nvidia-smi, each with the processes on it; unreadable processes are left out.

    Raises :class:`NoDriverError` for a GPU without a readable memory size.
    """
    held: dict[str, list[GpuProcess]] = {}
    for row in processes:
        if row.get("pid", "").isdigit():
            name = row.get("process_name", "")
            process = GpuProcess(
                pid=int(row["pid"]),
                name="" if name in HIDDEN_NAMES else name,
                used_bytes=_bytes(row.get("used_gpu_memory", "")) or 0,
            )
            held.setdefault(row["gpu_uuid"], []).append(process)
    found = []
    for row in gpus:
        total = _bytes(row["memory.total"])
        if total is None:
            message = f"nvidia-smi gives GPU {row['index']} a memory of {row['memory.total']!r}"
            raise NoDriverError(message, "leave the node out (--exclude)")
        major, _, minor = row["compute_cap"].partition(".")
        found.append(
            Gpu(
                index=int(row["index"]),
                uuid=row["uuid"],
                name=row["name"],
                driver=row["driver_version"],
                total_bytes=total,
                used_bytes=_bytes(row["memory.used"]) or 0,
                compute_capability=(int(major), int(minor or 0)) if major.isdigit() else (0, 0),
                processes=tuple(held.get(row["uuid"], ())),
                divided=row.get("mig.mode.current") == "Enabled",
            )
        )
    return found


def visible(gpus: list[Gpu], selection: str | None) -> list[Gpu]:
    """Return the GPUs that `CUDA_VISIBLE_DEVICES` selects, in its order; all of them without a selection.

    As CUDA does, the list ends at the first entry that names no GPU. nvidia-smi's list does not hold slices of a GPU
    (MIG): for one of those all GPUs are returned, as divided.
    """
    if selection is None:
        return gpus
    chosen = []
    for entry in (part.strip() for part in selection.split(",")):
        if entry.startswith("MIG-"):
            return [replace(gpu, divided=True) for gpu in gpus]
        match = [gpu for gpu in gpus if str(gpu.index) == entry or (entry[:4] == "GPU-" and gpu.uuid.startswith(entry))]
        if len(match) != 1:
            break
        chosen.append(match[0])
    return chosen


def read_table(text: str) -> list[dict[str, str]]:
    """Return the rows of nvidia-smi's CSV by column; `memory.total [MiB]` is the column `memory.total`.

    A program's name may hold commas: what is too much in a row belongs to `process_name`.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return []
    header = [name.split(" [")[0].strip() for name in lines[0].split(",")]
    rows = []
    for cells in csv.reader(lines[1:], skipinitialspace=True):
        surplus = len(cells) - len(header)
        if surplus > 0 and "process_name" in header:
            start = header.index("process_name")
            cells[start : start + surplus + 1] = [", ".join(cells[start : start + surplus + 1])]
        if len(cells) == len(header):
            rows.append(dict(zip(header, (cell.strip() for cell in cells), strict=True)))
    return rows


def _nvidia_smi(query: str) -> str:
    try:
        process = subprocess.run(
            ["nvidia-smi", query, "--format=csv"], capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except FileNotFoundError:
        text = "nvidia-smi is not installed: NVIDIA's driver is missing, or not given to this container"
        raise NoDriverError(text, NEEDS_DRIVER) from None
    except subprocess.TimeoutExpired:
        text = f"nvidia-smi gave no answer within {SECONDS} s: the driver hangs"
        raise NoDriverError(text, NEEDS_REBOOT) from None
    if process.returncode:
        words = " ".join((process.stdout + process.stderr).split())
        raise NoDriverError(f"nvidia-smi failed with status {process.returncode}: {words[:200]}", NEEDS_REBOOT)
    return process.stdout


def _bytes(text: str) -> int | None:
    """`81559 MiB` in bytes; None for `[N/A]` and its like."""
    number = text.removesuffix("MiB").strip()
    return int(number) * MIB if number.isdigit() else None
