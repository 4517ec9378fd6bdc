"""A wheel holds every file of the packages: data, pages and scripts beside the modules."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PACKAGES = ("megatron_agent", "data_prep", "checkpoints_convert", "launch")


def test_wheel_holds_every_file(tmp_path: Path) -> None:
    if shutil.which("git") is None or not (REPOSITORY / ".git").exists():
        pytest.skip("needs git and its folder, which say what belongs to the packages")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", *PACKAGES, "setup.py", "pyproject.toml", "README.md"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    )  # fmt: skip
    names = [name for name in listed.stdout.split("\0") if name and (REPOSITORY / name).exists()]
    for name in names:
        copy = tmp_path / "source" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, copy)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index",
         "--wheel-dir", tmp_path, tmp_path / "source"],
        check=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        held = set(file.namelist())
    assert [name for name in names if name.startswith(PACKAGES) and name not in held] == []
