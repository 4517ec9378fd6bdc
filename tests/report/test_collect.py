"""What is read of runs and evaluations, against figures by hand; what is missing, unfinished or damaged."""

import json
import math
import os
from pathlib import Path

import pytest

from megatron_agent.errors import UserError
from megatron_agent.report.collect import Report, RunResult, collect
from megatron_agent.report.scores import mean_with_interval, read_score
from megatron_agent.report.tables import report_tables
from megatron_agent.report.training_result import eta_in_name
from tests.report.results import write_checkpoint, write_evaluation, write_held_out, write_run, write_steps


def only(report: Report) -> RunResult:
    (run,) = report.runs
    return run


def test_a_run_by_hand(tmp_path: Path) -> None:
    """Five steps of 9 s and 1 s before each; step 3 was skipped; from step 4 on 8 ranks instead of 4."""
    folder = tmp_path / "run"
    write_steps(folder, [1, 2, 3])
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    skipped = json.dumps({**json.loads(lines[2]), "loss": None, "skipped": True})
    (folder / "metrics.jsonl").write_text("\n".join([*lines[:2], skipped, ""]))
    write_steps(folder, [4, 5], ranks=8)
    for step, losses in ((0, (9.0, 9.0, 9.0)), (3, (1.0, 2.0, 3.0)), (5, (0.5, 3.0, 4.0))):
        write_held_out(folder, step, *losses)
    write_checkpoint(folder, 3, eta=0.3, train_iters=5)
    write_checkpoint(folder, 5, eta=0.3, train_iters=5)
    write_evaluation(folder / "evaluation" / "database", 9, 36)
    report = collect([folder])
    run = only(report)
    training = run.training
    assert training is not None
    assert (run.name, run.eta, run.model, run.complete, run.lacks) == ("run", 0.3, "models/tiny", True, [])
    assert (training.steps, training.train_iters, training.checkpoint_step) == (5, 5, 5)
    assert training.trained_tokens == 4 * 40
    assert training.hours == pytest.approx(50 / 3600)
    assert training.gpu_hours == pytest.approx((30 * 4 + 20 * 8) / 3600)
    assert (training.best_step, training.last_measured) == (3, 5)  # means 2.0 and 2.5
    assert [training.held_out("agent", step) for step in (3, 5, 4, None)] == [1.0, 0.5, None, None]
    assert training.agent_sources == {"agent"}
    assert run.scores["database"].rate == 0.25
    assert run.scores["database"].interval == pytest.approx((0.1375, 0.4107), abs=1e-4)  # Wilson: by hand below
    z, p, n = 1.959963984540054, 0.25, 36
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    assert run.scores["database"].interval[1] - run.scores["database"].interval[0] == pytest.approx(2 * half)
    assert (report.failed, report.remarks) == (False, [])


def test_no_gpu_hours_on_cpus_and_of_old_runs(tmp_path: Path) -> None:
    write_steps(tmp_path / "cpu", [1], memory={"rss": 1})
    write_steps(tmp_path / "old", [1])
    path = tmp_path / "old" / "metrics.jsonl"
    record = json.loads(path.read_text())
    del record["world_size"]
    path.write_text(json.dumps(record) + "\n")
    for run in collect([tmp_path]).runs:
        assert run.training is not None
        assert run.training.gpu_hours is None
        assert run.training.hours == pytest.approx(10 / 3600)


def test_the_mean_over_tasks_by_hand(tmp_path: Path) -> None:
    """Of one score it has that score's interval; of two, half the root of the sum of squared distances."""
    one = read_score(write_evaluation(tmp_path / "a", 9, 36))
    two = read_score(write_evaluation(tmp_path / "b", 30, 40, task="os"))
    assert one is not None
    assert two is not None
    assert mean_with_interval([one]) == (0.25, pytest.approx(one.interval))
    mean, (low, high) = mean_with_interval([one, two])
    assert mean == 0.5
    below = (0.25 - one.interval[0]) ** 2 + (0.75 - two.interval[0]) ** 2
    above = (one.interval[1] - 0.25) ** 2 + (two.interval[1] - 0.75) ** 2
    assert (low, high) == (pytest.approx(0.5 - math.sqrt(below) / 2), pytest.approx(0.5 + math.sqrt(above) / 2))


