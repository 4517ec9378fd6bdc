"""Run a script or module on several CPU ranks with torchrun, from a test."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


def run_distributed(
    target: str | Path,
    nproc: int,
    args: Sequence[str | Path] = (),
    *,
    env: Mapping[str, str] | None = None,
    timeout: float = 180,
    returncode: int = 0,
) -> subprocess.CompletedProcess[str]:
    """Run `target` (a path to a script, or a module name) under torchrun on `nproc` local ranks and return the process.

    torchrun picks a free port itself. Every rank has one thread and sees the repository first on its path. Fails the
    test, showing the output, when the exit status is not `returncode` or the time is up.
    """
    is_module = isinstance(target, str) and not target.endswith(".py")
    command = [sys.executable, "-m", "torch.distributed.run", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]
    command += [f"--nproc-per-node={nproc}", *(["-m"] if is_module else []), str(target), *map(str, args)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY), **(env or {})}
    try:
        process = subprocess.run(
            command, cwd=REPOSITORY, env=environment, timeout=timeout, capture_output=True, text=True, check=False
        )
    except subprocess.TimeoutExpired as error:
        shown = "\n".join(_text(stream) for stream in (error.stdout, error.stderr))
        pytest.fail(f"{target} on {nproc} ranks did not end within {timeout} s\n{shown[-8000:]}")
    if process.returncode != returncode:
        pytest.fail(
            f"{target} on {nproc} ranks ended with status {process.returncode}, expected {returncode}\n"
            f"{process.stdout[-4000:]}\n{process.stderr[-8000:]}"
        )
    return process


def _text(stream: str | bytes | None) -> str:
    return stream.decode(errors="replace") if isinstance(stream, bytes) else stream or ""
