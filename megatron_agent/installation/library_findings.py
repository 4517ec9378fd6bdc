"""Findings about Python and the libraries."""

import platform
import sys
from collections.abc import Mapping, Sequence

from packaging.specifiers import SpecifierSet

from megatron_agent.installation.libraries import (
    GPU_LIBRARIES,
    NEEDED,
    OPTIONAL,
    PROJECT,
    Library,
    in_range,
    installed_version,
    is_there,
)
from megatron_agent.installation.probe import Probe
from megatron_agent.installation.table import Expect, Finding
from megatron_agent.installation.try_import import ImportFailure

OLDEST_PYTHON = (3, 10)
OWN_ROW = ("torch", "megatron-core", "numpy", "sentencepiece", "tokenizers")
"""Needed libraries with a row of their own; the others share one, and leave it when something is wrong."""
MEND_GPU = {
    "transformer-engine": "use NVIDIA's PyTorch image, or pip install '.[gpu]' --no-build-isolation",
    "apex": "build it against this torch (the package of that name on PyPI is another program)",
    "flash-attn": "pip install flash-attn --no-build-isolation",
}


def python_finding() -> Finding:
    """Return the row of the interpreter."""
    found = platform.python_version()
    if sys.version_info < OLDEST_PYTHON:
        wanted = ".".join(map(str, OLDEST_PYTHON))
        return Finding("Python", f"{found} ({sys.executable})", mend=f"use Python {wanted} or newer", state="error")
    return Finding("Python", found, sys.executable)


def project_finding() -> Finding:
    """Return the row of this project itself."""
    version = installed_version(PROJECT)
    if version is None:
        mend = "pip install -e . to have the versions it needs compared"
        return Finding(PROJECT, "a checkout, not installed", "as it is", mend, "note")
    return Finding(PROJECT, version, "commands and package")


def needed_findings(
    wanted: Mapping[str, SpecifierSet],
    failures: Mapping[str, ImportFailure],
    probe: Probe,
    expect: Expect,
    broken: Sequence[str] = (),
) -> list[Finding]:
    """Return the rows of what training cannot do without; those that are well share one, but for `OWN_ROW`.

    `broken` names the libraries for GPUs that do not import: megatron-core imports them and fails with them.
    """
    rows, well = [], []
    for library in NEEDED:
        finding = _needed(library, wanted.get(library.name), failures.get(library.name), probe, expect, broken)
        if finding.state == "ok" and library.name not in OWN_ROW:
            well.append(f"{library.name} {installed_version(library.name)}")
        else:
            rows.append(finding)
    if well:
        rows.append(Finding("other needs", f"all {len(well)}" if len(well) > 9 else ", ".join(well), "all"))
    return rows


def _needed(
    library: Library,
    wanted: SpecifierSet | None,
    failure: ImportFailure | None,
    probe: Probe,
    expect: Expect,
    broken: Sequence[str],
) -> Finding:
    version = installed_version(library.name)
    pip = f"pip install '{library.name}{wanted or ''}'"
    if version is None:
        return Finding(library.name, "not installed", mend=pip, state="error")
    found = version
    if library.name == "torch":
        found = f"{probe.torch or version}, {f'CUDA {probe.cuda_build}' if probe.cuda_build else 'no CUDA'}"
        failure = ImportFailure(probe.torch_error) if probe.torch_error else None
    if library.name == "megatron-core":
        failure = ImportFailure(probe.megatron_error) if probe.megatron_error and not probe.torch_error else None
    if not in_range(version, wanted):
        return Finding(library.name, f"{found}, expected {wanted}", mend=pip, state="error")
    if failure is not None and failure.no_driver and expect != "gpu":
        return Finding(library.name, f"{found}; cannot be judged without a driver", library.use, "", "note")
    if failure is not None and library.name == "megatron-core" and broken:
        cause = " and ".join(broken)
        found = f"{found}; does not import because of {cause}: {failure.reason}"
        return Finding(library.name, found, mend=f"mend {cause} first", state="error", because_of=broken[0])
    if failure is not None:
        mend = f"reinstall it: {pip} --force-reinstall --no-deps"
        if library.name == "torch":  # what is compiled for the torch of an image would break with any other
            mend = "take NVIDIA's PyTorch image anew, or install into a new environment"
        if failure.no_driver:
            mend = "start the container with GPUs, or install NVIDIA's driver"
        return Finding(library.name, f"{found}; does not import: {failure.reason}", mend=mend, state="error")
    return Finding(library.name, found, library.use)


def optional_findings() -> list[Finding]:
    """Return the rows of libraries that training does not need."""
    rows = []
    for library in OPTIONAL:
        version = installed_version(library.name)
        rows.append(Finding(library.name, version or "not installed", library.use if version else str(library.instead)))
    return rows


def gpu_library_findings(
    wanted: Mapping[str, SpecifierSet], failures: Mapping[str, ImportFailure], expect: Expect
) -> list[Finding]:
    """Return the rows of the libraries that GPUs profit from. One that is there but broken is an error anywhere.

    NVIDIA's image brings Transformer Engine: an image without it is not what it should be.
    """
    return [_gpu_library(lib, wanted.get(lib.name), failures.get(lib.name), expect) for lib in GPU_LIBRARIES]


def _gpu_library(
    library: Library, wanted: SpecifierSet | None, failure: ImportFailure | None, expect: Expect
) -> Finding:
    name, instead, mend = library.name, str(library.instead), MEND_GPU[library.name]
    if not is_there(library):
        if name == "transformer-engine" and expect == "image":
            return Finding(name, "not installed", instead, "build on NVIDIA's PyTorch image", "error")
        if name == "transformer-engine" and expect == "gpu":
            return Finding(name, "not installed", instead, mend, "note")
        return Finding(name, "not installed", "not needed on a CPU" if expect == "cpu" else instead)
    version = installed_version(name)
    found = version or "version unknown"
    if failure is not None and failure.no_driver:
        if expect == "gpu":
            mend = "start the container with GPUs (--gpus all, --nv), or install NVIDIA's driver"
            return Finding(name, f"{found}; {failure.reason}", mend=mend, state="error")
        return Finding(name, f"{found}; cannot be judged without a driver", library.use, state="note")
    if failure is not None:
        mend = f"reinstall it for this torch, or take it out: pip uninstall {name}"
        return Finding(name, f"{found}; does not import: {failure.reason}", mend=mend, state="error")
    if version is not None and not in_range(version, wanted):
        mend = f"take a version in {wanted}, which megatron-core names"
        return Finding(name, f"{found}, expected {wanted}", mend=mend, state="error")
    return Finding(name, found, library.use)


def importable(libraries: Sequence[Library]) -> list[Library]:
    """Return those that are installed and have modules to import."""
    return [library for library in libraries if library.modules and is_there(library)]
