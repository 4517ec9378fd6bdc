"""The contamination check against a slow implementation of its definition, and its command on good and bad input."""

import errno
import gzip
import importlib.util
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep.check_contamination import check_contamination, main
from data_prep.contamination import search as contamination_search
from data_prep.contamination.report import ContaminationReport, ItemResult, one_line, sum_up, verdict
from megatron_agent.errors import UserError, run_command
from tests.data_prep.conftest import record
from tests.data_prep.contamination.brute_force import brute_force

Writer = Callable[..., Path]

WORDS = [f"{colour}{number}" for colour in ("red", "green") for number in range(4)]


def random_files(write_jsonl: Writer, seed: int = 0) -> tuple[Path, Path, list[list[str]], list[list[str]]]:
    """Test items and training conversations of random words, as files and as words."""
    rng = np.random.default_rng(seed)
    test = [rng.choice(WORDS, rng.integers(5, 40)).tolist() for _ in range(12)]
    training = [rng.choice([*WORDS, "zebra"], rng.integers(5, 60)).tolist() for _ in range(40)]
    train_path = write_jsonl("train.jsonl", *(record(f"t_{i}", "x", " ".join(t)) for i, t in enumerate(training)))
    test_path = write_jsonl("test.jsonl", *({"id": f"a_{i}", "text": " ".join(t)} for i, t in enumerate(test)))
    return train_path, test_path, test, training


def flags_of(item: ItemResult) -> list[bool]:
    return [any(first <= i < end for first, end in item.spans) for i in range(item.tokens)]


