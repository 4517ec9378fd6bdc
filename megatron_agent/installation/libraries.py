"""Which libraries are installed, which versions are wanted, and whether those with compiled parts can be imported."""

import importlib.metadata
import importlib.util
import platform
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from megatron_agent.installation.try_import import ImportFailure, try_import

PROJECT = "agentlm-megatron"


@dataclass(frozen=True)
class Library:
    """A library of ours, by the name of its distribution."""

    name: str
    modules: tuple[str, ...]
    """What is imported to see whether it works; `probe.py` imports torch and megatron-core."""
    use: str
    """What it is for."""
    instead: str | None = None
    """What training uses without it; None: it cannot do without."""


NEEDED = (
    Library("torch", (), "tensors, process groups"),
    Library("megatron-core", (), "model, parallelism, checkpoints"),
    Library("numpy", ("numpy",), "data"),
    Library("sentencepiece", ("sentencepiece",), "tokenizer.model"),
    Library("tokenizers", ("tokenizers",), "tokenizer.json"),
    Library("safetensors", ("safetensors",), "Hugging Face weights"),
    Library("protobuf", ("google.protobuf",), "tokenizer.model"),
    Library("psutil", ("psutil",), "checkpoints"),
    Library("jsonargparse", (), "configuration"),
    Library("pyyaml", (), "configuration"),
    Library("rich", (), "tables"),
    Library("tqdm", (), "progress"),
    Library("tensorboard", (), "curves"),
    Library("matplotlib", (), "pictures"),
    Library("openai", (), "evaluation"),
)
OPTIONAL = (Library("transformers", (), "serving, comparison", "not needed for training"),)
GPU_LIBRARIES = (
    Library(
        "transformer-engine",
        ("transformer_engine.pytorch",),
        "layers and packed flash attention",
        "megatron-core's own layers: slower, no FP8, no context parallelism",
    ),
    Library(
        "apex",
        ("apex.optimizers", "fused_weight_gradient_mlp_cuda"),
        "weight gradients added inside the product",
        "separate addition",
    ),
    Library(
        "flash-attn", ("flash_attn",), "attention kernels of Transformer Engine", "cuDNN's attention, where it can"
    ),
)
COMPARED = ("torch", "megatron-core", "transformer-engine", "apex", "flash-attn", "numpy", PROJECT)
"""What must be the same on all nodes, beside Python, CUDA and NCCL."""


def installed_version(name: str) -> str | None:
    """Return the version of a distribution, None when it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def is_there(library: Library) -> bool:
    """True when the distribution, or a module of its name without one, is installed."""
    if installed_version(library.name) is not None:
        return True
    return bool(library.modules) and importlib.util.find_spec(library.modules[0].split(".")[0]) is not None


def wanted_versions() -> dict[str, SpecifierSet]:
    """Return the range of versions of each library, as the installed metadata of this project and megatron-core says.

    Megatron-core names its range of Transformer Engine in an extra. Without the metadata (a checkout that is not
    installed) a library has no range.
    """
    wanted: dict[str, SpecifierSet] = {}
    lists = [(PROJECT, None), (PROJECT, "gpu"), ("megatron-core", None), ("megatron-core", "dev")]
    for distribution, extra in lists:
        try:
            requirements = importlib.metadata.requires(distribution) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for requirement in map(Requirement, requirements):
            chosen = requirement.marker is None or requirement.marker.evaluate({"extra": extra or ""})
            only_here = extra is None or (requirement.marker is not None and "extra" in str(requirement.marker))
            if chosen and only_here:
                name = requirement.name.lower().replace("_", "-")
                wanted[name] = wanted.get(name, SpecifierSet()) & requirement.specifier
    return wanted


def in_range(version: str, wanted: SpecifierSet | None) -> bool:
    """True when `version` is in the range; pre-releases and builds (`2.9.0a0+git`) count as their version."""
    if wanted is None:
        return True
    try:
        # NVIDIA's images bring builds such as 2.9.0a0+145a3121cc.nv25.10, which are of the series 2.9.
        return Version(version).base_version in wanted
    except InvalidVersion:
        return False


def import_each(libraries: Sequence[Library], alive: Callable[[], None] = lambda: None) -> dict[str, ImportFailure]:
    """Import each library in a process of its own, all at a time; return the failures by name.

    `alive` is called every second while they are imported.
    """
    with ThreadPoolExecutor(max(1, len(libraries))) as pool:
        running = {library.name: pool.submit(try_import, library.modules) for library in libraries}
        while wait(running.values(), timeout=1).not_done:
            alive()
        return {name: failure for name, future in running.items() if (failure := future.result()) is not None}


def import_together(libraries: Sequence[Library], alive: Callable[[], None] = lambda: None) -> dict[str, ImportFailure]:
    """`import_each` in one process, which is faster; one each where that fails."""
    together = Library("all", tuple(module for library in libraries for module in library.modules), "")
    return import_each(libraries, alive) if import_each([together], alive) else {}


def compared_versions() -> dict[str, str]:
    """Return the versions that must be equal on all nodes, by name; `-` for what is not installed. Imports torch."""
    import torch

    versions = {"Python": platform.python_version()}
    versions |= {name: installed_version(name) or "-" for name in COMPARED}
    versions["torch"] = torch.__version__  # the one that runs, whatever its metadata says
    versions["CUDA"] = str(torch.version.cuda or "-")
    versions["NCCL"] = nccl_version() or "-"
    return versions


def nccl_version() -> str | None:
    """Return the version of the NCCL that torch uses, None in a build without it. Imports torch."""
    import torch
    import torch.distributed

    if torch.version.cuda is None or not torch.distributed.is_nccl_available():
        return None
    return ".".join(map(str, torch.cuda.nccl.version()))
