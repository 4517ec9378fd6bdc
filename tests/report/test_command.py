"""The report command: its files, exit status and refusals, and what stands in its tables and pictures."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megatron_agent.errors import UserError
from megatron_agent.evaluation.paper_scores import WEIGHTS
from megatron_agent.report.__main__ import main
from megatron_agent.report.collect import collect
from megatron_agent.report.figure import scan_figure, scores_figure
from megatron_agent.report.tables import report_markdown, report_tables
from tests.report.results import write_evaluation, write_held_out, write_run, write_steps

ETAS = (0.0, 0.2, 1.0)
AGENT_LOSSES = dict(zip(ETAS, (2.0, 1.0, 0.5), strict=True))
SUCCESSES = dict(zip(ETAS, (1, 8, 6), strict=True))


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """Three runs, the last of them unfinished."""
    for eta in ETAS:
        steps = 2 if eta == 1.0 else 3
        run = write_run(tmp_path / "scan" / f"{eta:.1f}", eta, steps=steps, held_out=(AGENT_LOSSES[eta], 3.0, 4.0))
        write_held_out(run, 1, 0.1, 0.1, 0.1)  # the best step, not the one that is drawn
        write_evaluation(run / "evaluation" / "database", SUCCESSES[eta], 10)
    return tmp_path / "scan"


def points(axes: Any, colour: str) -> list[tuple[float, float, bool]]:
    """Return x, y and whether it is filled of the markers of a colour, in the order of x."""
    markers = [line for line in axes.lines if line.get_color() == colour and line.get_marker() in ("o", "s")]
    return sorted((*line.get_xydata()[0], line.get_markerfacecolor() == colour) for line in markers)


def curve(axes: Any, label: str) -> list[list[float]]:
    (line,) = [line for line in axes.lines if line.get_gid() == label]
    return line.get_xydata().tolist()


def test_the_scan_has_its_points(scan: Path) -> None:
    report = collect([scan], expected_eta=[0.0, 0.2, 0.5, 1.0])
    scores, losses = scan_figure(report).axes
    rates = [[0.0, 0.1], [0.2, 0.8], [1.0, 0.6]]
    assert points(scores, "0.15") == [(*rates[0], True), (*rates[1], True), (*rates[2], False)]
    assert curve(scores, "database") == rates
    segments = [bars.get_segments()[0][:, 1].tolist() for _, _, (bars,) in scores.containers]
    assert segments == [pytest.approx(run.scores["database"].interval) for run in report.runs]
    assert curve(losses, "agent") == [[eta, AGENT_LOSSES[eta]] for eta in ETAS]
    assert points(losses, "tab:orange") == [(0.0, 3.0, True), (0.2, 3.0, True), (1.0, 3.0, False)]
    assert curve(losses, "gpt-3.5 (general)") == [[eta, 4.0] for eta in ETAS]
    for axes in (scores, losses):
        (missing,) = [line for line in axes.lines if line.get_marker() == "x"]
        assert missing.get_xdata() == [0.5]
        assert any(np.array_equal(line.get_xdata(), [0.2, 0.2]) for line in axes.lines)  # the paper's
        assert axes.get_xlim()[0] < 0 < 1 < axes.get_xlim()[1]
    legend = [text.get_text() for text in scores.get_legend().get_texts()]
    assert legend == ["database", "the paper's eta, 0.2", "not complete", "no run"]


def test_several_tasks_are_drawn_with_their_mean(scan: Path) -> None:
    for eta in ETAS[:2]:
        write_evaluation(scan / f"{eta:.1f}" / "evaluation" / "os", 2, 10, task="os")
    scores, _ = scan_figure(collect([scan])).axes
    assert curve(scores, "os") == [[0.0, 0.2], [0.2, 0.2]]
    assert curve(scores, "mean of 2 tasks") == [[0.0, pytest.approx(0.15)], [0.2, 0.5]]
    assert curve(scores, "database") == [[eta, SUCCESSES[eta] / 10] for eta in ETAS]


def test_runs_of_one_eta_are_points_on_one_curve_and_models_have_panels(scan: Path) -> None:
    write_run(scan / "again", 0.2, held_out=(2.0, 3.0, 4.0))
    write_run(scan / "13b", 0.2, held_out=(0.25, 3.0, 4.0), model="models/_$x$")
    figure = scan_figure(collect([scan]))
    by_title = {axes.get_title("left"): axes for axes in figure.axes[:2]}
    assert set(by_title) == {"_$x$", "tiny"}
    tiny = figure.axes[2 + list(by_title).index("tiny")]
    assert [point[:2] for point in points(tiny, "tab:blue")] == [(0.0, 2.0), (0.2, 1.0), (0.2, 2.0), (1.0, 0.5)]
    assert curve(tiny, "agent") == [[0.0, 2.0], [0.2, 1.5], [1.0, 0.5]]


def test_a_scan_has_panels_only_for_what_there_is(tmp_path: Path) -> None:
    for eta in ("0.0", "0.2"):
        write_run(tmp_path / "trained" / eta, float(eta), held_out=(0.5, 3.0, 4.0))
        write_evaluation(tmp_path / "evaluated" / eta / "evaluation" / "database", 5, 10, model=f"exported/{eta}")
    (losses,) = scan_figure(collect([tmp_path / "trained"])).axes
    assert curve(losses, "agent") == [[0.0, 0.5], [0.2, 0.5]]
    (scores,) = scan_figure(collect([tmp_path / "evaluated"])).axes
    assert curve(scores, "database") == [[0.0, 0.5], [0.2, 0.5]]


def test_bars_of_scores(tmp_path: Path) -> None:
    write_evaluation(tmp_path / "before", 1, 10, model="_a$b$")
    write_evaluation(tmp_path / "after", 9, 10, model="tuned")
    figure = scores_figure(collect([tmp_path]))
    assert sorted(bar.get_width() for bar in figure.axes[0].patches) == [0.1, 0.9]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        f"{tmp_path.name} (_a$b$)",
        f"{tmp_path.name} (tuned)",
    ]


def test_files_of_a_scan(scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "deep" / "report"
    assert main([str(scan), "--output", str(output), "--expect-eta", "0", "0.2", "0.5"]) == 1
    assert sorted(path.name for path in output.iterdir()) == ["curves.png", "report.json", "report.md", "scan.png"]
    assert all((output / name).read_bytes().startswith(b"\x89PNG") for name in ("scan.png", "curves.png"))
    printed = capsys.readouterr().out
    assert "eta 0.5: no run" in printed
    assert "1.0: unfinished: 2 of 3 steps" in printed
    page = (output / "report.md").read_text()
    assert "![scan](scan.png)" in page
    assert "| 0.2 | 0.2 | 8/10 = 80.0 \\[49.0, 94.3\\] |" in page  # 8 of 10: Wilson's interval
    assert "| 1.0 | 1 \\* | tiny | 2/3 \\* | 80 | 0.01 | 0.02 |" in page
    assert "| 0.2 | 0.2 | 1 / 3 | 0.1000 / 1.0000 | 0.1000 / 3.0000 | 0.1000 / 4.0000 |" in page
    assert "| 0.2 | 0.2 | 26.7 |" in page  # SELECT 0.8, INSERT and UPDATE 0
    figures = json.loads((output / "report.json").read_text())
    assert (figures["missing_eta"], figures["failed"]) == ([0.5], True)
    assert [run["mean_success_rate"] for run in figures["runs"]] == [0.1, 0.8, 0.6]
    assert figures["runs"][2]["lacks"] == ["unfinished: 2 of 3 steps"]
    assert figures["runs"][1]["training"]["held_out_last"] == {"agent": 1.0, "gpt-4": 3.0, "gpt-3.5": 4.0}
    assert figures["runs"][1]["scores"]["database"]["successes"] == 8
    assert main([str(scan), "--output", str(output), "--expect-eta", "0", "0.2"]) == 0


def test_the_overall_of_the_six_tasks_beside_the_papers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Scores as evaluate writes several tasks; five of the six are a partial overall and a missing score."""
    run = write_run(tmp_path / "0.2", 0.2)
    for task, weight in WEIGHTS.items():
        folder = run / "evaluation" / task
        write_evaluation(folder, int(weight), 50, task=task)
        summary = json.loads((folder / "summary.json").read_text())
        summary |= {"metrics": {"m": weight / 50}, "main_metric": "m"}  # score / weight is 2 in every task
        (folder / "summary.json").write_text(json.dumps(summary))
    (run / "evaluation" / "summary.json").write_text('{"scores": {}}')  # evaluate's own of all tasks
    figures, page = tmp_path / "report.json", tmp_path / "report.md"
    expected = ["--expect-task", "held-in", "--json", str(figures), "--markdown", str(page)]
    assert main([str(run), *expected]) == 0
    (entry,) = json.loads(figures.read_text())["runs"]
    assert (entry["overall"], entry["partial_overall"]) == (2.0, None)
    assert "| 40.0 | 56.0 | 18.0 | 32.0 | 38.0 | 24.0 | 2.00 |" in page.read_text()
    assert "| AgentLM-7B (paper) | - | 84.0 | 63.6 | 6.4 | 18.1 | 17.4 | 30.6 | 1.96 |" in page.read_text()
    shutil.rmtree(run / "evaluation" / "webshop")
    capsys.readouterr()
    assert main([str(run), *expected]) == 1
    assert "no score on webshop" in capsys.readouterr().out
    assert "2.00 (partial: 5 of 6 tasks)" in page.read_text()
    (entry,) = json.loads(figures.read_text())["runs"]
    assert (entry["overall"], entry["partial_overall"]) == (None, 2.0)