def test_whole_check_equals_brute_force_for_any_workers_and_chunks(
    write_jsonl: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, test, items, training = random_files(write_jsonl)
    numbers = {word: number for number, word in enumerate([*WORDS, "zebra"], start=1)}
    one = check_contamination([train], [str(test)], workers=1)
    for item, result in zip(items, one.items, strict=True):
        expected = brute_force([numbers[w] for w in item], [[numbers[w] for w in t] for t in training], 10, 4)
        assert flags_of(result) == expected
        assert result.contaminated_tokens == sum(expected)
        assert result.tokens == len(item)
    assert 0 < one.total.contaminated_tokens < one.total.tokens
    monkeypatch.setattr(contamination_search, "CHUNK_CHARACTERS", 2_000)  # several chunks, turns across their borders
    in_chunks = check_contamination([train], [str(test)], workers=1)
    in_workers = check_contamination([train], [str(test)], workers=2)
    assert in_chunks == in_workers
    assert in_chunks.items == one.items
    assert in_chunks.training_tokens == one.training_tokens


def test_killed_worker_is_reported(write_jsonl: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    train, test, *_ = random_files(write_jsonl)
    monkeypatch.setattr(contamination_search, "CHUNK_CHARACTERS", 1_000)
    monkeypatch.setattr(contamination_search, "start_worker", _abort)
    with pytest.raises(UserError, match=r"worker process was killed.*fewer --workers"):
        check_contamination([train], [str(test)], workers=2)


def _abort(*_: object) -> None:
    """What a worker killed by the system looks like; sent to the worker by its name."""
    os._exit(9)


TASK = "put the clean red apple into the big fridge of the kitchen please now"


def run(tmp_path: Path, train: Path, *test: str, **options: Any) -> tuple[ContaminationReport, dict[str, Any]]:
    report = check_contamination([train], test, report_path=tmp_path / "out" / "r.json", workers=1, **options)
    return report, json.loads((tmp_path / "out" / "r.json").read_text())


def test_tasks_verdicts_and_evidence(write_jsonl: Writer, tmp_path: Path) -> None:
    other = "some entirely unrelated words that nobody would ever write into a task of this kind"
    train = write_jsonl(
        "train.jsonl", record("t_0", "hello there", "nothing"), record("t_1", "intro", f"First. {TASK.upper()}!")
    )
    test = write_jsonl(
        "test.jsonl",
        {"id": "alfworld_1", "question": TASK.replace("red apple", "blue pear")},  # 2 of 14 altered
        {"id": "alfworld_2", "question": other},
        {"id": "x", "task": "webshop", "question": f"{other} {TASK}"},
        {"id": "y", "task": "webshop", "question": "too short to match"},
    )
    report, written = run(tmp_path, train, str(test))
    assert [(i.task, i.tokens, i.contaminated_tokens, i.verdict, i.too_short) for i in report.items] == [
        ("alfworld", 14, 14, "dirty", False),
        ("alfworld", 15, 0, "clean", False),
        ("webshop", 29, 16, "between", False),  # 2 words before the task stand beside "First." in a match
        ("webshop", 4, 0, "clean", True),
    ]
    assert [(t.task, t.items, t.dirty, t.between, t.clean, t.too_short) for t in report.tasks] == [
        ("alfworld", 2, 1, 0, 1, 0),
        ("webshop", 2, 0, 1, 1, 1),
    ]
    assert report.total.token_share == pytest.approx(30 / 62)
    assert report.total.mean_share == pytest.approx((1 + 16 / 29) / 4)
    first = report.evidence[0]
    assert first.item.id == "alfworld_1"
    assert len(report.evidence) == 2
    assert "train.jsonl:2 (id 't_1')" in first.records[0].where
    assert first.records[0].turn == 2
    assert first.records[0].share == 1
    assert "blue pear" in first.records[0].test_excerpt
    assert "red apple" in first.records[0].training_excerpt
    assert written["items"][2]["spans"] == [[13, 29]]
    assert written["training_turns"] == 4
    assert set(written["training_files"]) == {str(train)}


def test_evidence_names_the_conversation_that_covers_most(write_jsonl: Writer, tmp_path: Path) -> None:
    words = [f"word{i}" for i in range(40)]
    train = write_jsonl(
        "train.jsonl",
        record("part", "a", " ".join(words[:12])),
        record("whole", "a", " ".join(words)),
        record("no", "a", "b"),
    )
    test = write_jsonl("test.jsonl", {"text": " ".join(words)})
    report, _ = run(tmp_path, train, str(test))
    records = report.evidence[0].records
    assert [("whole" in r.where, r.share) for r in records] == [(True, 1.0), (False, 12 / 40)]
    assert records[0].test_excerpt == " ".join(words)


def test_trained_part_only(write_jsonl: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = write_jsonl("train.jsonl", record("t", TASK, "!" + TASK, "next", "fine"))
    test = write_jsonl("test.jsonl", {"text": TASK})
    assert run(tmp_path, train, str(test))[0].total.dirty == 1
    report, _ = run(tmp_path, train, str(test), train_part="trained")
    assert report.total.dirty == 0
    assert report.training_conversations == report.training_turns == 1
    assert report.training_tokens == 1
    train = write_jsonl("some.jsonl", *(record("t", TASK, f"{mark}fine", "next", "!well") for mark in "!a!b!"))
    monkeypatch.setattr(contamination_search, "CHUNK_CHARACTERS", 1)
    assert run(tmp_path, train, str(test))[0].training_conversations == 5
    assert run(tmp_path, train, str(test), train_part="trained")[0].training_conversations == 2
    train = write_jsonl("none.jsonl", record("t", TASK, "!fine"))
    with pytest.raises(UserError, match=r"none\.jsonl: no trained turns; give --train-part all"):
        run(tmp_path, train, str(test), train_part="trained")


def test_forms_of_test_files(write_jsonl: Writer, tmp_path: Path) -> None:
    train = write_jsonl("train.jsonl", record("t", "x", TASK))
    array, strings = tmp_path / "dev.json", tmp_path / "goals.json.gz"
    array.write_text(json.dumps([{"description": TASK, "labels": []}, {"qid": "7_grailqa", "question": "x"}], indent=1))
    strings.write_bytes(gzip.compress(json.dumps([TASK, "y"]).encode()))
    chats = write_jsonl("chats.jsonl", record("os_3", TASK, "fine"), {"task_id": "HumanEval/0", "turns": [TASK, TASK]})
    report, _ = run(tmp_path, train, f"db={array}", str(strings), str(chats))
    assert [(i.id, i.task, i.verdict) for i in report.items] == [
        ("0", "db", "dirty"),
        ("7_grailqa", "db", "clean"),
        ("0", "goals", "dirty"),
        ("1", "goals", "clean"),
        ("os_3", "os", "dirty"),
        ("HumanEval/0", "HumanEval", "dirty"),
    ]
    fields = write_jsonl("fields.jsonl", {"question": "nothing", "hint": TASK})
    report, _ = run(tmp_path, train, str(fields), text_fields=["question", "hint"])
    assert report.items[0].spans == [[1, 15]]  # no window spans the two fields


def test_model_tokens_and_indexed_datasets(
    write_jsonl: Writer, tmp_path: Path, sentencepiece_file: Path, chatml_folder: Path
) -> None:
    from data_prep.build_indexed_dataset import build_indexed_dataset

    train = write_jsonl("train.jsonl", record("t_0", "hello", "there"), record("t_1", "say it", TASK))
    test = write_jsonl("test.jsonl", {"text": TASK}, {"text": "We were never there, and nobody was, as I recall it."})
    tokenizer = str(sentencepiece_file)
    report, _ = run(tmp_path, train, str(test), tokenizer_path=tokenizer)
    assert [item.verdict for item in report.items] == ["dirty", "clean"]
    assert TASK in report.evidence[0].records[0].training_excerpt
    prefix = tmp_path / "indexed"
    build_indexed_dataset([train], sentencepiece_file, "llama-2", prefix)
    for part, turns in (("all", 2), ("trained", 2)):
        indexed = check_contamination(
            [], [str(test)], train_prefixes=[prefix], tokenizer_path=tokenizer, train_part=part, workers=1
        )
        assert [item.verdict for item in indexed.items] == ["dirty", "clean"]
        assert indexed.training_turns == turns
        assert indexed.evidence[0].records[0].where == f"{prefix}, conversation 1"
    with pytest.raises(UserError, match="give --tokenizer"):
        check_contamination([], [str(test)], train_prefixes=[prefix])
    with pytest.raises(UserError, match="built with a tokenizer of sha256"):
        check_contamination([], [str(test)], train_prefixes=[prefix], tokenizer_path=str(chatml_folder))


def test_verdicts_at_the_thresholds() -> None:
    assert [verdict(share, 0.8, 0.2) for share in (0, 0.19, 0.2, 0.8, 0.81, 1)] == [
        "clean", "clean", "between", "between", "dirty", "dirty",
    ]  # fmt: skip
    item = ItemResult("i", "t", "w", 0, 0, 0.0, "clean", True, [])
    assert sum_up("t", [item]).token_share == 0


@pytest.mark.parametrize(
    ("test_lines", "options", "message"),
    [
        ("", {}, "no test items"),
        ("[]", {}, "no test items"),
        ('{"id": "a", "answer": "x"}', {}, "test.jsonl:1 .id 'a'.: expected a text under question or .*has id, answer"),
        ('{"text": " "}', {}, "test.jsonl:1: the item's text is empty"),
        ('{"text": 5}', {}, "expected the item's text as a string or a list"),
        ("7", {}, "expected the item's text as a string or a list"),
        ('{"text": "a"}\n{"text": ', {}, "test.jsonl:2: not valid JSON"),
        ('[{"text": "a"},', {}, "test.jsonl: not valid JSON"),
        ('{"text": "\\ud800"}', {}, "test.jsonl:1: lone surrogate"),
        ('{"text": "a", "id": "\\ud800"}', {}, "test.jsonl:1 .*: lone surrogate"),
        ('{"text": "a", "task": "\\ud800"}', {}, "test.jsonl:1: lone surrogate"),
        ('{"text": "a"}', {"text_fields": ["text", "hint"]}, "expected a text under text and hint"),
        ('{"text": "a"}', {"mismatches": 10}, "--mismatches 10: expected 0 to 9"),
        ('{"text": "a"}', {"mismatches": -1}, "--mismatches -1: expected 0 to 9"),
        ('{"text": "a"}', {"ngram": 0}, "--ngram 0: expected at least 1"),
        ('{"text": "a"}', {"ngram": 50, "mismatches": 20}, "ways to place the mismatches, at most 5,000"),
        ('{"text": "a"}', {"dirty": 0.1}, "expected 0 <= clean <= dirty <= 1"),
        ('{"text": "a"}', {"workers": 0}, "--workers 0: expected at least 1"),
        ('{"text": "a"}', {"evidence": -1}, "--evidence -1: expected at least 0"),
        ('{"text": "a"}', {"train_part": "none"}, "--train-part none"),
        ('{"text": "a"}', {"report_path": "/dev/null/r.json"}, "is a file, a folder is needed"),
        ('{"text": "a"}', {"tokenizer_path": "/nowhere"}, "/nowhere: no such tokenizer"),
    ],
)
def test_bad_input(write_jsonl: Writer, tmp_path: Path, test_lines: str, options: dict[str, Any], message: str) -> None:
    train = write_jsonl("train.jsonl", record("t", "x", "y"))
    test = tmp_path / "test.jsonl"
    test.write_text(test_lines)
    with pytest.raises(UserError, match=message):
        check_contamination([train], [str(test)], **options)


def test_bad_training_input(write_jsonl: Writer, tmp_path: Path) -> None:
    test = write_jsonl("test.jsonl", {"text": "a"})
    empty, wrong, cut = tmp_path / "empty.jsonl", write_jsonl("wrong.jsonl", {"id": "a"}), tmp_path / "cut.jsonl.gz"
    empty.write_text("\n")
    cut.write_bytes(gzip.compress(json.dumps(record("t", "x", "y")).encode() * 100)[:-20])
    for train, message in (
        (tmp_path / "none.jsonl", "none.jsonl: no such file"),
        (tmp_path, "expected a file, got a folder"),
        (empty, "empty.jsonl: no conversations"),
        (wrong, "wrong.jsonl:1 .id 'a'.: expected a non-empty list of turns"),
        (cut, "cut or damaged"),
    ):
        with pytest.raises(UserError, match=message):
            check_contamination([train], [str(test)])
    with pytest.raises(UserError, match="no training data: give --train"):
        check_contamination([], [str(test)])
    with pytest.raises(UserError, match="no task before the ="):
        check_contamination([wrong], [f"={test}"])


def test_command(write_jsonl: Writer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = write_jsonl("train.jsonl", record("t", "x", TASK + " \x1b[31m"))
    hostile = {"id": "\x1b]0;\nx", "task": "a\x1b\nb", "text": TASK + " \x1b[31m"}
    test = write_jsonl("test.jsonl", {"id": "alfworld_1", "text": TASK + " \x1b[31m"}, hostile)
    main(["--train", str(train), "--test", str(test)])
    output = capsys.readouterr().out
    assert "alfworld                  1         17  100.00%  100.0%      1" in output
    assert "dirty 6 of 50" in output
    assert "15.58%, dirty 7 of 1,021" in output
    assert "put the clean red apple" in output
    assert "\x1b" not in output
    assert "dirty: a  b  ]0; x: 100% of" in output
    with pytest.raises(SystemExit) as exit_status:
        run_command(lambda: main(["--train", str(train), "--test", str(tmp_path / "none")]))
    assert exit_status.value.code == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_full_disk_leaves_no_report(write_jsonl: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = write_jsonl("train.jsonl", record("t", "x", TASK)), write_jsonl("test.jsonl", {"text": TASK})

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("data_prep.check_contamination.json.dump", full)
    with pytest.raises(OSError, match="No space left") as error:
        run(tmp_path, train, str(test))
    assert error.value.filename == str(tmp_path / "out" / "r.json")
    assert list((tmp_path / "out").iterdir()) == []


def test_excerpts_are_one_safe_line() -> None:
    assert one_line("a\nb\x1b[0m\u202e") == "a b [0m "
    assert len(one_line("x" * 500)) == 160


def test_real_data(shared_data: Path, tmp_path: Path) -> None:
    """db training rows against themselves, against AgentBench's problems, and against unrelated school maths."""
    train = shared_data / "agentinstruct" / "db.jsonl"
    few = tmp_path / "few.jsonl"
    few.write_text("".join(train.read_text().splitlines(keepends=True)[:20]))
    tests = [
        f"self={few}",
        f"db={shared_data / 'agentbench' / 'db' / 'dev.jsonl'}",
        f"gsm8k={shared_data / 'benchmarks' / 'gsm8k_test.jsonl'}",
    ]
    spec = importlib.util.find_spec("mistral_common")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("mistral-common is not installed; pip install --no-deps mistral-common==1.13.1")
    tokenizer = Path(spec.submodule_search_locations[0]) / "data" / "tokenizer.model.v1"
    report, _ = run(tmp_path, train, *tests, tokenizer_path=str(tokenizer))
    itself, db, gsm8k = report.tasks
    assert (itself.items, itself.dirty, db.items, gsm8k.items) == (20, 20, 60, 1319)
    # All texts of 10 tokens or more are their own copies; shorter ones ("Ok.") cannot match.
    assert itself.token_share > 0.98
    assert itself.token_share > db.token_share > gsm8k.token_share
    assert db.dirty == gsm8k.dirty == 0
