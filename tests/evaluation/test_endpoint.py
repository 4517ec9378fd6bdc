"""evaluate --endpoint: the file that launch/serve.sbatch writes, in place of address, model and key."""

import json
from pathlib import Path
from typing import Any

import pytest

from data_prep.generate_database_tasks import generate_database_tasks
from megatron_agent.errors import UserError
from megatron_agent.evaluate import main
from megatron_agent.evaluation.fingerprint import model_fingerprint
from tests.agents.openai_server import openai_server

KEY = "a-secret-key"


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    generate_database_tasks("test", 1, 3, tmp_path / "tasks.jsonl")
    return tmp_path / "tasks.jsonl"


def write_endpoint(where: Path, **fields: Any) -> Path:
    path = where / "endpoint.json"
    path.write_text(json.dumps({"base_url": "http://127.0.0.1:1/v1", "model": "m", "api_key": KEY, **fields}))
    return path


def arguments(tasks: Path, endpoint: Path, *more: str) -> list[str]:
    return [
        "--task",
        "database",
        "--tasks",
        str(tasks),
        "--output",
        str(tasks.parent / "out"),
        "--endpoint",
        str(endpoint),
        *more,
    ]


def test_the_server_of_the_file_is_played_and_its_weights_are_noted(tasks: Path, tmp_path: Path) -> None:
    folder = tmp_path / "hf"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    with openai_server(lambda body: "I give up.") as server:
        main(
            arguments(tasks, write_endpoint(tmp_path, base_url=server.base_url, model="agentlm-7b", folder=str(folder)))
        )
    assert server.requests[0]["model"] == "agentlm-7b"
    settings = json.loads((tmp_path / "out" / "summary.json").read_text())["settings"]
    assert settings["model"] == "agentlm-7b"
    assert settings["model_sha256"] == model_fingerprint(folder)


def test_a_file_without_a_folder_notes_no_weights(tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # Path("") is the folder one stands in
    with openai_server(lambda body: "I give up.") as server:
        main(arguments(tasks, write_endpoint(tmp_path, base_url=server.base_url)))
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["settings"]["model_sha256"] is None


@pytest.mark.parametrize(
    ("fields", "more", "message"),
    [
        ({"extra": "x"}, [], "expected the fields base_url, model, api_key, folder, job_id, got"),
        ({"api_key": 7}, [], "expected text in every field"),
        ({}, ["--model", "m"], "--endpoint and --model both say where"),
    ],
)
def test_refusals_do_not_show_the_key(
    tasks: Path, tmp_path: Path, fields: dict[str, Any], more: list[str], message: str
) -> None:
    with pytest.raises(UserError) as refused:
        main(arguments(tasks, write_endpoint(tmp_path, **fields), *more))
    assert message in str(refused.value)
    assert KEY not in str(refused.value)


def test_without_an_endpoint_address_and_model_are_needed(tasks: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--model is missing: give --base-url and --model, or --endpoint FILE"):
        main(
            [
                "--task",
                "database",
                "--tasks",
                str(tasks),
                "--output",
                str(tmp_path / "out"),
                "--base-url",
                "http://127.0.0.1:1/v1",
            ]
        )