def test_one_run(scan: Path, tmp_path: Path) -> None:
    """No scan: the training curves come first and the scores are bars; --by eta draws the scan all the same."""
    run = scan / "0.2"
    assert main([str(run), "--output", str(tmp_path / "a")]) == 0
    names = {path.name for path in (tmp_path / "a").iterdir()}
    assert names == {"curves.png", "scores.png", "report.json", "report.md"}
    assert main([str(run), "--by", "eta", "--output", str(tmp_path / "b")]) == 0
    assert (tmp_path / "b" / "scan.png").exists()
    picture, page, figures = tmp_path / "x" / "p.png", tmp_path / "y" / "r.md", tmp_path / "r.json"
    assert main([str(run), "--plot", str(picture), "--markdown", str(page), "--json", str(figures)]) == 0
    assert "![p](../x/p.png)" in page.read_text()
    assert picture.exists()
    assert json.loads(figures.read_text())["tasks"] == ["database"]


def test_hostile_names_stay_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("[red]|a`*_<b>", "\x1b[31m\n# head", b"\xff\xfe".decode("utf-8", "surrogateescape")):
        run = write_run(tmp_path / name, 0.2, model="models/$x$_[/]|")
        write_evaluation(run / "evaluation" / "database", 1, 10, model="[bold]")
    assert main([str(tmp_path), "--by", "eta", "--output", str(tmp_path / "report")]) == 0
    printed, page = capsys.readouterr().out, (tmp_path / "report" / "report.md").read_text()
    assert "[red]|a`*_<b>" in printed
    assert "\\x1b[31m\\n# head" in printed
    assert "\x1b" not in printed + page
    rows = [line for line in page.splitlines() if "31m" in line and line.startswith("|")]
    assert rows[0].startswith("| \\\\x1b\\[31m\\\\n\\# head | 0.2 |")
    assert "| \\[red\\]\\|a\\`\\*\\_\\<b\\> |" in page
    assert "\\udcff" in printed


