"""The evaluate command against a local server: scores, resuming, refusals."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from data_prep.generate_database_tasks import generate_database_tasks
from megatron_agent.errors import UserError
from megatron_agent.evaluate import main
from megatron_agent.evaluation.fingerprint import model_fingerprint
from tests.agents.openai_server import openai_server

COUNT = 12


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    generate_database_tasks("test", COUNT, 3, folder / "tasks.jsonl", folder / "gold.jsonl")
    return folder / "tasks.jsonl"


class Expert:
    """Answers as the scripted expert did; wrongly for the questions in `fails`."""

    def __init__(self, tasks: Path, fails: int = 0) -> None:
        self.replies: dict[str, list[str]] = {}
        for number, line in enumerate((tasks.parent / "gold.jsonl").read_text().splitlines()):
            turns = [turn["value"] for turn in json.loads(line)["conversations"]]
            self.replies[turns[2]] = ["I give up."] if number < fails else turns[3::2]
        self.fail_on: str | None = None

    def __call__(self, body: dict[str, Any]) -> str | tuple[int, dict[str, Any]]:
        contents = [message["content"] for message in body["messages"] if message["role"] != "system"]
        if contents[2] == self.fail_on:
            return 400, {"error": {"message": "no"}}
        return self.replies[contents[2]][(len(contents) - 3) // 2]


def command(tasks: Path, url: str, output: Path, *more: str) -> list[str]:
    return ["--task", "database", "--tasks", str(tasks), "--base-url", url, "--model", "m", "--output", str(output),
            "--prompt-style", "short", *more]  # fmt: skip


def read(output: Path) -> dict[str, Any]:
    return json.loads((output / "summary.json").read_text())


def ids(output: Path) -> list[str]:
    return [json.loads(line)["id"] for line in (output / "results.jsonl").read_text().splitlines()]


def check_transcripts(output: Path) -> None:
    """Each result's messages are in the transcript once, in order, with its end."""
    events = [json.loads(line) for line in (output / "transcripts.jsonl").read_text().splitlines()]
    for line in (output / "results.jsonl").read_text().splitlines():
        result = json.loads(line)
        mine = [event for event in events if event["task_id"] == result["id"]]
        messages = [{"role": event["role"], "content": event["content"]} for event in mine[:-1]]
        assert messages == result["messages"]
        assert (mine[-1]["event"], mine[-1]["reward"]) == ("end", result["reward"])


