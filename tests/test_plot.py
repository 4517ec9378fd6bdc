"""The plot command on runs that go on, were resumed, or have other sources; figures of the table by hand."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megatron_agent.errors import UserError
from megatron_agent.plot import main, named
from megatron_agent.training.run_curves import moving_mean, read_run, summary_table
from megatron_agent.training.timers import BETWEEN_PARTS, STEP_PARTS

TIME = {"data": 0.2, "forward_backward": 1.0, "reduce": 0.2, "optimizer": 0.4, "other": 0.2}


def line(step: int, loss: float | None = 2.0, seconds: float = 2.0, **changed: Any) -> dict[str, Any]:
    between = {"checkpoint": 0.0, "evaluation": 0.0, "logging": 0.0, **changed.pop("between", {})}
    return {
        "step": step,
        "loss": loss,
        "grad_norm": loss,
        "lr": 1e-4 / step,
        "trained_tokens": 40,
        "tokens": 100,
        "seconds": seconds,
        "tokens_per_second": 100 / seconds,
        "trained_tokens_per_second": 40 / seconds,
        "tflops_per_gpu": 500 / seconds,
        "mfu": None,
        "source_loss": {"agent": loss, "gpt-4": 1.0},
        "time": {**TIME, **between},
        "memory": {"rss": 1},
        **changed,
    }


def write_run(folder: Path, lines: list[dict], held_out: list[tuple[int, dict[str, float]]] = ()) -> Path:
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in lines))
    if held_out:
        records = [{"step": step, "loss": losses} for step, losses in held_out]
        (folder / "validation.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def test_a_run_that_goes_on_and_was_resumed(tmp_path: Path) -> None:
    """Step 2 was done twice, step 4 is being written."""
    folder = write_run(tmp_path / "run", [line(1, 5.0), line(2, 4.0), line(3, 9.0), line(2, 4.5), line(3, 3.0)])
    with open(folder / "metrics.jsonl", "a") as handle:
        handle.write('{"step": 4, "loss": 1')
    run = read_run(folder)
    assert run.values("step").tolist() == [1, 2, 3]
    assert run.values("loss").tolist() == [5.0, 4.5, 3.0]
    assert run.sources == ["agent", "gpt-4"]
    assert np.isnan(run.values("source_loss", "gpt-3.5")).all()


def test_axes_by_hand(tmp_path: Path) -> None:
    lines = [line(3), line(4, between={"checkpoint": 3.0, "evaluation": 1.0}), line(5)]
    run = read_run(write_run(tmp_path / "run", lines, [(2, {"agent": 4.0}), (4, {"agent": 3.0})]))
    assert run.axis("step").tolist() == [3, 4, 5]
    assert run.axis("tokens").tolist() == [300, 400, 500]  # the file begins after step 2
    assert run.axis("hours").tolist() == pytest.approx([2 / 3600, 8 / 3600, 10 / 3600])
    steps, losses = run.held_out_curve("agent", "step")
    assert (steps.tolist(), losses.tolist()) == ([2, 4], [4.0, 3.0])
    assert run.held_out_curve("agent", "tokens")[0].tolist() == [200, 400]


def test_a_skipped_step_has_a_short_line(tmp_path: Path) -> None:
    skipped = {"step": 2, "skipped": True, "loss": None, "grad_norm": None, "lr": 1e-4}
    run = read_run(write_run(tmp_path / "run", [line(1), skipped, line(3)]))
    assert run.skipped().tolist() == [False, True, False]
    assert run.axis("tokens").tolist() == [100, 200, 300]
    assert run.axis("hours").tolist() == pytest.approx([2 / 3600, 2 / 3600, 4 / 3600])
    assert run.mean_rate("tokens_per_second") == 50.0


def test_figures_of_the_table_by_hand(tmp_path: Path) -> None:
    """The first step warms up; rates are weighted by time: 300 tokens in 6 s, not the mean of 50, 25 and 100."""
    lines = [line(1, seconds=50.0), line(2, seconds=2.0), line(3, seconds=4.0), line(4, 1.5, seconds=1.0)]
    for record in lines[1:]:
        record["mfu"] = record["tflops_per_gpu"] / 1000
    held_out = [(0, {"agent": 4.0, "gpt-4": 2.0}), (2, {"agent": 1.0, "gpt-4": 2.5}), (4, {"agent": 0.5})]
    run = read_run(write_run(tmp_path / "run", lines, held_out))
    assert run.mean_rate("tokens_per_second") == pytest.approx(300 / 7)
    assert run.mean_rate("mfu") == pytest.approx(1.5 / 7)
    assert run.best_held_out() == (1.75, 2)  # step 4 measured one source only
    head, row = summary_table({"run": run}).splitlines()
    assert row.split() == ["run", "4", "1.5000", "1.7500", "(2)", "43", "17", "214", "21.4%", "0.02"]
    assert len(head) == len(row)


def test_shares_of_time(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", [line(1), line(2, between={"checkpoint": 6.0})]))
    shares = run.time_shares()
    assert set(shares) == {*STEP_PARTS, "other", *BETWEEN_PARTS}  # every part the timers know
    assert shares["checkpoint"] == pytest.approx(0.6)
    assert shares["forward_backward"] == pytest.approx(0.2)
    assert sum(shares.values()) == pytest.approx(1)


def test_moving_mean() -> None:
    values = np.array([1.0, 2.0, np.nan, 4.0, 9.0])
    assert moving_mean(values, 1).tolist()[:2] == [1.0, 2.0]
    assert np.isnan(moving_mean(values, 1)[2])
    assert moving_mean(values, 3).tolist() == [1.5, 1.5, 3.0, 6.5, 6.5]
    assert moving_mean(np.full(3, np.nan), 3).tolist() == pytest.approx([np.nan] * 3, nan_ok=True)
    noise = np.random.default_rng(0).normal(size=50)
    assert moving_mean(noise, 7)[3:-3] == pytest.approx(np.convolve(noise, np.ones(7) / 7, "valid"))


@pytest.mark.parametrize(("axis", "suffix"), [("hours", "svg"), ("tokens", "png")])
def test_different_runs_in_one_picture(
    axis: str, suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other sources, a step that was skipped, a single step, no held-out losses, names with dollar signs."""
    one = write_run(tmp_path / "$one" / "train", [line(step) for step in range(1, 8)], [(0, {"agent": 3.0})])
    other_lines = [line(1), line(2, None, source_loss={"agent": 2.0, "$a_b$": 1.0, "c": 4.0, "d": 1.0}), line(3)]
    two = write_run(tmp_path / "_two" / "train", other_lines)
    three = write_run(tmp_path / "three" / "train", [line(1)])
    output = tmp_path / f"picture.{suffix}"
    main([str(one), str(two), str(three), "--x", axis, "--output", str(output), "--smooth", "2"])
    printed = capsys.readouterr().out
    assert [row.split()[0] for row in printed.splitlines()[1:4]] == ["$one/train", "_two/train", "three/train"]
    assert printed.splitlines()[-1] == str(output)
    content = output.read_bytes()
    if suffix == "png":
        assert content.startswith(b"\x89PNG")
    else:
        text = content.decode()
        assert text.count("<!-- loss: ") == 5  # a panel a source of any run
        for label in ("$one/train", "_two/train", "loss: $a_b$", "TFLOP/s/GPU (no peak known: no MFU)", "held-out"):
            assert f"<!-- {label} -->" in text


