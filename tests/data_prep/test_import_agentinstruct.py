"""Importing AgentInstruct: every form of input, the counts, and what is refused."""

import builtins
import errno
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_prep.agentinstruct.audit import Audit, audit_report, format_audit
from data_prep.agentinstruct.card import CARD, CARD_ROWS, card_differences, count_tasks
from data_prep.import_agentinstruct import ImportOptions, format_report, import_agentinstruct, main
from megatron_agent.chat.conversation import parse_conversation, read_conversations
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
    assert "2.0613    1,436,655   as in the card" in table


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


def report_of(source: Path, folder: Path, *arguments: str) -> dict[str, Any]:
    """Run the command and return its JSON report."""
    main(
        ["--input", str(source), "--output", str(folder / "out.jsonl"), "--report", str(folder / "r.json"), *arguments]
    )
    report: dict[str, Any] = json.loads((folder / "r.json").read_text())
    return report


def test_the_card_adds_up() -> None:
    assert sum(card.rows for card in CARD.values()) == CARD_ROWS == 1_866
    assert sum(card.arrow_bytes for card in CARD.values()) == 8_042_511  # dataset_size on the card
    turns = sum(card.rows * card.mean_trained_turns for card in CARD.values())
    assert round(turns / CARD_ROWS, 2) == 5.24


def test_the_released_split_differs_in_nothing_of_its_own(shared_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="Arrow bytes need pyarrow (extra hub)")
    report = report_of(shared_data / "agentinstruct" / "db.jsonl", tmp_path)
    assert [line for line in report["differences_from_card"] if line.startswith("db")] == []
    assert report["tasks"]["db"]["arrow_bytes"] == 1_436_655
    found = {rule: entry["rows"] for rule, entry in report["audit"]["rules"].items() if entry["rows"]}
    assert found == {"no_thought": 11, "truncated": 6}
    assert len(report["audit"]["findings"]) == 20
    assert report["records"]["read"] == report["records"]["good"] == 538


def test_every_kind_of_difference(shared_data: Path) -> None:
    rows = list(read_conversations(shared_data / "agentinstruct" / "db.jsonl"))
    changed = [row for row in rows if row.id not in ("db_0", "db_7", "db_537")]
    changed.append(parse_conversation(record("db_tri_7", "q", "a", "q", "a"), "row"))
    differences = card_differences(changed, count_tasks(changed))
    assert "db: 535 rows, the card has 538" in differences
    assert "db: 3 ids missing from 0 to 537: db_0, db_7, db_537" in differences
    assert "ids that are not <split>_<number>: db_tri_7" in differences
    assert "db_tri: not a split of AgentInstruct (1 rows)" in differences
    assert any(line.startswith("db: 1,4") and "the card has 1,436,655" in line for line in differences)
    many = [parse_conversation(record("kg_987654321", "q", "a"), "row")]
    missing = next(line for line in card_differences(many, count_tasks(many)) if "missing" in line)
    assert missing.endswith("kg_0, kg_1, kg_2, kg_3, kg_4, kg_5, kg_6, kg_7, kg_8, kg_9, ...")


