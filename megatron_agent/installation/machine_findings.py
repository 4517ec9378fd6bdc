"""Findings about the machine: GPUs, collectives, the kernels training will use, tokenizer, folders."""

from collections import Counter
from pathlib import Path
from typing import cast, get_args

from megatron_agent.chat.tokenizer import load_tokenizer
from megatron_agent.errors import UserError
from megatron_agent.installation.gpus import NoDriverError, driver_present, query_gpus
from megatron_agent.installation.probe import Probe
from megatron_agent.installation.storage import GIB, existing_parent, free_bytes, write_problem
from megatron_agent.installation.table import Expect, Finding
from megatron_agent.model.kernels import Switches, resolve_kernels
from megatron_agent.training.config import TrainConfig

LITTLE_ROOM_GB = 5.0
OLDEST_CAPABILITY = (8, 0)  # bf16


def resolve_expectation(asked: str, probe: Probe) -> Expect:
    """Return what an installation is to be judged as: `auto` means GPUs where a driver is, the CPU elsewhere."""
    if asked in get_args(Expect):
        return cast(Expect, asked)
    return "gpu" if probe.cuda or driver_present() else "cpu"


def driver_finding(expect: Expect) -> Finding:
    """Return the row of NVIDIA's driver."""
    try:
        gpus = query_gpus()
    except NoDriverError as error:
        if expect == "gpu":
            return Finding("driver", str(error), mend=error.mend, state="error")
        return Finding("driver", "none", "no GPU here" if expect == "cpu" else "judged where the image runs")
    if not gpus:
        return Finding("driver", "nvidia-smi lists no GPU", state="error" if expect == "gpu" else "note")
    used = sum(gpu.used_bytes for gpu in gpus) / GIB
    held = ", ".join(f"GPU {gpu.index}: {process}" for gpu in gpus for process in gpu.processes)
    found = f"{gpus[0].driver}, {used:.1f} GB of GPU memory in use"
    if held and expect == "gpu":
        return Finding("driver", f"{found} ({held})", "what is left", "end these processes before training", "note")
    return Finding("driver", found, "")


def gpu_finding(probe: Probe, expect: Expect) -> Finding:
    """Return the row of the GPUs as torch sees them."""
    if probe.cuda_error or not probe.cuda:
        if expect == "gpu":
            mend = "install NVIDIA's driver, or start the container with GPUs (--gpus all, --nv)"
            if probe.cuda_build is None:
                mend = "install torch with CUDA: this build would train on the CPU without a word"
            reason = probe.cuda_error or "torch sees no GPU"
            return Finding("GPUs", reason, mend=mend, state="error")
        return Finding(
            "GPUs", "none that torch can use", "the CPU" if expect == "cpu" else "judged where the image runs"
        )
    kinds = Counter(
        (gpu["name"], round(gpu["memory_bytes"] / GIB, 1), tuple(gpu["compute_capability"])) for gpu in probe.devices
    )
    found = ", ".join(
        f"{count} x {name}, {memory} GB, compute capability {major}.{minor}"
        for (name, memory, (major, minor)), count in kinds.items()
    )
    if expect == "cpu":
        return Finding("GPUs", found, "training will use them: CUDA_VISIBLE_DEVICES= hides them", state="note")
    old = [kind for kind in kinds if kind[2] < OLDEST_CAPABILITY]
    if old:
        mend = f"bf16 is slow below compute capability {OLDEST_CAPABILITY[0]}.{OLDEST_CAPABILITY[1]}"
        return Finding("GPUs", found, "all", mend, "note")
    return Finding("GPUs", found, "all")


def collective_findings(probe: Probe, expect: Expect) -> list[Finding]:
    """Return the rows of gloo and NCCL; each was tried in a world of one process."""
    rows = []
    uses = {"gloo": "between ranks on CPUs", "nccl": "between ranks on GPUs"}
    for backend, use in uses.items():
        if backend not in probe.collectives:
            found = "not in this torch" if backend == "nccl" and probe.nccl is None else "not tried without a GPU"
            if backend == "nccl" and probe.nccl is not None:
                found = f"{probe.nccl}, {found}"
            needed = expect == "gpu" or (expect == "image" and probe.nccl is None)
            mend = "install torch with CUDA" if needed else ""
            rows.append(Finding(_name(backend), found, mend=mend, state="error" if needed else "ok"))
            continue
        version = f"{probe.nccl}, " if backend == "nccl" else ""
        problem = probe.collectives[backend]
        if problem is not None:
            mend = "see NCCL_DEBUG=INFO" if backend == "nccl" else "see whether the network interface lo is up"
            rows.append(Finding(_name(backend), f"{version}all-reduce failed: {problem}", mend=mend, state="error"))
        else:
            rows.append(Finding(_name(backend), f"{version}an all-reduce of one process works", use))
    return rows


def _name(backend: str) -> str:
    return "NCCL" if backend == "nccl" else backend


def kernel_switches(config: TrainConfig, probe: Probe) -> tuple[Switches, Finding | None]:
    """Return the kernel switches of a run on this machine, and the row of what cannot work. Two data-parallel ranks."""
    machine = probe.kernels_machine()
    if machine is None:
        return {}, None
    try:
        switches = resolve_kernels(
            config.kernels, config.parallel, machine, precision=config.training.precision, data_parallel_size=2
        )
    except UserError as error:
        problem = " ".join(str(error).split())
        return {}, Finding("kernels", problem, mend="change these fields of the configuration", state="error")
    return switches, None


def tokenizer_finding(path: str | Path) -> Finding:
    """Return the row of a tokenizer: does it load, and does it give a text back?"""
    text = "Thought: I should query the table.\nAction: SELECT 1;"
    try:
        tokenizer = load_tokenizer(path)
        returned = tokenizer.decode(tokenizer.encode(text))
    except (UserError, OSError) as error:
        return Finding("tokenizer", " ".join(str(error).split()), mend="give another --tokenizer", state="error")
    if returned.strip() != text:
        mend = "the file is damaged, take it from the model's page again"
        return Finding("tokenizer", f"{path}: gives {returned!r} for {text!r}", mend=mend, state="error")
    return Finding("tokenizer", f"{tokenizer.vocab_size:,} ids, SHA-256 {tokenizer.sha256[:12]}...", str(path))


def folder_finding(folder: str | Path, asked: bool) -> Finding:
    """Return the row of the folder a run writes into; it is an error only for a folder that was `asked` for."""
    parent = existing_parent(folder)
    problem = write_problem(parent)
    if problem is not None:
        mend = "choose another --output-dir, or ask who owns this one"
        return Finding("write access", problem, mend=mend, state="error" if asked else "note")
    free = free_bytes(parent) / GIB
    found = f"{folder}, {free:,.0f} GB free" if free >= LITTLE_ROOM_GB else f"{folder}, only {free:.1f} GB free"
    used = "as it is" if Path(folder).exists() else "will be made"
    if free < LITTLE_ROOM_GB:
        return Finding("write access", found, used, "a 7B checkpoint takes about 94 GB: choose another disk", "note")
    return Finding("write access", found, used)
