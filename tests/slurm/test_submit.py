"""launch/*.sbatch and submit.sh on a real SLURM: every script is accepted, what cannot run is refused in one line."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.conftest import LAUNCH, Site

SCRIPTS = sorted(LAUNCH.glob("*.sbatch"))
TRAIN = LAUNCH / "train_7b.sbatch"


def test_all_scripts_are_found() -> None:
    names = {script.stem for script in SCRIPTS}
    wanted = {
        "train_7b",
        "train_13b",
        "train_70b",
        "eta_scan",
        "prepare_data",
        "convert",
        "serve",
        "evaluate",
        "report",
    }
    assert names == wanted


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_slurm_accepts_every_script_unmodified(site: Site, script: Path) -> None:
    done = site.cluster.run("sbatch", "--test-only", str(script))
    assert done.returncode == 0, done.stderr
    assert "to start at" in done.stderr


def refusal(site: Site, *arguments: object) -> str:
    """The one line with which a submission is refused."""
    done = site.submit(*arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stdout == ""
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("[W")]  # torch's own warnings
    assert line.startswith("error: ")
    assert site.cluster.run("squeue", "--noheader").stdout == "", "nothing may be in the queue"
    return line


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"PARTITION": "gpu"}, ("Invalid partition", "PARTITION is 'gpu'; this cluster has: main")),
        ({"CONTAINER_RUNTIME": "pyxis"}, ("CONTAINER_RUNTIME=pyxis needs CONTAINER_IMAGE", "launch/image.sh")),
        (
            {"CONTAINER_RUNTIME": "apptainer", "CONTAINER_IMAGE": "/nowhere/agentlm.sif"},
            ("CONTAINER_IMAGE: /nowhere/agentlm.sif is not a file",),
        ),
        ({"CONTAINER_RUNTIME": "docker"}, ("CONTAINER_RUNTIME must be one of none pyxis apptainer, got 'docker'",)),
        ({"PARTITON": "main"}, ("line", "unknown variable PARTITON", "known:")),
        ({"WORK_DIR": "/nowhere"}, ("WORK_DIR: /nowhere is not a folder",)),
        ({"PYTHON": "/nowhere/python"}, ("PYTHON: /nowhere/python is not there",)),
        ({"MAX_REQUEUES": "many"}, ("MAX_REQUEUES must be a whole number, got 'many'",)),
        ({"NETWORK_INTERFACE": "^lo"}, ("NETWORK_INTERFACE: expected plain names such as ib0, got '^lo'",)),
        ({"SITE_SETUP": "/nowhere.sh"}, ("SITE_SETUP: /nowhere.sh is not a file",)),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_wrong_site_is_refused(site: Site, variables: dict[str, str], expected: tuple[str, ...]) -> None:
    site.write_cluster_env(**variables)
    line = refusal(site, TRAIN, "--config", f"{site.folder}/mini.yaml")
    assert all(text in line for text in expected), line


def test_too_many_nodes_or_gpus_are_refused(site: Site) -> None:
    line = refusal(site, "--nodes=9", TRAIN, "--config", f"{site.folder}/mini.yaml")
    assert "9 nodes with 0 GPUs and 8 tasks each were asked for" in line
    assert "main* 4 x gpu:8" in line
    site.write_cluster_env(DEVICE="cuda")
    assert "16 GPUs" in refusal(site, "--gpus-per-node=16", TRAIN, "--config", f"{site.folder}/mini.yaml")


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["--training.global_batch_size", "6"], "--training.global_batch_size (6) must be a multiple of"),
        (["--parallel.tensor_model_parallel_size", "3"], "tensor_model_parallel_size"),
        (["--parallel.pipeline_model_parallel_size", "16"], "pipeline_model_parallel_size"),
        (["--training.learning_rate", "1"], "training.learning_rate"),
        (["--model.checkpoint", "nowhere"], "nowhere"),
        (["--data.cache_dir"], "cache_dir"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_configuration_that_cannot_run_is_refused_before_the_allocation(
    site: Site, overrides: list[str], expected: str
) -> None:
    assert expected in refusal(site, TRAIN, "--config", f"{site.folder}/mini.yaml", *overrides)


def test_a_configuration_that_is_not_there_is_refused(site: Site) -> None:
    assert "--config: nowhere.yaml is not a file" in refusal(site, TRAIN, "--config", "nowhere.yaml")


def test_a_run_folder_that_cannot_be_written_is_refused(site: Site) -> None:
    line = refusal(site, TRAIN, "--config", f"{site.folder}/mini.yaml", "--training.output_dir", "/proc/run")
    assert "--training.output_dir /proc/run" in line


def test_a_missing_data_file_is_refused(site: Site, tmp_path: Path) -> None:
    sources: list[dict[str, Any]] = [{"name": "agentinstruct", "prefix": f"{tmp_path}/nothing"}]
    line = refusal(site, TRAIN, "--config", f"{site.folder}/mini.yaml", "--data.agent", json.dumps(sources))
    assert f"{tmp_path}/nothing" in line


def test_dry_run_shows_commands_configuration_and_plan(site: Site) -> None:
    shape = ("--nodes=2", "--ntasks-per-node=4")
    done = site.submit(*shape, TRAIN, "--config", f"{site.folder}/mini.yaml", "--optimizer.lr", "3e-4", "--dry-run")
    assert done.returncode == 0, done.stderr
    shown = done.stdout
    assert "sbatch" in shown
    assert "--nodes=2" in shown
    assert "2 nodes x 4 tasks = 8 ranks" in shown
    assert "srun --nodes=2 --ntasks=8" in shown
    assert "--kill-on-bad-exit=1" in shown
    assert "megatron_agent.preflight" in shown
    assert "megatron_agent.train" in shown
    assert "lr: 0.0003" in shown
    assert "TP 1 x PP 1 x DP 8" in shown
    assert site.cluster.run("squeue", "--noheader").stdout == ""


def test_dry_run_works_without_slurm_and_shows_container_commands(site: Site, tmp_path: Path) -> None:
    image = tmp_path / "agentlm.sqsh"
    image.touch()
    site.write_cluster_env(
        CONTAINER_RUNTIME="pyxis",
        CONTAINER_IMAGE=str(image),
        CONTAINER_MOUNTS="/scratch:/scratch",
        DEVICE="cuda",
        PYTHON="",
    )
    done = site.run("bash", LAUNCH / "train_70b.sbatch", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "4 nodes x 8 tasks = 32 ranks" in done.stdout
    assert f"--container-image={image}" in done.stdout
    assert f"{site.folder}:{site.folder}" in done.stdout
    assert "/scratch:/scratch" in done.stdout
    assert "--no-container-mount-home" in done.stdout
    site.write_cluster_env(CONTAINER_RUNTIME="apptainer", CONTAINER_IMAGE=str(image), DEVICE="cuda", PYTHON="")
    done = site.run("bash", LAUNCH / "train_13b.sbatch", "--dry-run")
    assert "apptainer exec --no-home --bind" in done.stdout
    assert "--nv" in done.stdout


def test_site_options_reach_sbatch(site: Site) -> None:
    site.write_cluster_env(
        ACCOUNT="physics", QOS="long", PARTITION="main", CPU_PARTITION="main", SBATCH_OPTIONS="--nice=5 --comment=me"
    )
    done = site.submit("--nodes=1", TRAIN, "--dry-run", "--config", f"{site.folder}/mini.yaml")
    submission = done.stdout.splitlines()[1]
    for option in ("--account=physics", "--qos=long", "--partition=main", "--nice=5", "--comment=me", "--nodes=1"):
        assert option in submission


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--nodes=2-4"], "--nodes=2-4: expected one number"),
        (["--ntasks=16"], "say --ntasks-per-node=N"),
        (["-n", "16"], "say --ntasks-per-node=N"),
        (["--gpus=4"], "say --gpus-per-node=N"),
        (["--export=NONE"], "--export=NONE: the job needs your variables"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_options_that_would_be_misread_are_refused(site: Site, options: list[str], expected: str) -> None:
    assert expected in refusal(site, *options, TRAIN, "--config", f"{site.folder}/mini.yaml")


def test_eta_above_one_and_missing_tasks_are_refused(site: Site) -> None:
    scan = [LAUNCH / "eta_scan.sbatch", "--config", f"{site.folder}/mini.yaml"]
    assert "from 0 (eta 0.0) to 10 (eta 1.0), got 20" in refusal(site, "--array=0-20", *scan)
    assert "--tasks: expected a file" in refusal(site, "--array=0-2", *scan, "--tasks", "nowhere.jsonl")


def test_evaluation_without_tasks_is_refused(site: Site) -> None:
    evaluation = [LAUNCH / "evaluate.sbatch", "--endpoint", "e.json", "--output", "out"]
    assert "--task: expected held-in or names of tasks, got none" in refusal(site, *evaluation)
    missing = refusal(site, *evaluation, "--task", "kg", "db", "--tasks", "database=nowhere.jsonl")
    assert "--tasks: expected a file of tasks or AgentBench's data folder" in missing
    assert "got 'database=nowhere.jsonl'" in missing


def test_python_of_the_sites_setup_is_found(site: Site, tmp_path: Path) -> None:
    (tmp_path / "mypython").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (tmp_path / "mypython").chmod(0o755)
    # As module systems and conda do: variables that are not set, and words of its own.
    (tmp_path / "setup.sh").write_text(f'set -- "$NOT_SET_ANYWHERE"; export PATH={tmp_path}:$PATH\n')
    site.write_cluster_env(PYTHON="mypython", SITE_SETUP=str(tmp_path / "setup.sh"))
    done = site.submit("--ntasks-per-node=2", TRAIN, "--config", f"{site.folder}/mini.yaml", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "TP 1 x PP 1 x DP 2" in done.stdout


def test_a_batch_script_run_by_hand_says_how_to_submit_it(site: Site) -> None:
    done = site.run("bash", TRAIN, "--config", f"{site.folder}/mini.yaml")
    assert done.returncode == 2
    assert "submit it with launch/submit.sh" in done.stderr


def test_help_lists_the_scripts(site: Site) -> None:
    done = site.submit("--help")
    assert done.returncode == 0
    assert all(f"launch/{script.name}" in done.stdout for script in SCRIPTS)
