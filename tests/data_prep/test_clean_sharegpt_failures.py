"""Cleaning ShareGPT: damaged input, full disks, killed workers and wrong options end in one clear line."""

import errno
import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from data_prep.clean_sharegpt import clean_sharegpt, main
from data_prep.sharegpt import record_cleaner
from data_prep.sharegpt.cleaning_report import CleaningReport
from data_prep.sharegpt.cleaning_rules import RULES
from megatron_agent.chat.conversation import read_conversations
from megatron_agent.errors import UserError, run_command
from tests.data_prep.sharegpt.records import GOOD, raw


def test_a_killed_worker_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_cleaner, "CHUNK", 1)
    (tmp_path / "in.json").write_text(json.dumps([GOOD, GOOD]))

    class Deadly(str):
        """A setting that ends the process that receives it."""

        def __reduce__(self) -> Any:
            return (__import__("os")._exit, (1,))

    with pytest.raises(UserError, match=r"a worker process was killed.*fewer --workers"):
        clean_sharegpt(
            [tmp_path / "in.json"], tmp_path / "x", tmp_path / "r", rules=frozenset([Deadly("x")]), workers=2
        )
    assert [path.name for path in tmp_path.iterdir()] == ["in.json"]


def test_damage_is_told_loudly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "damaged.json.gz"
    pieces = [json.dumps(raw(name, "hg")) for name in "abcde"]
    text = "[" + ",\n".join([pieces[0], pieces[1][:40] + chr(0) + pieces[1][40:], *pieces[2:]])[:-30]
    path.write_bytes(gzip.compress(text.encode()))
    output, report = tmp_path / "out.jsonl", tmp_path / "report.json"
    main(["--input", str(path), "--output", str(output), "--report", str(report), "--workers", "1"])
    captured = capsys.readouterr()
    assert (
        f"WARNING: {path} is CUT OFF: it ends in the middle of a record. 3 complete records were saved" in captured.err
    )
    assert "in 2 places, and whatever the file held after them, are lost" in captured.err
    assert re.search(r"line 2, byte \d+: \d+ characters: not valid JSON", captured.err)
    assert "3 records read, 3 kept (6 turns)" in captured.out
    entry = json.loads(report.read_text())["inputs"][0]
    assert entry["cut_off"] is True
    assert [place["line"] for place in entry["damaged_places"]] == [2, 5]
    assert entry["lost_characters"] == sum(place["characters"] for place in entry["damaged_places"])
    assert [c.id for c in read_conversations(output)] == ["a", "c", "d"]


def test_nothing_is_written_when_nothing_is_left(tmp_path: Path) -> None:
    path = tmp_path / "in.json"
    for content, words in (
        (json.dumps([raw("a", "")]), "none of 1 records is left; dropped by rule: {'no_messages': 1}"),
        ("", "in.json: is empty"),
        ("no JSON", "no JSON record in 7 bytes"),
    ):
        path.write_text(content)
        with pytest.raises(UserError) as caught:
            clean_sharegpt([path], tmp_path / "out.jsonl", tmp_path / "report.json", split_by_model=True)
        assert words in str(caught.value)
        assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("place", ["output", "report"])
def test_a_full_disk_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    (tmp_path / "in.json").write_text(json.dumps([GOOD, raw("b", "hg")]))

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    if place == "output":
        monkeypatch.setattr("data_prep.clean_sharegpt.conversation_to_record", full)
    else:
        monkeypatch.setattr(CleaningReport, "write", full)
    arguments = ["--input", str(tmp_path / "in.json"), "--output", str(tmp_path / "out.jsonl")]
    with pytest.raises(SystemExit) as caught:
        run_command(lambda: main([*arguments, "--report", str(tmp_path / "r.json"), "--workers", "1"]))
    assert caught.value.code == 2
    assert "No space left on device; free some space" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["in.json"]


def test_sums_that_do_not_match_are_an_error() -> None:
    report = CleaningReport()
    report.check_sums()
    report.read = 1
    with pytest.raises(RuntimeError, match="sums do not match: records read and kept"):
        report.check_sums()


def test_paths_are_checked(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        clean_sharegpt([tmp_path / "none"], tmp_path / "out.jsonl", tmp_path / "report.json")
    (tmp_path / "in.json").write_text(json.dumps([GOOD]))
    with pytest.raises(UserError, match="is an input file too"):
        clean_sharegpt([tmp_path / "in.json"], tmp_path / "out.jsonl", tmp_path / "in.json")
    with pytest.raises(UserError, match="--output and --report are the same file"):
        clean_sharegpt([tmp_path / "in.json"], tmp_path / "x", tmp_path / "a" / ".." / "x")
    with pytest.raises(UserError, match=r"--report .* got a folder"):
        clean_sharegpt([tmp_path / "in.json"], tmp_path / "out.jsonl", tmp_path)
    with pytest.raises(UserError, match=r"--output .*in\.json is a file, a folder is needed there"):
        clean_sharegpt([tmp_path / "in.json"], tmp_path / "in.json" / "out.jsonl", tmp_path / "r")
    assert [path.name for path in tmp_path.iterdir()] == ["in.json"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--max-length", "100"], "--tokenizer, --template missing"),
        (["--system-prompt", "x"], "--max-length, --tokenizer, --template missing"),
        (["--skip-rule", "nothing"], "--skip-rule nothing: no rule of that name"),
        (["--workers", "0"], "--workers 0: expected at least 1"),
    ],
)
def test_options_are_checked(tmp_path: Path, arguments: list[str], words: str) -> None:
    (tmp_path / "in.json").write_text(json.dumps([GOOD]))
    files = ["--input", str(tmp_path / "in.json"), "--output", str(tmp_path / "o"), "--report", str(tmp_path / "r")]
    with pytest.raises(UserError, match=re.escape(words)):
        main([*files, *arguments])
    with pytest.raises(UserError, match="no input; give --input F"):
        main(files[2:])


def test_rules_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--list-rules"])
    listed = capsys.readouterr().out
    assert all(name in listed for name in RULES)