def test_a_scan_with_missing_unfinished_and_empty_runs(tmp_path: Path) -> None:
    scan = tmp_path / "scan"
    for eta in (0.0, 0.2):
        write_evaluation(write_run(scan / f"{eta:.1f}", eta) / "evaluation" / "database", 6, 10)
    write_run(scan / "0.4", 0.4, steps=2)  # stopped
    write_evaluation(scan / "0.4" / "evaluation" / "database", 2, 5, finished=False)
    write_held_out(scan / "0.6", 0, 1.0, 1.0, 1.0)  # killed before its first step
    (scan / "0.7" / "checkpoints").mkdir(parents=True)  # killed before that
    write_steps(scan / "0.8", [1])  # killed before its first checkpoint
    write_run(scan / "0.9", 0.9, steps=3)
    write_checkpoint(scan / "0.9", 2, 0.9, 3)
    os.rename(scan / "0.9/checkpoints/iter_0000003", scan / "0.9/checkpoints/.iter_0000003.tmp")  # its last save failed
    report = collect([scan], expected_eta=[0.2, 0.4, 0.6, 1.0, 0.0, 0.2])
    lacks = {run.name: run.lacks for run in report.runs}
    assert lacks == {
        "0.0": [],
        "0.2": [],
        "0.4": ["unfinished: 2 of 3 steps", "evaluation/database is unfinished: 5 results and no summary.json",
                "no score on database"],
        "0.6": ["no step is finished", "no score on database"],
        "0.7": ["no step is finished", "no score on database"],
        "0.8": ["step 1, and no complete checkpoint that tells of how many", "no score on database"],
        "0.9": ["no checkpoint of the last step 3, the newest is of step 2", "no score on database"],
    }  # fmt: skip
    assert (report.missing_eta, report.failed, report.etas[-1]) == ([1.0], True, 0.9)
    assert report.remarks == [f"{name}: eta {name} is taken from the folder's name" for name in ("0.6", "0.7", "0.8")]
    assert not collect([scan], expected_eta=[0.0, 0.2]).failed
    assert not collect([scan]).failed
    assert collect([scan], expected_eta=[0.0, 0.2, 0.8]).failed


def test_expected_tasks(tmp_path: Path) -> None:
    write_evaluation(write_run(tmp_path / "run", 0.2) / "evaluation" / "database", 6, 10)
    assert not collect([tmp_path], expected_tasks=["database"]).failed
    report = collect([tmp_path], [0.2], ["database", "os"])
    assert (report.failed, only(report).lacks) == (True, ["no score on os"])
    write_run(tmp_path / "other", 0.2)
    assert collect([tmp_path], expected_tasks=["database"]).failed


def test_two_runs_of_one_eta_are_both_listed(tmp_path: Path) -> None:
    for name, steps in (("a/0.2", 3), ("b/0.2", 2)):
        write_run(tmp_path / name, 0.2, steps=steps)
    write_run(tmp_path / "c", 0.2, model="models/other")
    report = collect([tmp_path], expected_eta=[0.2])
    assert [run.name for run in report.runs] == ["a/0.2", "b/0.2", f"{tmp_path.name}/c"]
    assert report.remarks == ["eta 0.2 has 2 runs from models/tiny: a/0.2, b/0.2"]
    assert not report.failed  # one of them lacks nothing


def test_evaluations_outside_of_runs_go_by_their_model(tmp_path: Path) -> None:
    write_evaluation(tmp_path / "evaluation_before", 0, 10, model="base")
    write_evaluation(tmp_path / "evaluation_after", 8, 10, model="tuned")
    write_evaluation(tmp_path / "again", 8, 10, model="tuned", model_sha256="other weights")
    write_evaluation(tmp_path / "zoo" / "evaluation" / "database", 1, 10, model="base")
    write_evaluation(tmp_path / "zoo" / "evaluation" / "os", 1, 10, task="os", model="base")
    report = collect([tmp_path])
    name = tmp_path.name
    rates = {run.name: {task: score.rate for task, score in run.scores.items()} for run in report.runs}
    assert rates == {
        f"{name} (base)": {"database": 0.0},
        f"{name} (tuned #1)": {"database": 0.8},
        f"{name} (tuned #2)": {"database": 0.8},
        "zoo": {"database": 0.1, "os": 0.1},
    }
    assert [report.mean(run) is not None for run in report.runs] == [False, False, False, True]