def test_runs_are_named_by_what_differs(tmp_path: Path) -> None:
    runs = [read_run(write_run(tmp_path / name, [line(1)])) for name in ("a/x", "b/x")]
    assert list(named(runs)) == ["a/x", "b/x"]
    assert list(named(runs[:1])) == ["x"]
    with pytest.raises(UserError, match="given twice"):
        named([runs[0], runs[0]])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, r"expected the output_dir of a training run, found no metrics.jsonl.*--training.output_dir"),
        ("", "no step is finished yet"),
        ('{"step": 1', "no step is finished yet"),
        ('{"step": 1, "reward": 2}\n', r"metrics.jsonl:1: expected a line of megatron_agent.train.*got step, reward"),
        ('{"step": 1, \n{}\n', r"metrics.jsonl:1: expected a line of JSON"),
    ],
)
def test_a_wrong_folder_is_one_message(content: str | None, reason: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "metrics.jsonl").write_text(content)
    with pytest.raises(UserError, match=reason):
        main([str(tmp_path), "--output", str(tmp_path / "out.png")])
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize("damaged", ["{}", '{"step": 1}', '{"step": "1", "loss": {}}', '{"step": 1, "loss": 2.0}'])
def test_a_damaged_line_of_held_out_losses_is_named(damaged: str, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", [line(1)], [(0, {"agent": 1.0})])
    with open(folder / "validation.jsonl", "a") as handle:
        handle.write(damaged + "\n")
    with pytest.raises(UserError, match=r"validation.jsonl:2: expected a line of megatron_agent.train with step and"):
        read_run(folder)


def test_a_held_out_loss_that_is_not_finite_is_not_the_best(tmp_path: Path) -> None:
    losses = [(0, {"agent": float("nan")}), (1, {"agent": 2.0}), (2, {"agent": float("nan")})]
    assert read_run(write_run(tmp_path / "a", [line(1), line(2)], losses)).best_held_out() == (2.0, 1)
    assert read_run(write_run(tmp_path / "b", [line(1)], losses[:1])).best_held_out() is None


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--output", "x.jpg"], r"--output x.jpg: expected a name that ends in .png, .pdf, .svg"),
        (["--output", str(Path(__file__) / "x.png")], r"--output .*test_plot.py is a file, a folder is needed"),
        (["--smooth", "0"], r"--smooth must be at least 1, got 0"),
    ],
)
def test_wrong_options(arguments: list[str], reason: str, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", [line(1)])
    with pytest.raises(UserError, match=reason):
        main([str(folder), *arguments])


def test_help_imports_neither_torch_nor_matplotlib() -> None:
    code = (
        "import sys\nfrom megatron_agent.plot import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "assert not {'torch', 'matplotlib'} & set(sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    assert "--smooth" in result.stdout
