"""Where AgentInstruct comes from: names of files, and the Hub's real client against a local server."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_prep.agentinstruct.sources import input_files, open_source, split_of
from megatron_agent.errors import UserError
from tests.data_prep.agentinstruct.hub_server import COMMIT, serve_hub
from tests.data_prep.conftest import record

ROWS = (
    record("db_0", "instruction", "!Ok.", "task", "x\nAction: Answer\nFinal Answer: [1]"),
    record("os_0", "q", "Act: finish"),
)


def run(folder: Path, endpoint: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does; the Hub's client reads HF_ENDPOINT once, when it is imported."""
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(folder / "cache")}
    environment.pop("HF_HUB_OFFLINE", None)
    command = [sys.executable, "-m", "data_prep.import_agentinstruct", "--output", str(folder / "out.jsonl")]
    return subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("db-00000-of-00001-916a87c4725da8c0.parquet", "db"),
        ("mind2web-00000-of-00001.parquet", "mind2web"),
        ("os.jsonl", "os"),
        ("kg.json.gz", "kg"),
        ("train-00000-of-00001.parquet", None),
        ("data.jsonl", None),
    ],
)
def test_splits_of_files(name: str, split: str | None) -> None:
    assert split_of(Path("data") / name) == split


def test_folders(tmp_path: Path) -> None:
    for name in ("b.json", "a.jsonl.gz", "c.jsonl", "notes.md"):
        (tmp_path / name).write_text("")
    (tmp_path / "kg.parquet").mkdir()  # a folder that is named as Spark names a data set
    assert [path.name for path in input_files(tmp_path)] == ["a.jsonl.gz", "c.jsonl"]
    with pytest.raises(UserError, match="--revision v1: only for --input hf:OWNER/NAME"):
        open_source(str(tmp_path), "v1")


def test_the_hub(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub", reason="the Hub needs huggingface_hub (extra hub)")
    pyarrow = pytest.importorskip("pyarrow", reason="parquet needs pyarrow (extra hub)")
    from pyarrow import parquet

    files = {"README.md": b"a card"}
    for row in ROWS:
        table = pyarrow.BufferOutputStream()
        parquet.write_table(pyarrow.Table.from_pylist([row]), table)
        task = row["id"].split("_")[0]
        files[f"data/{task}-00000-of-00001-9f1c.parquet"] = table.getvalue().to_pybytes()
    report = tmp_path / "report.json"
    with serve_hub("THUDM/AgentInstruct", files) as hub:
        source = ("--input", "hf:THUDM/AgentInstruct", "--report", str(report))
        done = run(tmp_path, hub.endpoint, *source, "--revision", "v1")
        assert (done.returncode, done.stderr.count("error")) == (0, 0)
        assert [json.loads(line) for line in (tmp_path / "out.jsonl").open()] == list(ROWS)
        expected = {"repository": "THUDM/AgentInstruct", "revision": "v1", "commit": COMMIT}
        assert json.loads(report.read_text())["source"]["hub"] == expected
        assert not any("README" in path for path in hub.asked if "/resolve/" in path)
        for name, revision, words in (
            ("no/such", "main", "no such data set on the Hub, or it is private"),
            ("private/data", "main", "no such data set on the Hub, or it is private"),
            ("gated/data", "main", "access is restricted; ask for it on the Hub and set HF_TOKEN"),
            ("THUDM/AgentInstruct", "v9", "no revision 'v9'; give a branch, tag or commit of it"),
        ):
            failed = run(tmp_path / "other", hub.endpoint, "--input", f"hf:{name}", "--revision", revision)
            assert (failed.returncode, failed.stderr.count("\n")) == (2, 1)
            assert failed.stderr.startswith(f"error: --input hf:{name}: {words}")
            assert not (tmp_path / "other" / "out.jsonl").exists()
    again = run(tmp_path, hub.endpoint, *source, "--revision", COMMIT)  # the server has gone, the cache has it
    assert again.returncode == 0
    assert json.loads(report.read_text())["source"]["hub"]["commit"] == COMMIT
    unreachable = run(tmp_path / "other", hub.endpoint, "--input", "hf:THUDM/AgentInstruct")
    assert (unreachable.returncode, unreachable.stderr.count("\n")) == (2, 1)
    assert "could not be downloaded" in unreachable.stderr
    assert "check the name and the network" in unreachable.stderr