def test_scores(tasks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with openai_server(Expert(tasks, fails=3)) as server:
        main(command(tasks, server.base_url, tmp_path / "out", "--system-prompt", "Be good."))
    summary = read(tmp_path / "out")
    assert (summary["tasks"], summary["successes"]) == (COUNT, COUNT - 3)
    assert summary["statuses"] == {"completed": COUNT - 3, "invalid format": 3}
    assert summary["metrics"]["SELECT_accuracy"] < 1
    assert summary["completion_tokens"] == 7 * ((COUNT - 3) * 2 + 3)
    printed = capsys.readouterr().out
    assert f"success {COUNT - 3}/{COUNT}" in printed
    assert "AgentLM-7B 30.6" in printed
    assert summary["score"] == 100 * summary["metrics"]["overall_cat_accuracy"]
    check_transcripts(tmp_path / "out")
    assert (tmp_path / "out" / "transcripts.html").exists()
    assert all(body["messages"][0] == {"role": "system", "content": "Be good."} for body in server.requests)
    assert all((body["max_tokens"], body["temperature"]) == (128, 0.0) for body in server.requests)


def test_a_second_call_plays_nothing_and_other_settings_are_refused(tasks: Path, tmp_path: Path) -> None:
    with openai_server(Expert(tasks)) as server:
        main(command(tasks, server.base_url, tmp_path))
        played = len(server.requests)
        main(command(tasks, server.base_url, tmp_path))
        assert len(server.requests) == played
        with pytest.raises(UserError, match=r"another run: max_tokens differ.*there max_tokens 128, now 64"):
            main(command(tasks, server.base_url, tmp_path, "--max-tokens", "64"))
    assert read(tmp_path)["successes"] == COUNT


def test_dead_server_keeps_what_was_finished(tasks: Path, tmp_path: Path) -> None:
    expert = Expert(tasks)
    with openai_server(expert) as server:
        main(command(tasks, server.base_url, tmp_path, "--limit", "5"))
    with pytest.raises(UserError, match="no OpenAI-compatible server answers at http://127"):
        main(command(tasks, server.base_url, tmp_path, "--retries", "0"))
    assert len(ids(tmp_path)) == 5
    with openai_server(expert) as server:  # another port: the address is no part of the settings
        main(command(tasks, server.base_url, tmp_path))
        assert len(server.requests) == 2 * (COUNT - 5)
    assert sorted(ids(tmp_path)) == sorted(f"database_test_3_{i}" for i in range(COUNT))


@pytest.mark.parametrize("failure", [(404, {"error": {"message": "no such model"}}), (401, {"error": {}})])
def test_a_failed_start_leaves_the_folder_free(tasks: Path, tmp_path: Path, failure: Any) -> None:
    output = tmp_path / "out"
    with openai_server(lambda body: failure) as server, pytest.raises(UserError):
        main(command(tasks, server.base_url, output, "--model", "wrong"))
    assert not output.exists()
    with openai_server(Expert(tasks)) as server:
        main(command(tasks, server.base_url, output))
    assert (read(output)["successes"], read(output)["settings"]["model"]) == (COUNT, "m")


def test_a_folder_without_finished_tasks_is_free(tasks: Path, tmp_path: Path) -> None:
    """Settings of a run that was killed before its first result, or whose tasks all failed, bind nobody."""
    (tmp_path / "settings.json").write_text('{"model": "other"}')
    (tmp_path / "results.jsonl").write_text('{"id": "x", "status": "task error"}\n{"id": "y", "sta')
    with openai_server(Expert(tasks)) as server:
        main(command(tasks, server.base_url, tmp_path))
    assert len(ids(tmp_path)) == COUNT
    assert json.loads((tmp_path / "settings.json").read_text())["model"] == "m"


def test_other_weights_at_the_same_path_are_refused(tasks: Path, tmp_path: Path) -> None:
    model, output = tmp_path / "model", tmp_path / "out"
    model.mkdir()
    (model / "config.json").write_text("{}")
    weights = bytearray(b"w" * (40 << 20))  # larger than what is hashed whole
    (model / "model.safetensors").write_bytes(weights)
    with openai_server(Expert(tasks)) as server:
        arguments = command(tasks, server.base_url, output, "--model", str(model), "--limit", "2")
        main(arguments)
        os.utime(model / "config.json", (1, 1))  # a copy is the same model
        main(arguments)
        assert len(server.requests) == 4
        (model / "model.safetensors").write_bytes(b"v" * len(weights))
        with pytest.raises(
            UserError, match=r"results of other weights: .* another --output folder, or delete this one"
        ):
            main(arguments)


@pytest.mark.parametrize("position", [0, 65_535, 65_536, 70_000, 199_999])
def test_every_byte_of_small_files_counts(tmp_path: Path, position: int) -> None:
    content = bytearray(200_000)
    (tmp_path / "model.safetensors").write_bytes(content)
    (tmp_path / "README.md").write_text("a")
    before = model_fingerprint(tmp_path)
    (tmp_path / "README.md").write_text("b")
    assert model_fingerprint(tmp_path) == before
    content[position] = 1
    (tmp_path / "model.safetensors").write_bytes(content)
    assert model_fingerprint(tmp_path) != before


def test_database_has_no_repetition_limit_of_its_own(tasks: Path, tmp_path: Path) -> None:
    """AgentBench has none for this task; the limit of AgentTuning's collection can be asked for."""
    same = "Again.\nAction: Operation\n```sql\nSELECT 1\n```"
    for name, more, status in (("none", [], "limit reached"), ("three", ["--repetition-limit", "3"], "repetition")):
        with openai_server(lambda body: same) as server:
            main(command(tasks, server.base_url, tmp_path / name, "--limit", "1", *more))
        assert read(tmp_path / name)["statuses"] == {status: 1}


def test_task_errors_are_played_again(tasks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expert = Expert(tasks)
    expert.fail_on = next(iter(expert.replies))
    with openai_server(expert) as server:
        main(command(tasks, server.base_url, tmp_path))
        assert read(tmp_path)["statuses"] == {"completed": COUNT - 1, "task error": 1}
        assert (
            capsys.readouterr()
            .out.splitlines()[-1]
            .startswith(
                "task errors, which count 0 and are played again by the same command: "
                f"1 of {COUNT} episodes of database (status 400: "
            )
        )
        expert.fail_on = None
        main(command(tasks, server.base_url, tmp_path))
    assert read(tmp_path)["statuses"] == {"completed": COUNT}
    assert len(ids(tmp_path)) == COUNT


def test_a_run_of_task_errors_alone_fails(tasks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its score says nothing: the status is 1; results and transcripts are there, and the next run plays all again."""
    with openai_server(lambda body: (500, {"error": {"message": "boom"}})) as server, pytest.raises(SystemExit) as end:
        main(command(tasks, server.base_url, tmp_path, "--retries", "0"))
    assert end.value.code == 1
    printed = capsys.readouterr()
    assert f"{COUNT} of {COUNT} episodes of database (status 500: " in printed.out.splitlines()[-1]
    assert f"score 0.0, {COUNT} task errors" in printed.err
    assert len(ids(tmp_path)) == COUNT
    check_transcripts(tmp_path)
    with openai_server(Expert(tasks)) as server:
        main(command(tasks, server.base_url, tmp_path))
    assert read(tmp_path)["successes"] == COUNT
    assert "task error" not in capsys.readouterr().out


def test_killed_run_goes_on(tasks: Path, tmp_path: Path) -> None:
    """SIGKILL in the middle, a half-written last line, then the same command."""
    expert = Expert(tasks)
    gate = threading.Event()
    output = tmp_path / "out"

    def slow(body: dict[str, Any]) -> Any:
        if not gate.is_set() and (output / "results.jsonl").exists() and len(ids(output)) >= 3:
            gate.wait(60)
        return expert(body)

    with openai_server(slow) as server:
        arguments = command(tasks, server.base_url, output, "--concurrency", "1")
        process = subprocess.Popen(
            [sys.executable, "-m", "megatron_agent.evaluate", *arguments],
            cwd=Path(__file__).resolve().parents[2],
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 60
        while not ((output / "results.jsonl").exists() and len(ids(output)) >= 3):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        gate.set()
        finished = ids(output)
        assert not (output / "summary.json").exists()
        with open(output / "results.jsonl", "a") as handle:
            handle.write('{"id": "database_test_3_7", "stat')
        with open(output / "transcripts.jsonl", "a") as handle:
            handle.write('{"event": "message", "task')
        before = len(server.requests)
        main(arguments)
        assert len(server.requests) - before == 2 * (COUNT - len(finished))
    assert ids(output)[: len(finished)] == finished
    assert len(set(ids(output))) == COUNT
    assert read(output)["successes"] == COUNT
    check_transcripts(output)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_one_line_and_the_run_goes_on(tasks: Path, tmp_path: Path, number: int, status: int) -> None:
    """The episode under way has its messages in the transcript, and is played again from its start."""
    expert = Expert(tasks)
    asked, gate = threading.Event(), threading.Event()

    def slow(body: dict[str, Any]) -> Any:
        if len(body["messages"]) > 3:  # the second reply of an episode
            asked.set()
            gate.wait(30)
        return expert(body)

    arguments = ["--concurrency", "1", "--limit", "2"]
    with openai_server(slow) as server:
        process = subprocess.Popen(
            [sys.executable, "-m", "megatron_agent.evaluate", *command(tasks, server.base_url, tmp_path, *arguments)],
            cwd=Path(__file__).resolve().parents[2],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert asked.wait(60)
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
        gate.set()
        assert process.returncode == status
        assert errors.endswith("\nstopped: what is finished is kept, the same command goes on from there\n")
        assert "Traceback" not in errors
        events = [json.loads(line) for line in (tmp_path / "transcripts.jsonl").read_text().splitlines()]
        assert [event["role"] for event in events] == ["user", "assistant", "user", "assistant", "user"]
        main(command(tasks, server.base_url, tmp_path, *arguments))
    assert read(tmp_path)["successes"] == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"rubbish", r"results\.jsonl:1: expected a line of JSON"),
        (b'{"id": "\xff", "status": "completed"}', r"results\.jsonl:1: expected a line of JSON"),
        (b"[" * 100_000, r"results\.jsonl:1: expected a line of JSON"),
        (b"[1]", r"results\.jsonl:1: expected a JSON object"),
        (b'{"id": ["x"], "status": "completed"}', r"results\.jsonl:1: expected a result of an earlier run"),
        (b'{"id": "x", "status": null}', r"results\.jsonl:1: expected a result of an earlier run"),
        (b"{}", r"results\.jsonl:1: expected a result of an earlier run, got None under 'id'"),
        (
            b'{"id": "x", "status": "completed"}',
            r"results\.jsonl:1: expected a result of .*, got None under 'category'",
        ),
        (b'{"id": "x", "status": "completed", "category": "c", "reward": "1"}', r"got '1' under 'reward'"),
    ],
)
def test_damaged_results_are_refused(tasks: Path, tmp_path: Path, line: bytes, message: str) -> None:
    with openai_server(Expert(tasks)) as server:
        main(command(tasks, server.base_url, tmp_path, "--limit", "2"))
        path = tmp_path / "results.jsonl"
        path.write_bytes(line + b"\n" + path.read_bytes())
        with pytest.raises(UserError, match=message):
            main(command(tasks, server.base_url, tmp_path))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--task", "chess"], "--task: expected held-in or one of alfworld, webshop"),
        (["--prompt-style", "long"], "--prompt-style: expected one of paper, fixed, short"),
        (["--concurrency", "0"], "--concurrency: expected at least 1"),
        (["--max-tokens", "0"], "--max-tokens: expected at least 1"),
        (["--limit", "0"], "--limit: expected at least 1, got 0"),
        (["--limit", "-1"], "--limit: expected at least 1, got -1"),
        (["--timeout", "0"], "--timeout: expected seconds above 0"),
        (["--timeout", "nan"], "--timeout: expected seconds above 0"),
        (["--temperature", "-0.1"], "--temperature: expected at least 0"),
        (["--top-p", "0"], "--top-p: expected above 0 and at most 1"),
        (["--price-prompt", "-1"], "--price-prompt: expected at least 0"),
        (["--expert"], "--expert asks no server: leave --base-url, --model away"),
        (["--replay", "x", "--seed", "1"], "--replay asks no server: leave --base-url, --model, --seed away"),
        (["--expert", "--replay", "x"], "--expert and --replay both say who plays"),
        (["--temperature", "inf"], "--temperature: expected at least 0"),
        (["--base-url", "nowhere"], "--base-url: expected an http"),
        (["--base-url", "http://"], "--base-url: expected an http"),
        (["--base-url", "http://127.0.0.1:99999/v1"], "--base-url: expected an http"),
        (["--base-url", "http://[bad/v1"], "--base-url: expected an http"),
        (["--api-key", ""], "the API key must be of visible ASCII characters"),
        (["--api-key", "one\ntwo"], "the API key must be of visible ASCII characters"),
        (["--tasks", "missing.jsonl"], r"missing\.jsonl"),
    ],
)
def test_bad_arguments_leave_nothing_behind(tasks: Path, tmp_path: Path, more: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        main(command(tasks, "http://127.0.0.1:9/v1", tmp_path / "out", *more))
    assert not (tmp_path / "out").exists()


def test_help_shows_an_example_and_errors_exit_with_2(tasks: Path, tmp_path: Path) -> None:
    run = [sys.executable, "-m", "megatron_agent.evaluate"]
    root = Path(__file__).resolve().parents[2]
    shown = subprocess.run([*run, "--help"], cwd=root, capture_output=True, text=True, check=True)
    assert "example" in shown.stdout
    failed = subprocess.run(
        [*run, *command(tasks, "nowhere", tmp_path)], cwd=root, capture_output=True, text=True, check=False
    )
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: --base-url")
