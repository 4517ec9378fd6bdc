"""What one rank finds out before training; the first rank of a node looks at the node too."""

import dataclasses
import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from megatron_agent.errors import FILE_ERRORS, UserError, describe_file_error
from megatron_agent.installation import run_files, storage
from megatron_agent.installation.gpus import Gpu, NoDriverError, query_gpus
from megatron_agent.installation.libraries import GPU_LIBRARIES, NEEDED, compared_versions, import_each, import_together
from megatron_agent.installation.library_findings import importable
from megatron_agent.installation.place import Place
from megatron_agent.installation.shared_folder import SharedFolder
from megatron_agent.installation.try_import import first_line
from megatron_agent.training.config import TrainConfig

BUSY_BYTES = 1 << 30
"""More than this in use on a GPU is another program: an idle one holds some MB, with a daemon some hundred."""


@dataclass
class NodeFacts:
    """What the first rank of a node says of it."""

    versions: dict[str, str] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    gpu: str = ""
    """Name of its GPUs, or of its processor."""
    driver: str = ""
    gpu_count: int = 0
    gpu_bytes: int = 0
    """Memory of its smallest GPU."""
    compute_capability: tuple[int, int] = (0, 0)
    free_bytes: int | None = None
    """At training.output_dir."""
    clock_offset: float | None = None
    """Seconds its clock is ahead of rank 0's."""


@dataclass
class RankReport:
    """What one rank found. Problems are lines for the user: what is wrong, and what to change."""

    node: str
    problems: list[str] = field(default_factory=list)
    hashed_files: int = 0
    hashed_bytes: int = 0
    facts: NodeFacts | None = None
    needs: run_files.Needs | None = None
    """Rank 0 only."""


@dataclass(frozen=True)
class Request:
    """What is to be looked at."""

    config: TrainConfig | None
    """None: it could not be read here, `config_problem` says why."""
    config_problem: str | None
    config_files: list[str]
    device: str


def examine_rank(
    request: Request, place: Place, alive: Callable[[], None], folder: SharedFolder, clock: Callable[[], float]
) -> RankReport:
    """Look at everything this rank is asked for; never raises what a user can mend, but reports it.

    `alive` is called between steps and while the long ones go on; `clock` gives the offset of this node's clock.
    """
    report = RankReport(place.node)
    problems = report.problems
    first_of_node = place.local_rank == 0
    if first_of_node:
        report.facts = NodeFacts()
    if request.config_problem is not None:
        problems.append(request.config_problem)
    config = request.config
    if config is not None and first_of_node:
        problems += folder.problems()
        report.facts.free_bytes = storage.free_bytes(config.training.output_dir)  # type: ignore[union-attr]
    elif place.rank == 0:
        folder.leave_nothing()
    alive()
    device = request.device
    if without_device := _device_problems(device, place):
        problems += without_device
        device = "cpu"  # the driver would only say the same
    alive()
    broken: list[str] = []
    if report.facts is not None:
        problems += _look_at_node(report.facts, device)
        alive()
        broken = import_problems(alive, driver=bool(report.facts.gpu_count))
        problems += broken
        alive()
    if config is not None:
        _guard(problems, lambda: _look_at_files(report, config, request.config_files, place, alive))
        alive()
        if place.rank == 0 and not broken:  # planning imports megatron-core here, and a crash would leave no verdict
            report.needs = _guard(problems, lambda: _plan(config, place.world_size))
    if report.facts is not None:
        report.facts.clock_offset = clock()
    return report


def _guard(problems: list[str], look: Callable[[], Any]) -> Any:
    """Return what `look` returns; note what a user can mend, and return None."""
    try:
        return look()
    except UserError as error:
        problems.append(" ".join(str(error).split()))
    except OSError as error:
        if error.errno not in FILE_ERRORS:
            raise
        problems.append(describe_file_error(error))
    return None


def _plan(config: TrainConfig, world_size: int) -> run_files.Needs:
    """`check_run`; a library that breaks on the way is something to mend too."""
    try:
        return run_files.check_run(config, world_size)
    except (ImportError, OSError, RuntimeError) as error:
        raise UserError(
            f"the run cannot be planned here: {first_line(error)}; run python -m megatron_agent.doctor there"
        ) from error


