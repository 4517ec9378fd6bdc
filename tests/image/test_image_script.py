"""launch/image.sh: the commands it would run, and its one-line refusals."""

import os
import re
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SCRIPT = REPOSITORY / "launch" / "image.sh"
TOOLS = ("bash", "cat", "dirname", "env", "git", "ln", "mkdir", "realpath", "rm", "sed")


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder of programs that is all of PATH: the shell's own, no container engine."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in TOOLS:
        found = next(Path(folder, name) for folder in os.environ["PATH"].split(":") if Path(folder, name).exists())
        (programs / name).symlink_to(found)
    return programs


def add_program(machine: Path, name: str, text: str) -> None:
    (machine / name).unlink(missing_ok=True)  # never write through a link to a real program
    (machine / name).unlink(missing_ok=True)  # never write through a link to the machine's own program
    (machine / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
    (machine / name).chmod(0o755)


def image(machine: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", SCRIPT, *arguments],
        capture_output=True,
        text=True,
        cwd=machine.parent,
        env={"PATH": str(machine), **environment},
    )


def commands(machine: Path, *arguments: str, **environment: str) -> list[str]:
    done = image(machine, *arguments, "--dry-run", **environment)
    assert (done.returncode, done.stderr) == (0, "")
    return [line.strip() for line in done.stdout.splitlines()]


def refusal(machine: Path, *arguments: str) -> str:
    done = image(machine, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    return line


def test_help_names_every_option(machine: Path) -> None:
    done = image(machine, "--help")
    assert done.returncode == 0
    text = SCRIPT.read_text(encoding="utf-8")
    handled = text[text.index("while [ $# -gt 0 ]") : text.index("shift 2")]
    options = set(re.findall(r"--[a-z-]+", handled))
    assert len(options) >= 8
    assert not [option for option in options if option not in done.stdout]


def test_build_pins_another_base(machine: Path) -> None:
    digest = "sha256:" + "0" * 64
    (line,) = commands(machine, "build", "--base-tag", "25.12-py3", "--base-digest", digest)
    assert line.startswith("env DOCKER_BUILDKIT=1 docker build --target gpu --tag agentlm-megatron:latest")
    assert f"--build-arg BASE_TAG=25.12-py3 --build-arg BASE_DIGEST={digest}" in line
    assert line.endswith(str(REPOSITORY))


def test_another_base_without_a_digest_drops_the_pinned_one(machine: Path) -> None:
    (line,) = commands(machine, "build", "--base-tag", "25.12-py3")
    assert "--build-arg BASE_TAG=25.12-py3 --build-arg BASE_DIGEST= " in line


@pytest.mark.parametrize("engine", ["podman build", "buildah bud"])
def test_health_check_survives_other_engines(machine: Path, engine: str) -> None:
    (line,) = commands(machine, "build", "--target", "cpu", "--engine", engine.split()[0])
    assert line.startswith(f"{engine} --format docker --target cpu --tag agentlm-megatron:cpu ")


def test_pip_indexes_are_passed_on(machine: Path) -> None:
    (line,) = commands(machine, "build", PIP_EXTRA_INDEX_URL="https://wheels.example/cpu")
    assert "--build-arg PIP_EXTRA_INDEX_URL=https://wheels.example/cpu" in line
    assert "PIP_INDEX_URL" not in line


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("sqsh --engine docker", ["enroot import --output agentlm-megatron.sqsh dockerd://agentlm-megatron:latest"]),
        ("sqsh --engine podman --tag a:1", ["enroot import --output agentlm-megatron.sqsh podman://a:1"]),
        (
            "sqsh --registry-image nvcr.io/g/a:1",
            ["enroot import --output agentlm-megatron.sqsh docker://nvcr.io#g/a:1"],
        ),
        ("sqsh --registry-image group/a:1", ["enroot import --output agentlm-megatron.sqsh docker://group/a:1"]),
        ("sif --engine docker --tag a --output b.sif", ["apptainer build b.sif docker-daemon:a:latest"]),
        ("sif --registry-image nvcr.io/g/a:1", ["apptainer build agentlm-megatron.sif docker://nvcr.io/g/a:1"]),
        (
            "sif --engine buildah --output b.sif",
            [
                "buildah push agentlm-megatron:latest docker-archive:b.sif.docker.tar:agentlm-megatron:latest",
                "apptainer build b.sif docker-archive:b.sif.docker.tar",
            ],
        ),
    ],
)
def test_conversions(machine: Path, arguments: str, expected: list[str]) -> None:
    assert commands(machine, *arguments.split()) == expected


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("", "build, sqsh or sif expected, got nothing"),
        ("push", "build, sqsh or sif expected, got push"),
        ("build --target tpu", "--target: gpu or cpu expected, got tpu"),
        ("build --engine rkt", "--engine: docker, podman or buildah expected, got rkt"),
        ("build --tag", "--tag expects a value, got none"),
        ("build --fast", "unknown option --fast"),
        ("build --output a.sqsh", "build takes no --output"),
        ("build --base-tag 1 --base-digest sha256:12", "sha256: and 64 digits expected, got sha256:12"),
        ("build", "docker, podman or buildah expected, none is here"),
        ("build --engine podman", "no podman here"),
        ("sqsh --registry-image a/b:1", "no enroot here"),
        ("sif --registry-image a/b:1", "no apptainer or singularity here"),
    ],
)
def test_refusals(machine: Path, arguments: str, expected: str) -> None:
    assert expected in refusal(machine, *arguments.split())


def test_a_docker_client_without_a_daemon_is_said(machine: Path) -> None:
    add_program(machine, "docker", "exit 1")
    assert "its daemon does not answer" in refusal(machine, "build")


def test_an_existing_file_is_not_replaced(machine: Path) -> None:
    (machine.parent / "old.sqsh").write_text("x")
    assert "old.sqsh exists" in refusal(machine, "sqsh", "--registry-image", "a/b:1", "--output", "old.sqsh")


def test_a_failed_conversion_leaves_no_archive(machine: Path) -> None:
    add_program(machine, "podman", 'while [ "$1" != --output ]; do shift; done; echo tar > "$2"')
    add_program(machine, "apptainer", "exit 3")
    done = image(machine, "sif", "--engine", "podman", "--output", "b.sif")
    assert done.returncode == 3
    assert not list(machine.parent.glob("b.sif*"))


def test_enroot_finds_podman_where_it_calls_docker(machine: Path) -> None:
    add_program(machine, "podman", "echo podman was called: $*")
    add_program(machine, "enroot", 'docker rm -f abc && echo x > "$3"')  # as its podman:// import ends
    done = image(machine, "sqsh", "--engine", "podman", "--output", "b.sqsh")
    assert (done.returncode, done.stderr) == (0, "")
    assert "podman was called: rm -f abc" in done.stdout
    assert f"CONTAINER_IMAGE={machine.parent}/b.sqsh" in done.stdout
    assert {file.name for file in machine.parent.glob("b.sqsh*")} == {"b.sqsh"}


def test_password_of_the_remote_stays_out_of_the_label(machine: Path, tmp_path: Path) -> None:
    add_program(
        machine,
        "git",
        'case "$*" in *get-url*) echo https://me:secret@host.example/a.git;; *rev-parse*) echo abc;; esac',
    )
    (line,) = commands(machine, "build")
    assert "--build-arg REVISION=abc --build-arg SOURCE=https://host.example/a.git" in line
    assert "secret" not in line