def test_a_task_evaluated_twice_and_settings_that_differ(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", 0.2)
    write_evaluation(run / "evaluation" / "a", 1, 10)
    write_evaluation(run / "evaluation" / "b", 2, 10, prompt_style="paper", model="another name")
    report = collect([tmp_path])
    assert list(only(report).scores) == ["database (evaluation/a)", "database (evaluation/b)"]
    assert report.mean(only(report)) is None
    assert report.remarks == [
        "run has 2 scores on database: no mean over its tasks is taken",
        "scores on database are not all comparable: they differ in prompt_style",
    ]


def test_task_errors_and_the_split_are_told_beside_the_papers_scores(tmp_path: Path) -> None:
    folder = write_evaluation(tmp_path / "a", 1, 10)
    summary = json.loads((folder / "summary.json").read_text())
    for whole, caption in (
        (False, "AgentBench's std split, which was not played as a whole of database;"),
        (True, "AgentBench's std split; overall"),
    ):
        summary |= {"statuses": {"completed": 7, "task error": 3}, "whole_std_split": whole}
        (folder / "summary.json").write_text(json.dumps(summary))
        report = collect([tmp_path])
        assert caption in report_tables(report)[1].caption
    name = only(report).name
    assert report.remarks == [
        f"{name}: 3 of 10 episodes on database ended in task errors, which count 0; evaluate again to play them"
    ]


def test_overlapping_folders_and_links_count_once(tmp_path: Path) -> None:
    run = write_run(tmp_path / "runs" / "0.2", 0.2)
    write_evaluation(run / "evaluation" / "database", 1, 10)
    (run / "loop").symlink_to(tmp_path / "runs")
    (tmp_path / "link").symlink_to(run)
    assert list(only(collect([run / "evaluation/database", run, tmp_path / "runs", tmp_path / "link"])).scores) == [
        "database"
    ]
    assert only(collect([run / "evaluation" / "database"])).training is None


def test_what_a_quickstart_leaves_is_no_evaluation(tmp_path: Path) -> None:
    write_run(tmp_path / "train", 0.8)
    (tmp_path / "summary.json").write_text('{"tasks": 36, "success_after": 0.8}')
    assert only(collect([tmp_path])).name == "train"


@pytest.mark.parametrize(
    ("name", "eta"),
    [("0.3", 0.3), ("1.0", 1.0), ("eta-0.25", 0.25), ("eta_0.0", 0.0), ("1", None), ("1.5", None), ("0.3b", None)],
)
def test_eta_in_a_folder_name(name: str, eta: float | None) -> None:
    assert eta_in_name(name) == eta


def test_the_configuration_goes_before_the_folder_name(tmp_path: Path) -> None:
    write_run(tmp_path / "0.3", 0.2)
    assert only(collect([tmp_path])).eta == 0.2


def test_a_line_being_written_is_left_out(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", 0.2, steps=2)
    for name in ("metrics.jsonl", "validation.jsonl"):
        with open(run / name, "a") as handle:
            handle.write('{"step": 3, "lo')
    training = only(collect([run])).training
    assert training is not None
    assert (training.steps, training.last_measured) == (2, 2)


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("metrics.jsonl", "{}\n{\n", r"metrics.jsonl:2: expected a line of JSON"),
        ("validation.jsonl", '{"step": 1}\n', r"validation.jsonl:1: expected a line of megatron_agent.train"),
        ("checkpoints/iter_0000003/run.json", "{", r"run.json: not valid JSON"),
        ("checkpoints/iter_0000003/run.json", '{"step": 3}', r"run.json: expected the step and the configuration"),
        ("evaluation/database/summary.json", '{"tasks": 1', r"summary.json: not valid JSON"),
        ("evaluation/database/summary.json", "[]", r"summary.json: expected a JSON object, got list"),
        ("evaluation/database/summary.json", '{"tasks": 1, "successes": 2}', r"expected a summary.*successes 2"),
        ("evaluation/database/summary.json",
         '{"tasks": 1, "successes": 1, "metrics": {"a": NaN}, "settings": {"task": "x"}}', r"expected a summary of"),
    ],
)  # fmt: skip
def test_damaged_files_are_named(file: str, content: str, reason: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", 0.2)
    write_evaluation(run / "evaluation" / "database", 1, 10)
    (run / file).write_text(content)
    with pytest.raises(UserError, match=reason) as raised:
        collect([tmp_path])
    assert "\n" not in str(raised.value)


def test_folders_without_results(tmp_path: Path) -> None:
    write_run(tmp_path / "run", 0.2)
    (tmp_path / "empty" / "deep").mkdir(parents=True)
    with pytest.raises(UserError, match=r"empty: no results in it or below; looked for metrics.jsonl .* summary.json"):
        collect([tmp_path / "run", tmp_path / "empty"])
    with pytest.raises(UserError, match=r"nowhere: expected a folder of results, found none"):
        collect([tmp_path / "nowhere"])
    with pytest.raises(UserError, match=r"metrics.jsonl: expected a folder of results, found a file"):
        collect([tmp_path / "run" / "metrics.jsonl"])
