"""One SLURM cluster for all tests of this folder, and a site on it: cluster.env, a tiny model, three data sources."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.conftest import REPOSITORY
from tests.slurm.cluster import Cluster, running_cluster, why_not_here
from tests.training.conftest import SEQ_LENGTH, VOCAB_SIZE, read_metrics, write_documents

LAUNCH = REPOSITORY / "launch"


@dataclass
class Site:
    """A folder of a site's user, with its cluster.env, on a running cluster."""

    cluster: Cluster
    folder: Path
    variables: dict[str, str] = field(default_factory=dict)

    def write_cluster_env(self, **variables: str) -> None:
        """Write cluster.env; keyword arguments win over the site's own."""
        lines = [f"{name}='{value}'" for name, value in {**self.variables, **variables}.items()]
        (self.folder / "cluster.env").write_text("\n".join([*lines, "export OMP_NUM_THREADS=1", ""]))

    def submit(self, *arguments: object, env: Mapping[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
        """Run launch/submit.sh on the login node, as the site's user would."""
        return self.run(LAUNCH / "submit.sh", *arguments, env=env)

    def run(self, *command: object, env: Mapping[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
        """Run a command on the login node with this site's cluster.env."""
        environment = {"CLUSTER_ENV": str(self.folder / "cluster.env"), **(env or {})}
        return self.cluster.run(*map(str, command), env=environment)

    def start(self, *arguments: object) -> str:
        """Submit a job that has to be accepted; return its number."""
        done = self.submit("--parsable", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def log(self, job: str) -> str:
        """The console log of a job, as far as it is written."""
        files = sorted((self.folder / "logs").glob(f"*-{job}.out")) + sorted(
            (self.folder / "logs").glob(f"*-{job}_*.out")
        )
        return "\n".join(file.read_text(errors="replace") for file in files)

    def wait_for_log(self, job: str, pattern: str, timeout: float = 120) -> None:
        """Wait until the job's log has a line that matches."""
        deadline = time.monotonic() + timeout
        while not re.search(pattern, self.log(job), re.MULTILINE):
            assert time.monotonic() < deadline, f"{pattern!r} did not come in {timeout} s:\n{self.log(job)}"
            time.sleep(0.2)

    def finish(self, job: str, state: str = "COMPLETED", timeout: float = 240) -> str:
        """Wait for the end of a job; return its log. AssertionError when it ended in another state."""
        ends = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED")
        fields = self.cluster.wait_for(job, *ends, timeout=timeout)
        log = self.log(job)
        assert fields["JobState"] == state, f"{fields['JobState']}:\n{log}"
        return log

    def metrics(self, run: str) -> list[dict[str, Any]]:
        """The steps of a training run, by its folder below the site's."""
        return read_metrics(self.folder / run)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A real SLURM cluster of four nodes that pretend to have 8 GPUs each."""
    if reason := why_not_here():
        pytest.skip(reason)
    with running_cluster(tmp_path_factory.mktemp("slurm")) as running:
        yield running


@pytest.fixture(scope="session")
def site_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the tiny runs start from, below one folder: model, data, configuration `mini.yaml`."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from checkpoints_convert.hf_to_megatron import convert

    folder = tmp_path_factory.mktemp("site")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=SEQ_LENGTH,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "hf")
    convert(folder / "hf", folder / "checkpoints" / "smollm2-135m")
    (folder / "data" / "smollm2").mkdir(parents=True)
    for seed, (name, count) in enumerate({"agentinstruct": 40, "gpt-4": 30, "gpt-3.5": 60}.items()):
        write_documents(folder / "data" / "smollm2" / name, count, seed)
    write_mini_config(folder / "mini.yaml", seq_length=SEQ_LENGTH, train_iters=24, global_batch_size=8, save_interval=6)
    return folder


def write_mini_config(
    path: Path, seq_length: int, train_iters: int, global_batch_size: int, save_interval: int
) -> None:
    """Write launch/configs/mini.yaml with sizes for a CPU."""
    config = yaml.safe_load((LAUNCH / "configs" / "mini.yaml").read_text())
    config["data"].update(seq_length=seq_length, validation_fraction=0.1)
    config["training"].update(
        train_iters=train_iters,
        global_batch_size=global_batch_size,
        micro_batch_size=1,
        precision="fp32",
        eval_interval=save_interval,
    )
    config["checkpoint"]["save_interval"] = save_interval
    path.write_text(yaml.safe_dump(config))


@pytest.fixture
def site(cluster: Cluster, site_folder: Path) -> Site:
    """The site, with its own cluster.env written anew for each test."""
    variables = {"PYTHON": sys.executable, "DEVICE": "cpu", "WORK_DIR": str(site_folder), "PREFLIGHT_TIMEOUT": "120"}
    site = Site(cluster, site_folder, variables)
    site.write_cluster_env()
    return site


def process_of_rank(rank: int, job: str) -> int:
    """The Python process that is `rank` of a job's training step."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = process.joinpath("environ").read_bytes().split(b"\0")
            command = process.joinpath("cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        wanted = {f"RANK={rank}".encode(), f"SLURM_JOB_ID={job}".encode()}
        if b"megatron_agent.train" in command and wanted <= set(environment) and b"srun" not in command[0]:
            return int(process.name)
    raise AssertionError(f"no process of rank {rank} of job {job}; {os.getloadavg()}")
