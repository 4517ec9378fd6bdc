"""What can be tested of launch/ without SLURM: names, pages, and what a step's messages are taken to mean."""

import re
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
LAUNCH = REPOSITORY / "launch"
PAGE = REPOSITORY / "docs" / "cluster.md"


def bash(script: str, *arguments: object) -> str:
    """Run `script` with common.sh and train.sh sourced; return its output."""
    sourced = f'set -euo pipefail; LAUNCH={LAUNCH}; source "$LAUNCH/common.sh"; source "$LAUNCH/train.sh"; {script}'
    done = subprocess.run(["bash", "-c", sourced, "bash", *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def site_variables() -> set[str]:
    """The assignments of launch/cluster.env."""
    return set(re.findall(r"^([A-Z_]+)=", (LAUNCH / "cluster.env").read_text(), re.MULTILINE))


def test_site_variables_are_the_same_in_file_scripts_and_page() -> None:
    assert set(bash("echo $SITE_VARIABLES").split()) == site_variables()
    table = re.findall(r"^\| (`[A-Z_`, ]+) \|", PAGE.read_text(), re.MULTILINE)
    assert set(re.findall(r"[A-Z_]+", " ".join(table))) == site_variables()


def test_pages_name_scripts_that_exist() -> None:
    for page in (REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")):
        for name in re.findall(r"launch/([\w.]+\.(?:sh|sbatch|env))", page.read_text()):
            assert (LAUNCH / name).is_file(), f"{page.name} names launch/{name}"


ENDED_BY_SLURM = "srun: launch/slurm: _step_signal: Terminating StepId=4.1\n"


@pytest.mark.parametrize(
    ("messages", "requeued"),
    [
        (
            f"srun: error: node2: task 2: Exited with exit code 85\n{ENDED_BY_SLURM}srun: error: node1: task 0: Killed",
            True,
        ),
        ("srun: error: node2: tasks 0-3: Exited with exit code 85", True),
        ("srun: error: node1: tasks 0-3: Terminated", True),  # before the ranks had joined
        (
            f"srun: error: node1: task 1: Exited with exit code 2\n{ENDED_BY_SLURM}srun: error: node1: task 0: Killed",
            False,
        ),
        (f"srun: error: node2: task 3: Killed\n{ENDED_BY_SLURM}srun: error: node1: task 0: Terminated", False),
        (f"srun: error: node2: task 3: Out Of Memory\n{ENDED_BY_SLURM}srun: error: node1: task 0: Terminated", False),
        ("srun: error: node1: tasks 0-3: Exited with exit code 86", False),
        ("srun: error: Unable to create step for job 7: Invalid generic resource (gres) specification", False),
        ("", False),
    ],
)
def test_only_a_run_that_was_told_to_stop_is_requeued(tmp_path: Path, messages: str, requeued: bool) -> None:
    log = tmp_path / "srun.log"
    log.write_text(messages + "\n")
    assert bash("told_to_stop $1 && echo yes || echo no", log) == ("yes" if requeued else "no")


def test_ranks_that_slurm_killed_are_not_the_first_failure(tmp_path: Path) -> None:
    (tmp_path / "srun.log").write_text(
        f"srun: error: node2: task 1: Exited with exit code 1\n{ENDED_BY_SLURM}srun: error: node1: task 0: Killed\n"
    )
    said = bash('RANK_LOGS=$1; explain_failure 137 "$1/srun.log"', tmp_path)
    assert said.endswith("first failure on node2, rank 1: Exited with exit code 1")


def test_an_element_of_an_array_is_never_named_by_the_bare_number() -> None:
    """The last element's SLURM_JOB_ID is the array's own: `scontrol requeue` of it would restart all."""
    assert bash("SLURM_JOB_ID=44 SLURM_ARRAY_JOB_ID=44 SLURM_ARRAY_TASK_ID=2; job_number") == "44_2"
    assert bash("SLURM_JOB_ID=7; unset SLURM_ARRAY_JOB_ID; job_number") == "7"


def test_the_first_failure_is_named_before_those_it_caused(tmp_path: Path) -> None:
    (tmp_path / "srun.log").write_text(
        "srun: error: node1: tasks 0-1: Exited with exit code 1\n"
        "srun: error: node7: task 59: Killed\n"
        "srun: error: node2: tasks 8-15: Exited with exit code 1\n"
    )
    (tmp_path / "rank_59.log").write_text("".join(f"line {i}\n" for i in range(100)))
    said = bash('RANK_LOGS=$1; explain_failure 137 "$1/srun.log"', tmp_path).splitlines()
    assert said[-1].endswith("training failed with status 137: first failure on node7, rank 59: Killed")
    assert "  | line 99" in said
    assert "  | line 80" not in said


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--hf", "a b", "--output=c", "rest"], "a b|c|rest"),
        (["--output", "c", "--hf=x", "--other", "y"], "x|c|--other y"),
        (["--hf", ""], "||"),
    ],
)
def test_options_are_taken_out_of_the_arguments(words: list[str], expected: str) -> None:
    script = 'take_mode "$@"; HF= OUTPUT=; take_options hf output; echo "$HF|$OUTPUT|${ARGUMENTS[*]}"'
    assert bash(script, *words) == expected


def test_tasks_are_a_path_or_names_with_paths(tmp_path: Path) -> None:
    for name in ("a b.jsonl", "c.jsonl"):
        (tmp_path / name).touch()
    script = "CLUSTER_ENV=x MODE=run WORK_DIR=/ MODELS_DIR=/ MOUNTED=(); TASKS=$1; shift; "
    script += 'evaluation_options "$@"; '
    script += 'printf "%s|" "${TASK_OPTIONS[@]}"'
    assert bash(script, tmp_path / "a b.jsonl") == f"--tasks|{tmp_path}/a b.jsonl|"
    named = f"database={tmp_path}/c.jsonl kg={tmp_path}/c.jsonl"
    assert bash(script, named) == f"--tasks|database={tmp_path}/c.jsonl|--tasks|kg={tmp_path}/c.jsonl|"
    assert bash(script, "") == "|"
    assert bash(script, tmp_path, "held-in") == f"--tasks|{tmp_path}|"
    assert bash(script, tmp_path / "c.jsonl", "os") == f"--tasks|{tmp_path}/c.jsonl|"
    for tasks in (["held-in"], ["os", "db"]):  # said before a model is trained for it
        with pytest.raises(AssertionError, match=r"c.jsonl is a file, of one task: name it with --task, or give NAME"):
            bash(script, tmp_path / "c.jsonl", *tasks)
    folder = 'evaluation_folder "$@"'
    assert bash(folder, "runs/x", "database") == "runs/x/evaluation/database"
    assert bash(folder, "runs/x", "held-in") == bash(folder, "runs/x", "os", "db") == "runs/x/evaluation"


def test_the_port_comes_from_the_job_and_stays_below_the_ephemeral_ports() -> None:
    script = "scontrol() { echo node3; echo node4; }; export SLURM_JOB_NODELIST=x\n"
    script += 'for SLURM_JOB_ID in 1 19999 20000 4294967; do rendezvous; echo "$RENDEZVOUS"; done'
    shown = bash(script).split()
    assert shown == ["node3:10001", "node3:29999", "node3:10000", "node3:24967"]


def test_the_rank_that_started_the_container_is_shown_when_pyxis_fails(tmp_path: Path) -> None:
    # As Pyxis 0.24 writes it: one task of the node has the reason.
    tmp_path.joinpath("srun.log").write_text("srun: error: node2: tasks 2-3: Exited with exit code 1\n")
    tmp_path.joinpath("rank_2.log").write_text(
        "slurmstepd-node2: error: pyxis: container was not started successfully by another task\n"
    )
    tmp_path.joinpath("rank_3.log").write_text(
        "slurmstepd-node2: error: pyxis: printing enroot log file:\n"
        "slurmstepd-node2: error: pyxis:     [ERROR] File already exists: /enroot/pyxis_30.1\n"
    )
    said = bash('RANK_LOGS=$1; explain_failure 1 "$1/srun.log"', tmp_path).splitlines()
    assert "File already exists" in said[-2]
    assert said[-1].endswith("first failure on node2, rank 2-3: the container did not start")


@pytest.mark.parametrize(
    ("rendezvous", "expected"), [("node1:10020", "node1 10020 4 3 1"), ("", "none none none none none")]
)
def test_ranks_are_made_of_the_rendezvous_whatever_a_container_sets(
    tmp_path: Path, rendezvous: str, expected: str
) -> None:
    hook = {"MASTER_ADDR": "image", "MASTER_PORT": "61000", "WORLD_SIZE": "9", "RANK": "8", "LOCAL_RANK": "7"}
    step = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "RENDEZVOUS": rendezvous}
    place = {"WORK_DIR": str(tmp_path), "ROOT": str(REPOSITORY), "PATH": "/usr/bin:/bin"}
    shown = " ".join(f"${{{name}:-none}}" for name in hook)
    done = subprocess.run(
        ["bash", LAUNCH / "rank.sh", "bash", "-c", f"echo {shown}"],
        env={**hook, **step, **place},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == expected, done.stderr


def test_exports_of_the_site_win_over_an_image(tmp_path: Path) -> None:
    tmp_path.joinpath("cluster.env").write_text("PYTHON=python\nexport HF_TOKEN=x\nexport LD_LIBRARY_PATH=/opt\n")
    names = bash(f"CLUSTER_ENV={tmp_path}/cluster.env; task_variables").split(",")
    assert {"RENDEZVOUS", "OMP_NUM_THREADS", "NCCL_DEBUG", "HF_TOKEN"} <= set(names)
    assert not {"LD_LIBRARY_PATH", "PYTHON"} & set(names)
