"""The mixture command: its output, its refusals, and a --help that answers at once."""

import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from matplotlib.figure import Figure

from megatron_agent.dataset import mixture_report
from megatron_agent.dataset.config import SourceConfig
from megatron_agent.dataset.mixture import load_config, main
from megatron_agent.errors import UserError
from megatron_agent.training.config import parse_config


@pytest.fixture
def content(make_dataset: Callable[..., str]) -> dict:
    return {
        "model": {"hidden_size": 64},
        "training": {"train_iters": 20, "global_batch_size": 8, "lr": 1e-4},
        "data": {
            "agent": [{"name": "agent", "prefix": make_dataset("agent", 40)}],
            "general": [{"prefix": make_dataset("general", 100, longest=90)}],
            "eta": 0.2,
            "seq_length": 128,
        },
    }


def write(path: Path, content: object) -> str:
    path.write_text(yaml.safe_dump(content))
    return str(path)


def test_json_and_eta(content: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write(tmp_path / "c.yaml", content)
    main(["--config", config, "--json"])
    summary = json.loads(capsys.readouterr().out)
    assert (summary["rows"], summary["eta"], summary["seq_length"]) == (160, 0.2, 128)
    assert summary["sources"]["agent"]["conversation_share"] == pytest.approx(0.2, abs=0.08)
    main(["--config", config, "--json", "--eta", "1"])
    summary = json.loads(capsys.readouterr().out)
    assert summary["sources"]["agent"]["conversation_share"] == 1.0
    assert summary["sources"]["general"]["passes"] == 0.0


def test_table_and_plot(content: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "shares.png"
    main(["--config", write(tmp_path / "c.yaml", content), "--plot", str(picture)])
    printed = capsys.readouterr().out
    for part in ("eta = 0.2 per conversation", "paper", "repeats", "row run", "conversations a row (at most"):
        assert part in printed
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_eta_scan(content: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every line of the scan is the mixture that a run at this eta alone would have."""
    content["data"]["cache_dir"] = str(tmp_path / "plans")
    config, picture = write(tmp_path / "c.yaml", content), tmp_path / "scan.png"
    main(["--config", config, "--eta-scan", "--json", "--plot", str(picture)])
    scan = json.loads(capsys.readouterr().out)
    assert [summary["eta"] for summary in scan] == [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert len(list((tmp_path / "plans").iterdir())) == 11
    del content["data"]["cache_dir"]  # plan again
    for number in (0, 3, 10):
        main(["--config", write(tmp_path / "d.yaml", content), "--eta", str(number / 10), "--json"])
        assert json.loads(capsys.readouterr().out) == scan[number]
    main(["--config", config, "--eta-scan"])
    lines = capsys.readouterr().out.split("\n")
    assert sum(line.strip().startswith(("0.", "1.0")) for line in lines) == 22  # two tables
    content["data"].update(eta=0.0, agent=[])
    with pytest.raises(UserError, match=r"data.agent must name at least one source: --eta-scan"):
        main(["--config", write(tmp_path / "e.yaml", content), "--eta-scan"])


@pytest.mark.parametrize("scan", [False, True])
def test_many_sources_and_any_name(
    content: dict, make_dataset: Callable[..., str], tmp_path: Path, scan: bool,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Names are no markup of rich, no formula of matplotlib; all of them stand inside the picture, told apart."""
    prefix = make_dataset("x", 20)
    hostile = ["[v2] a", "g[/x]", ":smile:", "$\\foo$", "_g"]
    names = [*hostile, *(f"general_conversations_of_the_year_{i}" for i in range(20))]
    content["data"]["general"] = [{"prefix": prefix, "name": name} for name in names]
    figures: list[Figure] = []
    monkeypatch.setattr(mixture_report, "_save", lambda figure, path: figures.append(figure))
    monkeypatch.setenv("COLUMNS", "80")
    config = write(tmp_path / "c.yaml", content)
    main(["--config", config, "--plot", "x.png", *(["--eta-scan"] if scan else [])])
    printed = capsys.readouterr().out
    for name in hostile:
        assert name in printed
    lines = printed.split("\n")
    assert max(map(len, lines)) <= 80
    if scan:
        assert sum("/" in line and line.strip().startswith("0.3 ") for line in lines) == 9  # 26 sources, 3 at once
    (figure,) = figures
    figure.savefig(tmp_path / "x.png")
    (legend,) = figure.legends
    shown = [text.get_text() for text in legend.get_texts()]
    assert shown[1:6] == hostile
    assert len(set(shown)) == len(names) + 1
    assert len({patch.get_facecolor() for patch in legend.get_patches()}) == len(names) + 1
    for text in [*legend.get_texts(), *figure.axes[1].get_yticklabels()]:
        box = text.get_window_extent()
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.x1
    ticks = [text.get_window_extent() for text in figure.axes[1].get_yticklabels()]
    assert scan or not any(one.overlaps(other) for one, other in itertools.pairwise(ticks))


def test_eta_per_token(content: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content["data"].update(eta_per="token", eta=0.5)
    content["training"].update(train_iters=300)
    main(["--config", write(tmp_path / "c.yaml", content), "--json"])
    agent = json.loads(capsys.readouterr().out)["sources"]["agent"]
    assert agent["expected_token_share"] == pytest.approx(0.5)
    assert agent["token_share"] == pytest.approx(0.5, abs=0.02)
    assert agent["conversation_share"] == pytest.approx(agent["expected_conversation_share"], abs=0.02)
    assert abs(agent["expected_conversation_share"] - 0.5) > 0.02  # the two groups differ in length
    main(["--config", str(tmp_path / "c.yaml")])
    assert "eta = 0.5 per token" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["data"].update(etta=1), "data.*etta"),
        (lambda c: c["data"]["agent"][0].update(wieght=1), "data.agent.*wieght"),
        (lambda c: c["data"]["agent"][0].pop("prefix"), "data.agent.*prefix"),
        (lambda c: c["data"].update(agent={"name": "a"}), "data.agent"),
        (lambda c: c["data"].update(seed=1.5), "data.seed"),
        (lambda c: c["data"].update(verify=1), "data.verify"),
        (lambda c: c["data"].update(eta="much"), "data.eta.*much"),
        (lambda c: c["data"].update(eta_per="row"), "data.eta_per.*row"),
        (lambda c: c.update(data=[1]), "section `data` must be a mapping"),
        (lambda c: c.update(training=3), "section `training` must be a mapping, got 3"),
        (lambda c: c["data"].update(eta=1.2), r"data.eta must lie in \[0, 1\], got 1.2"),
        (lambda c: c.pop("data"), "data.agent must name at least one source"),
        (lambda c: c["training"].update(train_iters=0), "training.train_iters must be at least 1, got 0"),
        (lambda c: c["training"].update(global_batch_size="many"), "training.global_batch_size.*many"),
    ],
)
def test_bad_configuration(content: dict, tmp_path: Path, change: Callable[[dict], object], message: str) -> None:
    change(content)
    with pytest.raises(UserError, match=message):
        load_config(write(tmp_path / "c.yaml", content))


def test_unreadable_configuration(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read the configuration .* No such file"):
        load_config(tmp_path / "missing.yaml")
    (tmp_path / "c.yaml").write_text("data: [")
    with pytest.raises(UserError, match="not valid YAML"):
        load_config(tmp_path / "c.yaml")
    (tmp_path / "c.yaml").write_text("just text")
    with pytest.raises(UserError, match="expected a mapping with sections"):
        load_config(tmp_path / "c.yaml")
    (tmp_path / "c.yaml").write_text("data:\n  eta: 0.2\n  eta: 0.3\n")
    with pytest.raises(UserError, match=r"key 'eta' is given twice in one mapping.*line 3"):
        load_config(tmp_path / "c.yaml")


def test_values_are_read_as_the_training_command_reads_them(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("data: {agent: [{name: a, prefix: p/a, weight: 4}], general: [{name: g, prefix: p}], eta: 75e-2}\n")
    config, rows = load_config(file)
    assert (config.eta, config.agent[0]) == (0.75, SourceConfig("p/a", 4.0, "a"))
    assert rows == 2000 * 64  # training's defaults
    trained = parse_config(["--config", str(file), "--model.config", "llama-2-7b"])
    assert trained.data == config
    assert trained.num_rows == rows


def test_exit_code(content: dict, tmp_path: Path) -> None:
    content["data"]["agent"][0]["prefix"] = "nowhere"
    command = [sys.executable, "-m", "megatron_agent.dataset.mixture", "--config", write(tmp_path / "c.yaml", content)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: no indexed dataset at nowhere")
    assert "Traceback" not in done.stderr


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom megatron_agent.dataset.mixture import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    assert not {'torch', 'numpy', 'yaml'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "passes over every source" in done.stdout