@pytest.mark.parametrize("columns", ["40", "200"])
def test_tables_fit_any_terminal(columns: str, scan: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert main([str(scan)]) == 0
    table = capsys.readouterr().out.split("Missing:")[0]
    assert max(map(len, table.splitlines())) <= int(columns)
    assert "8/10" in table


def test_tables_without_rows_are_left_out(tmp_path: Path) -> None:
    write_steps(tmp_path / "run", [1])
    report = collect([tmp_path])
    assert [table.title for table in report_tables(report)] == ["Training"]
    assert "no complete checkpoint" in report_markdown(report, [])


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--expect-eta", "1.5"], r"--expect-eta: expected values from 0 to 1, got 1.5"),
        (["--expect-eta", "nan"], r"--expect-eta: expected values from 0 to 1, got nan"),
        (["--plot", "x.pdf"], r"--plot x.pdf: expected a name that ends in .png"),
        (["--output", __file__], r"--output .*test_command.py is a file, a folder is needed"),
        (["--json", "."], r"--json \.: expected the path of a file"),
        (["--by", "eta"], r"--by eta: no run below DIR has an eta"),
    ],
)
def test_wrong_options(arguments: list[str], reason: str, tmp_path: Path) -> None:
    write_steps(tmp_path / "run", [1])
    with pytest.raises(UserError, match=reason):
        main([str(tmp_path), *arguments])


def test_nothing_to_draw(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match="there is nothing to draw"):
        main([str(tmp_path), "--plot", str(tmp_path / "x.png")])
    assert main([str(tmp_path)]) == 0


def test_status_and_one_line_of_the_command(scan: Path, tmp_path: Path) -> None:
    """As the scripts call it; neither torch nor, for --help, matplotlib is loaded."""
    command = [sys.executable, "-m", "megatron_agent.report"]
    missing = subprocess.run([*command, str(scan), "--expect-eta", "0.7"], capture_output=True, text=True, check=False)
    assert (missing.returncode, missing.stderr) == (1, "")
    bad = subprocess.run([*command, str(tmp_path / "no")], capture_output=True, text=True, check=False)
    assert (bad.returncode, bad.stdout, bad.stderr.count("\n")) == (2, "", 1)
    assert bad.stderr.startswith("error: DIR ")
    code = (
        "import sys\nfrom megatron_agent.report.__main__ import main\n"
        f"main([{str(scan)!r}])\nassert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
