"""The build is given what the Dockerfile copies, and nothing heavy, made or private."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.image.build_context import context_files

REPOSITORY = Path(__file__).parents[2]
LARGEST_FILE = 1_000_000  # bytes
LARGEST_CONTEXT = 8_000_000


def copied_paths() -> set[str]:
    """Sources of the Dockerfile's COPY lines."""
    lines = re.findall(r"^COPY (.+)$", (REPOSITORY / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    words = [[word for word in line.split() if not word.startswith("--")] for line in lines]
    return {source for line in words for source in line[:-1]}


def test_all_that_is_copied_is_in_the_context() -> None:
    files = [str(file) for file in context_files(REPOSITORY)]
    sources = copied_paths()
    assert {"setup.py", "launch", "."} <= sources
    missing = {source for source in sources - {"."} if not any(f"{file}/".startswith(f"{source}/") for file in files)}
    assert not missing


def test_the_tests_are_in_the_context() -> None:
    files = {str(file) for file in context_files(REPOSITORY)}
    assert {"tests/conftest.py", "Makefile", ".ci/make_venv.sh", "docs/training.md"} <= files


def test_the_context_is_small() -> None:
    sizes = {file: (REPOSITORY / file).stat().st_size for file in context_files(REPOSITORY)}
    assert not [file for file, size in sizes.items() if size > LARGEST_FILE]
    assert sum(sizes.values()) < LARGEST_CONTEXT


@pytest.mark.parametrize(
    "unwanted",
    [
        ".git/config",
        ".venv/bin/python",
        "runs/train/checkpoints/weights.distcp",
        "data/agent.bin",
        "checkpoints/llama-2-7b/config.json",
        ".env",
        "launch/__pycache__/x.pyc",
        "tests/chat/__pycache__/x.pyc",
        "tests/.mypy_cache/x",
        "agentlm_megatron.egg-info/PKG-INFO",
        "megatron_agent/old.egg-info/PKG-INFO",
    ],
)
def test_made_and_private_files_stay_out(tmp_path: Path, unwanted: str) -> None:
    (tmp_path / ".dockerignore").write_bytes((REPOSITORY / ".dockerignore").read_bytes())
    wanted = tmp_path / "launch" / "configs" / "mini.yaml"
    for file in (wanted, tmp_path / unwanted):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x")
    assert [str(file) for file in context_files(tmp_path)] == [".dockerignore", "launch/configs/mini.yaml"]


def test_nothing_git_ignores_is_in_the_context() -> None:
    if not (REPOSITORY / ".git").exists():
        pytest.skip("no git checkout here")
    names = "\n".join(str(file) for file in context_files(REPOSITORY))
    done = subprocess.run(
        ["git", "-C", REPOSITORY, "check-ignore", "--stdin"], input=names, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (1, "")  # 1: none is ignored