def _device_problems(device: str, place: Place) -> list[str]:
    """Refuse a device other than the one asked for: training takes GPUs where torch sees some, and else the CPU."""
    import torch

    available = torch.cuda.is_available()
    if device == "cpu":
        if available:
            return ["--device cpu, but torch sees GPUs and training would use them: set CUDA_VISIBLE_DEVICES= (empty)"]
        return []
    if not available:
        if torch.version.cuda is None:
            reason, mend = f"torch {torch.__version__} is built without CUDA", "use NVIDIA's image or a CUDA build"
        else:
            reason, mend = "torch sees no GPU", "ask SLURM for GPUs (--gpus-per-node) and give them to the container"
        return [f"--device cuda, but {reason}: training would run on the CPU; {mend}"]
    count = torch.cuda.device_count()
    if place.local_rank >= count:
        return [
            f"local rank {place.local_rank} has no GPU, this task sees {count}: give all GPUs of a node to all its "
            "tasks (--gpus-per-node, not --gpus-per-task), and start one task a GPU"
        ]
    return []


def _look_at_node(facts: NodeFacts, device: str) -> list[str]:
    """Note versions and, with `device` cuda, what the driver says of the GPUs; return what is wrong."""
    facts.versions = compared_versions()
    facts.gpu = platform.machine()
    problems = []
    if device == "cuda":
        try:
            gpus = query_gpus()
        except NoDriverError as error:
            return [f"{error}; {error.mend}"]
        if not gpus:
            return ["nvidia-smi lists no GPU that this task may use; ask SLURM for GPUs (--gpus-per-node)"]
        if divided := [str(gpu.index) for gpu in gpus if gpu.divided]:
            return [
                f"GPU {', '.join(divided)}: divided (MIG), training takes whole GPUs; ask SLURM for those (GPU_TYPE)"
            ]
        smallest = min(gpus, key=lambda gpu: gpu.total_bytes)
        facts.gpu = " and ".join(sorted({gpu.name for gpu in gpus}))
        facts.driver, facts.gpu_count, facts.gpu_bytes = smallest.driver, len(gpus), smallest.total_bytes
        facts.compute_capability = min(gpu.compute_capability for gpu in gpus)
        problems += busy_problems(gpus)
    return problems


def import_problems(alive: Callable[[], None], *, driver: bool) -> list[str]:
    """Import the libraries in processes of their own and return a line for each that fails.

    Megatron-core imports those for GPUs on a CPU too. Without a `driver`, one that lacks only that is not at fault.
    """
    failures = import_together(importable(NEEDED), alive) | import_each(importable(GPU_LIBRARIES), alive)
    return [
        f"{name} does not import: {failure.reason}; run python -m megatron_agent.doctor there"
        for name, failure in failures.items()
        if driver or not failure.no_driver
    ]


def busy_problems(gpus: list[Gpu]) -> list[str]:
    """Return a line for each GPU whose memory others hold."""
    problems = []
    for gpu in gpus:
        if gpu.used_bytes > BUSY_BYTES:
            held = f"{gpu.used_bytes / storage.GIB:.1f} of {gpu.total_bytes / storage.GIB:.1f} GB"
            holders = ", ".join(map(str, gpu.processes)) or "processes of another container or user"
            problems.append(f"GPU {gpu.index} has {held} in use by {holders}: end them, or leave the node out")
    return problems


def _look_at_files(
    report: RankReport, config: TrainConfig, config_files: list[str], place: Place, alive: Callable[[], None]
) -> None:
    """Hash this rank's share of the files; the first rank of a node sees whether all are there with the right size."""
    if report.facts is not None:
        report.facts.hashes = run_files.hashes_of_run(config, config_files)
    files = run_files.files_of_run(config)
    cut = storage.size_problems(files)
    if report.facts is not None:
        report.problems += cut
    if cut:
        return  # the first rank of the node says it; a file cut short has another hash anyway
    mine = storage.share(files, place.rank, place.world_size)
    report.problems += storage.hash_problems(mine, alive)
    report.hashed_files, report.hashed_bytes = len(mine), sum(file.size for file in mine)


def report_as_json(report: RankReport) -> dict[str, Any]:
    """Return a report in plain values."""
    return dataclasses.asdict(report)


def report_from_json(values: dict[str, Any]) -> RankReport:
    """Return the report that `report_as_json` made plain."""
    facts, needs = values["facts"], values["needs"]
    if facts is not None:
        facts = NodeFacts(**{**facts, "compute_capability": tuple(facts["compute_capability"])})
    return RankReport(**{**values, "facts": facts, "needs": run_files.Needs(**needs) if needs is not None else None})


def config_paths(values: Any) -> list[str]:
    """Return the files given as --config, as jsonargparse holds them: none, one, or a list."""
    items = values if isinstance(values, list) else [values] if values is not None else []
    return [str(Path(str(item))) for item in items]
