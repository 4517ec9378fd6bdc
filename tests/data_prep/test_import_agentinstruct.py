"""Importing AgentInstruct: every form of input, the counts, and what is refused."""

import builtins
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_prep.import_agentinstruct import format_report, import_agentinstruct, main
from megatron_agent.errors import UserError
from tests.data_prep.conftest import record

Write = Callable[..., Path]
DB, OS = record("db_0", "instruction", "!Ok.", "task", "answer"), record("os_7", "task", "answer")


def forbid_import(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Make `import name` fail as if the package were not installed."""
    original = builtins.__import__

    def fake(module: str, *arguments: Any, **keywords: Any) -> Any:
        if module.partition(".")[0] == name:
            raise ImportError(f"No module named {name!r}")
        return original(module, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", fake)


def test_the_released_split(shared_data: Path, tmp_path: Path) -> None:
    """Truth: the card's 538 rows and 2.06 trained turns, and the file itself."""
    source = shared_data / "agentinstruct" / "db.jsonl"
    report = import_agentinstruct(str(source), tmp_path / "db.jsonl")
    assert (tmp_path / "db.jsonl").read_bytes() == source.read_bytes()
    assert (report.conversations["db"], report.trained_turns["db"]) == (538, 1_109)
    assert report.gpt_turns_without_loss_flag == 0
    table = format_report(report)
    assert "2.0613   as in the card" in table


def test_jsonl_array_and_folder_give_the_same(write_jsonl: Write, tmp_path: Path) -> None:
    jsonl = write_jsonl("a.jsonl", DB, OS)
    array = tmp_path / "b.json"
    array.write_text(json.dumps([DB, OS], indent=2))
    folder = tmp_path / "folder" / "data"
    folder.mkdir(parents=True)
    (folder / "db.jsonl").write_text(json.dumps(DB) + "\n")
    (folder / "os.jsonl").write_text(json.dumps(OS) + "\n")
    (folder / "dataset_infos.json").write_text("{}")  # what Hub folders hold besides
    for source in (jsonl, array, folder.parent):
        report = import_agentinstruct(str(source), tmp_path / "out.jsonl")
        assert (tmp_path / "out.jsonl").read_text() == jsonl.read_text()
        assert report.conversations == {"db": 1, "os": 1}
        assert report.trained_turns == {"db": 1, "os": 1}


def test_parquet(write_jsonl: Write, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="parquet needs pyarrow (extra hub)")
    from pyarrow import parquet

    (tmp_path / "data").mkdir()
    for split, row in (("db", DB), ("os", OS)):
        parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "data" / f"{split}-00000-of-00001.parquet")
    import_agentinstruct(str(tmp_path / "data"), tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_text() == write_jsonl("expected.jsonl", DB, OS).read_text()
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(UserError, match="not a readable parquet file"):
        import_agentinstruct(str(tmp_path / "broken.parquet"), tmp_path / "out.jsonl")


def test_missing_flags_and_extra_keys_are_counted(
    write_jsonl: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = record("kg_1", "q", "a", "q", "a", split="train")
    del row["conversations"][1]["loss"]
    row["conversations"][3]["loss"] = None
    row["conversations"][0]["weight"] = 1
    main(["--input", str(write_jsonl("in.jsonl", row)), "--output", str(tmp_path / "out.jsonl")])
    shown = capsys.readouterr().out
    assert "gpt turns without a loss flag (trained): 2" in shown
    assert "'split', 1 times" in shown
    assert "'weight', 1 times" in shown
    assert "DIFFERS: the card has 324 rows, mean 6.04" in shown


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "no records"),
        ([DB, DB], "in.jsonl:2, record 2 (id 'db_0'): id 'db_0' was used before, at"),
        ([DB, record("os_0", "q", "!a")], "in.jsonl:2, record 2 (id 'os_0'): nothing to train on"),
        ([DB, record("os_0", "q")], "the last turn is human"),
        ([DB, {"id": "os_0", "conversations": []}], "non-empty list of turns"),
        ([DB, "text"], "in.jsonl:2, record 2: expected a JSON object"),
        ([record("os_0", "a\ud800", "b")], "turn 1: lone surrogate"),
    ],
)
def test_refusals_leave_nothing(write_jsonl: Write, tmp_path: Path, rows: list[object], words: str) -> None:
    source = write_jsonl("in.jsonl", *rows)
    with pytest.raises(UserError) as caught:
        import_agentinstruct(str(source), tmp_path / "out.jsonl")
    assert words in str(caught.value)
    assert list(tmp_path.iterdir()) == [source]


def test_a_cut_array_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "in.json"
    path.write_text(json.dumps([DB, OS])[:-20])
    with pytest.raises(UserError, match=r"record 2: the file ends in the middle \(after 1 complete records\)"):
        import_agentinstruct(str(path), tmp_path / "out.jsonl")


def test_where_the_input_cannot_be_had(write_jsonl: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out.jsonl"
    with pytest.raises(UserError, match="no such file or folder"):
        import_agentinstruct(str(tmp_path / "none"), out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds no \.parquet, \.jsonl or \.json file"):
        import_agentinstruct(str(tmp_path / "empty"), out)
    source = write_jsonl("in.jsonl", DB)
    with pytest.raises(UserError, match=r"--output .* got a folder"):
        import_agentinstruct(str(source), tmp_path)
    with pytest.raises(UserError, match="is an input file too"):
        import_agentinstruct(str(source), source)
    with pytest.raises(UserError, match="expected hf:OWNER/NAME"):
        import_agentinstruct("hf:AgentInstruct", out)
    (tmp_path / "a.parquet").write_bytes(b"")
    with monkeypatch.context() as patched:
        forbid_import(patched, "pyarrow")
        with pytest.raises(UserError, match=r"reading parquet needs pyarrow; pip install 'agentlm-megatron\[hub\]'"):
            import_agentinstruct(str(tmp_path / "a.parquet"), out)
        forbid_import(patched, "huggingface_hub")
        with pytest.raises(UserError, match="reading from the Hub needs huggingface_hub"):
            import_agentinstruct("hf:THUDM/AgentInstruct", out)


def test_the_hub_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="the Hub needs huggingface_hub (extra hub)")

    def offline(*_: object, **__: object) -> str:
        raise OSError("Cannot find the requested files in the local cache and outgoing traffic has been disabled")

    monkeypatch.setattr(hub, "snapshot_download", offline)
    with pytest.raises(UserError, match=r"could not be downloaded \(OSError: Cannot find .*give its folder as --input"):
        import_agentinstruct("hf:THUDM/AgentInstruct", tmp_path / "out.jsonl")

    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "db.jsonl").write_text(json.dumps(DB))
    monkeypatch.setattr(hub, "snapshot_download", lambda *_, **__: str(tmp_path / "snapshot"))
    report = import_agentinstruct("hf:THUDM/AgentInstruct", tmp_path / "out.jsonl")
    assert report.conversations == {"db": 1}
