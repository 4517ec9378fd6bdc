"""shellcheck and hadolint find nothing: warnings are errors."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


def shell_scripts(repository: Path) -> list[Path]:
    """Every file of the repository that bash runs: by its name, or by its first line."""
    folders = [repository / name for name in (".ci", "launch", "tests")]
    files = (file for folder in folders for file in sorted(folder.rglob("*")) if file.is_file())
    return [
        file
        for file in files
        if file.suffix in (".sh", ".sbatch") or file.read_bytes()[:64].startswith(b"#!/usr/bin/env bash")
    ]


def run_linter(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """One of the linters that come as wheels: its program lies beside the interpreter."""
    program = Path(sys.executable).with_name(name)
    if not program.exists():
        pytest.skip(f"no {name} beside {sys.executable}; `make test` installs it")
    # hadolint colours its findings where it takes the output for a terminal
    environment = {**os.environ, "NO_COLOR": "1"}
    return subprocess.run([program, *arguments], capture_output=True, text=True, env=environment)


def test_scripts_are_found() -> None:
    names = {str(file.relative_to(REPOSITORY)) for file in shell_scripts(REPOSITORY)}
    assert {".ci/make_venv.sh", ".ci/run", "launch/image.sh", "tests/image/build.sh"} <= names


def test_shellcheck_has_no_warning() -> None:
    done = run_linter("shellcheck", "--severity=warning", *shell_scripts(REPOSITORY))
    assert done.returncode == 0, done.stdout


def test_shellcheck_would_see_an_unquoted_variable(tmp_path: Path) -> None:
    script = tmp_path / "wrong.sh"
    script.write_text("#!/usr/bin/env bash\nfor file in $(ls *.txt); do rm -rf $undefined/; done\n")
    done = run_linter("shellcheck", "--severity=warning", script)
    assert done.returncode == 1
    assert "SC2154" in done.stdout


def test_hadolint_has_no_finding() -> None:
    done = run_linter("hadolint", REPOSITORY / "Dockerfile")
    assert (done.returncode, done.stdout) == (0, "")


def test_hadolint_would_see_an_unpinned_base(tmp_path: Path) -> None:
    wrong = tmp_path / "Dockerfile"
    wrong.write_text("FROM debian\nRUN cd /tmp\n")
    done = run_linter("hadolint", wrong)
    assert done.returncode == 1
    assert "DL3006" in done.stdout