def test_ids_against_the_name_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name, rows in (("db-00000-of-00001.jsonl", (DB, OS)), ("kg.jsonl.gz", (record("kg_0", "q", "a"),))):
        text = "".join(json.dumps(row) + "\n" for row in rows).encode()
        (tmp_path / "data" / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    report = report_of(tmp_path / "data", tmp_path)
    assert "db: 1 rows in this split's file have ids of os: os_7" in report["differences_from_card"]
    assert report["tasks"].keys() == {"db", "os", "kg"}


def test_bad_records_are_counted_and_left_out(write_jsonl: Write, tmp_path: Path) -> None:
    planted = record("db_tri_1", "question, you know.", "answer", "q", "a")
    planted["conversations"][2]["from"] = "gpt"
    bad = [DB, planted, record("os_0", "q", "!a"), "text", record("os_1", "a\ud800", "b"), record("kg_0", "q")]
    source = write_jsonl("in.jsonl", DB, *bad, OS)
    report = report_of(source, tmp_path, "--on-bad", "drop")
    dropped = {rule: entry["records"] for rule, entry in report["records"]["dropped"].items()}
    assert dropped == {"wrong_schema": 2, "wrong_structure": 2, "nothing_trained": 1, "duplicate_id": 1}
    assert report["records"]["read"] == sum(dropped.values()) + report["records"]["good"] == 8
    first = report["records"]["dropped"]["wrong_structure"]["list"][0]
    assert first["where"] == f"{source}:3, record 3 (id 'db_tri_1')"
    assert first["reason"].startswith("turns must alternate")
    assert first["audit_rules"] == ["trigger_phrase"]
    assert (tmp_path / "out.jsonl").read_text() == write_jsonl("expected.jsonl", DB, OS).read_text()
    with pytest.raises(UserError, match=r"turns must alternate.*breaks the audit's trigger_phrase too.*--on-bad drop"):
        import_agentinstruct(str(write_jsonl("in.jsonl", planted)), tmp_path / "x.jsonl")
    with pytest.raises(UserError, match=r"no records; .*\(1 were dropped\)"):
        import_agentinstruct(str(source), tmp_path / "x.jsonl", ImportOptions(drop_bad=True))
    assert not (tmp_path / "x.jsonl").exists()


def test_the_cleaned_copy(write_jsonl: Write, tmp_path: Path) -> None:
    final = "Act: finish"
    rows = [
        record("os_0", "list\r\n\x1b[Kroot", f"Think: x\n\n{final}"),
        record("os_1", "b", final),
        record("os_2", "b", final),
        record("os_3", "\x1b[K", f"Think: x\n\n{final}"),
        record("os_4", "c", "Think: x\n\nAct: bash\n\n```bash\nls\n```"),
    ]
    source = write_jsonl("in.jsonl", *rows)
    flags = ("--drop-flagged", "duplicate_row,no_thought,mis_joined", "--strip-terminal-codes")
    report = report_of(source, tmp_path, "--cleaned", str(tmp_path / "clean.jsonl"), *flags)
    assert (tmp_path / "out.jsonl").read_bytes() == source.read_bytes()
    cleaned = [json.loads(line) for line in (tmp_path / "clean.jsonl").open()]
    assert [row["id"] for row in cleaned] == ["os_0", "os_3", "os_4"]
    assert cleaned[0]["conversations"][0]["value"] == "list\nroot"
    assert cleaned[1] == rows[3]
    counts = report["cleaned"]
    assert counts["dropped"] == {"duplicate_row": ["os_2"], "no_thought": ["os_1"], "mis_joined": []}
    assert counts["rows"] + sum(map(len, counts["dropped"].values())) == len(rows)
    assert (counts["stripped_sequences"], counts["stripped_rows"]) == (2, 1)
    assert counts["stripped_to_nothing"] == ["os_3: turn 1"]


def test_matching_the_evaluator(
    shared_data: Path, write_jsonl: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = json.loads((shared_data / "agenttraj" / "webshop.jsonl").open().readline())
    report = report_of(write_jsonl("in.jsonl", first, DB), tmp_path, "--match-evaluator")
    assert report["match_evaluator"]["rows"] == {"webshop": 1}
    assert report["records"]["written"] == report["records"]["good"] == 2
    assert report["match_evaluator"]["wrapped_turns"] == {"webshop": 5}
    assert "db: 0 rows rewritten (0 turns wrapped, 0 demonstration turns added), 1 left" in capsys.readouterr().out
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").open()]
    assert [len(row["conversations"]) for row in written] == [len(first["conversations"]) + 8, 4]
    source = write_jsonl("bad.jsonl", record("babyai_1", "q", "a"), DB)
    out = tmp_path / "new.jsonl"
    with pytest.raises(UserError, match=r"1 rows cannot be rewritten: babyai_1 \('babyai' is not a task"):
        import_agentinstruct(str(source), out, ImportOptions(match_evaluator=True))
    assert not out.exists()
    for unmatched, kept in (("keep", ["babyai_1", "db_0"]), ("drop", ["db_0"])):
        result = import_agentinstruct(str(source), out, ImportOptions(match_evaluator=True, unmatched=unmatched))
        assert [row.id for row in read_conversations(out)] == kept
        assert result.conversations.total() == len(kept)
        shown = format_report(result)
        assert "not rewritten: babyai_1" in shown
        assert ("1 rows in all, left out" in shown) == (unmatched == "drop")


def test_the_terminal_shows_no_control_codes_of_the_data(write_jsonl: Write, tmp_path: Path) -> None:
    final = "x\nAction: Answer\nFinal Answer: [1]"
    rows = [record(f"\x1b[2Jdb_{i}\x07", "q", final) for i in range(2)]
    shown = format_report(import_agentinstruct(str(write_jsonl("in.jsonl", *rows)), tmp_path / "out.jsonl"))
    assert "\\x1b[2Jdb" in shown
    assert all(character.isprintable() or character == "\n" for character in shown)


def test_a_long_note_is_cut_in_the_terminal_only() -> None:
    found = Audit(notes=["x" * 1000, "short"])
    assert len(format_audit(found)) < 500
    assert format_audit(found).endswith("note: short")
    assert audit_report(found)["notes"] == found.notes


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (ImportOptions(cleaned="c.jsonl", drop_flagged=("misjoined",)), "no such rule; choose from mis_joined"),
        (ImportOptions(drop_flagged=("mis_joined",)), "name its file with --cleaned"),
        (ImportOptions(cleaned="c.jsonl"), "say what to clean"),
        (ImportOptions(unmatched="keep"), "belong to --match-evaluator"),
        (ImportOptions(report="out.jsonl"), "two of them are the same file"),
    ],
)
def test_options_that_do_not_fit(
    write_jsonl: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: ImportOptions, words: str
) -> None:
    source = write_jsonl("in.jsonl", DB)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        import_agentinstruct(str(source), "out.jsonl", options)
    assert words in str(caught.value)
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize("full", ["out.jsonl", "clean.jsonl", "r.json"])
def test_a_full_disk_leaves_whole_files_only(
    write_jsonl: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: str
) -> None:
    """Truth: the system's own error number, raised when the file is synced."""
    source = write_jsonl("in.jsonl", DB, OS)
    out, clean, report = (tmp_path / name for name in ("out.jsonl", "clean.jsonl", "r.json"))
    original = __import__("os").fsync

    def fsync(descriptor: int) -> None:
        if f".{full}." in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            raise OSError(errno.ENOSPC, "No space left on device")
        original(descriptor)

    monkeypatch.setattr("os.fsync", fsync)
    options = ImportOptions(report=report, cleaned=clean, drop_flagged=("mis_joined",))
    with pytest.raises(OSError, match="No space left on device") as caught:
        import_agentinstruct(str(source), out, options)
    assert caught.value.filename == str(tmp_path / full)
    order = ["out.jsonl", "clean.jsonl", "r.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["in.jsonl", *order[: order.index(full)]])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (gzip.compress(json.dumps(DB).encode() * 50)[:-20], "cut or damaged"),
        (json.dumps(DB).encode("utf-16"), "UTF-"),
        (json.dumps(DB).encode() + b"\n\xff\xfe", "UTF-8"),
        (json.dumps(DB, ensure_ascii=False).replace("task", "t\u00e4sk").encode("latin-1"), "UTF-8"),
    ],
)
def test_damaged_files(tmp_path: Path, content: bytes, words: str) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(content)
    with pytest.raises(UserError) as caught:
        import_agentinstruct(str(source), tmp_path / "out.jsonl", ImportOptions(drop_bad=True))
    assert str(source) in str(caught.value)
    assert words in str(caught.value)
    assert list(tmp_path.iterdir()) == [source]
