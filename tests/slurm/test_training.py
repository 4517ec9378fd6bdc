"""launch/train_7b.sbatch, unmodified but for its configuration, on a real SLURM: 2 nodes x 2 ranks, gloo."""

import os
import re
import signal
import time
from pathlib import Path

from tests.slurm.conftest import LAUNCH, Site, process_of_rank

SHAPE = ("--nodes=2", "--ntasks-per-node=2")
SCRIPT = LAUNCH / "train_7b.sbatch"


def arguments(site: Site, run: str, **overrides: object) -> list[str]:
    """The job's arguments: the site's mini configuration, its own run folder."""
    words = ["--config", f"{site.folder}/mini.yaml", "--training.output_dir", run]
    for name, value in overrides.items():
        words += [f"--{name.replace('__', '.')}", str(value)]
    return words


def losses(site: Site, run: str) -> list[tuple[int, float, float]]:
    return [(record["step"], record["loss"], record["grad_norm"]) for record in site.metrics(run)]


def test_a_stopped_job_is_requeued_and_continues_as_an_uninterrupted_one(site: Site) -> None:
    whole = site.start(*SHAPE, SCRIPT, *arguments(site, "runs/whole"))
    log = site.finish(whole)
    assert "2 nodes, 4 ranks, rendezvous node1:" in log
    assert re.search(r"^node2\b.*ok", log, re.MULTILINE), "preflight has a line for each node"
    assert "preflight: 2 nodes, 4 ranks: ok" in log
    assert "training is complete" in log
    logs = sorted(path.name for path in (site.folder / "logs" / f"agentlm-7b-{whole}" / "attempt_0").glob("rank_*"))
    assert logs == [f"rank_{rank}.log" for rank in range(4)]

    stopped = site.start(*SHAPE, SCRIPT, *arguments(site, "runs/stopped"))
    site.wait_for_log(stopped, r"^step 8/24")
    assert site.cluster.run("scancel", "--signal=TERM", stopped).returncode == 0
    log = site.finish(stopped)
    assert site.cluster.state(stopped)["Restarts"] == "1"
    assert "told to stop: requeue 1 of at most 10" in log
    assert f"job {stopped}, start 2: 2 nodes" in log
    (resumed,) = re.findall(r"^resuming .* after step (\d+)", log, re.MULTILINE)
    assert 8 <= int(resumed) < 24, "the checkpoint is of the moment of the signal, not an earlier one"
    assert losses(site, "runs/stopped") == losses(site, "runs/whole")


def test_a_killed_rank_ends_the_job_at_once_and_is_named_last(site: Site) -> None:
    job = site.start(*SHAPE, SCRIPT, *arguments(site, "runs/killed", training__train_iters=2000))
    site.wait_for_log(job, r"^step 3/2000")
    os.kill(process_of_rank(3, job), signal.SIGKILL)
    log = site.finish(job, "FAILED", timeout=30)
    last = log.splitlines()[-1]
    assert re.search(r"training failed with status \d+: first failure on node2, rank 3: Killed$", last)
    assert "requeue" not in log
    assert not re.search(r"^step 1000/", log, re.MULTILINE)


def test_a_node_that_fails_preflight_stops_the_job_before_training(site: Site, tmp_path: Path) -> None:
    # What a half-updated node looks like: the same software, another version of one package.
    package = tmp_path / "other" / "numpy-0.0.1.dist-info"
    package.mkdir(parents=True)
    package.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 0.0.1\n")
    setup = tmp_path / "setup.sh"
    setup.write_text(f'[ "$SLURMD_NODENAME" != node2 ] || export PYTHONPATH={package.parent}\n')
    site.write_cluster_env(SITE_SETUP=str(setup))
    job = site.start(*SHAPE, SCRIPT, *arguments(site, "runs/refused"))
    log = site.finish(job, "FAILED")
    (line,) = re.findall(r"^node2\b.*", log, re.MULTILINE)
    assert "FAIL" in line
    assert "numpy is 0.0.1 here" in line
    assert re.search(r"^preflight: FAILED on node2", log, re.MULTILINE)
    assert "training was not started" in log.splitlines()[-1]
    assert not (site.folder / "runs" / "refused" / "metrics.jsonl").exists()


def test_gpus_that_are_not_there_fail_preflight(site: Site) -> None:
    site.write_cluster_env(DEVICE="cuda")
    job = site.start(*SHAPE, SCRIPT, *arguments(site, "runs/no_gpus"))
    log = site.finish(job, "FAILED")
    assert len(re.findall(r"^node[12]\b.*FAIL", log, re.MULTILINE)) == 2
    assert "training was not started" in log.splitlines()[-1]


def test_a_job_stopped_during_preflight_is_requeued(site: Site) -> None:
    job = site.start(*SHAPE, SCRIPT, *arguments(site, "runs/early", training__train_iters=2))
    site.wait_for_log(job, r"start 1: 2 nodes")
    time.sleep(1.5)  # the tasks have started, and import torch for longer than that
    site.cluster.run("scancel", "--signal=TERM", job)
    log = site.finish(job)
    assert "told to stop: requeue 1 of at most 10" in log
    assert "training is complete" in log


def test_requeues_are_bounded(site: Site) -> None:
    site.write_cluster_env(MAX_REQUEUES="0")
    job = site.start(*SHAPE, SCRIPT, *arguments(site, "runs/bounded", training__train_iters=2000))
    site.wait_for_log(job, r"^step 2/2000")
    site.cluster.run("scancel", "--signal=TERM", job)
    log = site.finish(job, "FAILED")
    assert "MAX_REQUEUES" in log.splitlines()[-1]
    assert "resumes from the checkpoint" in log.splitlines()[-1]
    assert site.cluster.state(job)["Restarts"] == "0"


def test_a_cancelled_job_stays_cancelled(site: Site) -> None:
    job = site.start(*SHAPE, SCRIPT, *arguments(site, "runs/cancelled", training__train_iters=2000))
    site.wait_for_log(job, r"^step 2/2000")
    site.cluster.run("scancel", job)
    log = site.finish(job, "CANCELLED")
    assert "requeue" not in log.lower()


def test_a_bad_configuration_is_not_requeued(site: Site) -> None:
    job = site.cluster.run(
        "sbatch", "--parsable", *SHAPE, f"--output={site.folder}/logs/%x-%j.out", str(SCRIPT),
        *arguments(site, "runs/bad", optimizer__lr=-1),
        env={"CLUSTER_ENV": f"{site.folder}/cluster.env", "AGENTLM_LAUNCH": str(LAUNCH)},
    ).stdout.strip()  # fmt: skip
    log = site.finish(job, "FAILED")
    assert "--optimizer.lr must be at least 0" in log
    assert "requeue" not in log
