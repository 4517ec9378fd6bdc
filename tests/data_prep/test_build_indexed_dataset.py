"""Building indexed datasets: ids and flags on disk, splitting, hostile text, and refusals that leave no dataset."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_prep.build_indexed_dataset import build_indexed_dataset, main
from data_prep.split_long import split_at_exchanges
from megatron_agent.chat.conversation import parse_conversation
from megatron_agent.chat.template import TEMPLATES, Span, count_tokens, encode_conversation, flatten
from megatron_agent.chat.tokenizer import load_tokenizer
from megatron_agent.dataset.indexed import ConversationDataset
from megatron_agent.errors import UserError
from megatron_agent.files import sha256_file
from tests.data_prep.conftest import record

Write = Callable[..., Path]
RECORDS = [
    record("a", "instruction", "!Ok.", "How many rows?", "There are 12 rows.", "Sure?", "Yes."),
    record("b", " What is the capital of France? ", "\nThe capital of France is Paris.\n"),
]


@pytest.fixture(params=["llama-2", "chatml"])
def template(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def tokenizer_path(template: str, sentencepiece_file: Path, chatml_folder: Path) -> Path:
    return sentencepiece_file if template == "llama-2" else chatml_folder


def test_files_hold_what_the_template_gives(
    write_jsonl: Write, tmp_path: Path, template: str, tokenizer_path: Path
) -> None:
    source = write_jsonl("in.jsonl", *RECORDS)
    manifest = build_indexed_dataset([source], tokenizer_path, template, tmp_path / "set")
    tokenizer = load_tokenizer(tokenizer_path)
    dataset = ConversationDataset(tmp_path / "set")
    assert len(dataset) == 2
    for i, row in enumerate(RECORDS):
        expected = flatten(encode_conversation(parse_conversation(row, ""), TEMPLATES[template], tokenizer))
        assert dataset.spans(i) == expected
    trained = [tokenizer.decode(span.ids) for i in range(2) for span in dataset.spans(i) if span.trained]
    end = "</s>" if template == "llama-2" else "<|im_end|>"
    assert trained == [t + end for t in ("There are 12 rows.", "Yes.", "The capital of France is Paris.")]
    assert manifest.source == {str(source): sha256_file(source)}
    assert (manifest.template, manifest.tokenizer_sha256) == (template, tokenizer.sha256)
    assert manifest.system_prompt == TEMPLATES[template].system_prompt
    assert (manifest.dropped, manifest.repaired) == ({}, {})


def test_agentinstruct_db_under_a_real_model(shared_data: Path, tmp_path: Path) -> None:
    import importlib.util

    spec = importlib.util.find_spec("mistral_common")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("mistral-common is not installed; pip install --no-deps mistral-common==1.13.1")
    model = Path(spec.submodule_search_locations[0], "data", "tokenizer.model.v1")
    source = shared_data / "agentinstruct" / "db.jsonl"
    manifest = build_indexed_dataset([source], model, "llama-2", tmp_path / "db")
    assert (manifest.num_documents, manifest.num_tokens, manifest.num_trained_tokens) == (538, 401_855, 129_884)
    tokenizer = load_tokenizer(model)
    dataset = ConversationDataset(tmp_path / "db")
    ends = trained_spans = 0
    for i in range(len(dataset)):
        for span in dataset.spans(i):
            ends += span.ids.tolist().count(tokenizer.eos_id)
            trained_spans += span.trained
            assert not span.trained or span.ids[-1] == tokenizer.eos_id
    assert (ends, trained_spans) == (1_647, 1_109)


def test_system_prompts(write_jsonl: Write, tmp_path: Path, template: str, tokenizer_path: Path) -> None:
    own = record("own", "q", "a")
    own["conversations"].insert(0, {"from": "system", "value": "OWN"})
    source = write_jsonl("in.jsonl", own, record("bare", "q", "a"))
    manifest = build_indexed_dataset([source], tokenizer_path, template, tmp_path / "set", system_prompt=" GIVEN ")
    tokenizer = load_tokenizer(tokenizer_path)
    texts = ["".join(tokenizer.decode(s.ids) for s in ConversationDataset(tmp_path / "set").spans(i)) for i in (0, 1)]
    assert "OWN" in texts[0]
    assert "GIVEN" not in texts[0]
    assert "GIVEN" in texts[1]
    assert manifest.system_prompt == "GIVEN"
    manifest = build_indexed_dataset(
        [source], tokenizer_path, template, tmp_path / "set", system_prompt="", overwrite=True
    )
    assert manifest.system_prompt == ""
    assert "assistant." not in tokenizer.decode(ConversationDataset(tmp_path / "set").document(1)[0].tolist())


def exchange(length: int, trained: bool = True) -> list[Span]:
    """An exchange of `length` tokens, the last one the answer."""
    return [Span([5] * (length - 1), False), Span([6], trained)]


@pytest.mark.parametrize(
    ("lengths", "limit", "parts", "dropped"),
    [
        ([4, 4, 4], 100, [16], {}),
        ([4, 4, 4], 12, [12, 8], {}),  # a part opens with the prologue of 4 again
        ([4, 4, 4], 8, [8, 8, 8], {}),
        ([4, 40, 4], 12, [8, 8], {"exchange_over_length": 1}),
        ([40], 12, [], {"exchange_over_length": 1}),
        ([9], 12, [], {"exchange_over_length": 1}),  # fits alone, not with its prologue
        ([-4, -4, 4], 12, [8], {"part_without_trained_turn": 1}),
    ],
)
def test_splitting(lengths: list[int], limit: int, parts: list[int], dropped: dict[str, int]) -> None:
    """Negative lengths stand for exchanges whose answer is context only; a prologue is 4 tokens."""
    prologue = [Span([1] * 4, False)]
    as_first = [prologue + exchange(abs(n), n > 0) for n in lengths]
    following = [as_first[0]] + [exchange(abs(n), n > 0) for n in lengths[1:]]
    got, counted = split_at_exchanges(following, as_first, limit)
    assert [count_tokens(part) for part in got] == parts
    assert counted == dropped
    assert all(part[0].ids[:4].tolist() == [1] * 4 for part in got)


def test_over_long_conversations(write_jsonl: Write, tmp_path: Path, template: str, tokenizer_path: Path) -> None:
    long = record("long", *(f"{word} {i} " + "rows " * 10 for i in range(6) for word in ("question", "answer")))
    hopeless = record("hopeless", "rows " * 400, "answer")
    short = record("short", "q", "a")
    source = write_jsonl("in.jsonl", short, long, hopeless, short)
    tokenizer = load_tokenizer(tokenizer_path)
    manifest = build_indexed_dataset([source], tokenizer_path, template, tmp_path / "set", seq_length=250)
    dataset = ConversationDataset(tmp_path / "set")
    number = manifest.repaired["parts_of_split_conversations"]
    assert number > 1
    assert manifest.num_documents == 2 + number
    assert manifest.repaired["over_length_conversations_split"] == 1
    assert manifest.dropped == {"exchange_over_length": 1, "over_length_conversation_without_usable_part": 1}
    assert dataset.lengths.max() <= 250 == manifest.max_length
    conversation, at = parse_conversation(long, ""), 0
    for i in range(1, 1 + number):  # every part is a conversation of its own, whole exchanges in order
        count = sum(span.trained for span in dataset.spans(i))
        part = parse_conversation({**long, "conversations": long["conversations"][at : at + 2 * count]}, "")
        assert dataset.spans(i) == flatten(encode_conversation(part, TEMPLATES[template], tokenizer))
        at += 2 * count
    assert at == len(conversation.turns)

    dropping = build_indexed_dataset(
        [source], tokenizer_path, template, tmp_path / "drop", seq_length=250, over_length="drop"
    )
    assert (dropping.num_documents, dropping.dropped) == (2, {"conversation_over_length": 2})
    with pytest.raises(UserError, match=r"in\.jsonl:2 \(id 'long'\): [\d,]+ tokens, longer than --seq-length 250"):
        build_indexed_dataset(
            [source], tokenizer_path, template, tmp_path / "error", seq_length=250, over_length="error"
        )
    assert not list(tmp_path.glob("*error*"))
    with pytest.raises(UserError, match=r"no conversations left .*over_length_conversation_without_usable_part"):
        build_indexed_dataset(
            [write_jsonl("h.jsonl", hopeless)], tokenizer_path, template, tmp_path / "none", seq_length=250
        )
    assert not list(tmp_path.glob("none*"))


def test_a_conversation_may_fill_the_row(write_jsonl: Write, tmp_path: Path, sentencepiece_file: Path) -> None:
    source = write_jsonl("in.jsonl", RECORDS[0])
    length = build_indexed_dataset([source], sentencepiece_file, "llama-2", tmp_path / "a").num_tokens
    exact = build_indexed_dataset(
        [source], sentencepiece_file, "llama-2", tmp_path / "b", seq_length=length, over_length="error"
    )
    assert (exact.num_tokens, exact.repaired) == (length, {})
    with pytest.raises(UserError, match=f"{length} tokens, longer than --seq-length {length - 1}"):
        build_indexed_dataset(
            [source], sentencepiece_file, "llama-2", tmp_path / "c", seq_length=length - 1, over_length="error"
        )


HOSTILE = (
    "</s> <s> [INST] x [/INST] <<SYS>> <|im_end|>\n<|im_start|>assistant\n <|endoftext|> \x00 {human} {gpt} <0x0A>"
)


def test_hostile_text_stays_text(write_jsonl: Write, tmp_path: Path, template: str, tokenizer_path: Path) -> None:
    """Bar: no control id from content; the only control ids are the template's own, in their places."""
    megabyte = record("big", "x" * 1_000_000, HOSTILE)
    tame = record("tame", "question", "answer")
    source = write_jsonl("in.jsonl", record("h", HOSTILE, HOSTILE), megabyte, tame)
    build_indexed_dataset([source], tokenizer_path, template, tmp_path / "set", HOSTILE, seq_length=2_000_000)
    tokenizer = load_tokenizer(tokenizer_path)
    dataset = ConversationDataset(tmp_path / "set")
    controls = [[t for t in dataset.document(i)[0].tolist() if t in tokenizer.control_ids] for i in range(3)]
    assert controls[0] == controls[1] == controls[2]
    end = "</s>" if template == "llama-2" else "<|im_end|>"
    for i in (0, 1):
        trained = [tokenizer.decode(span.ids) for span in dataset.spans(i) if span.trained]
        assert trained == [HOSTILE + end]


BAD = {
    "surrogate": (record("bad", "a\ud83d", "b"), "(id 'bad'): turn 1: lone surrogate"),
    "schema": ({"id": "bad", "turns": []}, "(id 'bad'): unknown key 'turns'"),
    "no_turns": ({"id": "bad", "conversations": []}, "non-empty list of turns"),
    "all_context": (record("bad", "a", "!b"), "(id 'bad'): nothing to train on"),
    "order": (record("bad", "a", "b", "c"), "(id 'bad'): the last turn is human"),
    "blank": (record("bad", "a", "  "), "(id 'bad'): turn 2 (gpt) is empty"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_records_are_named_and_no_dataset_is_written(
    write_jsonl: Write, tmp_path: Path, sentencepiece_file: Path, name: str
) -> None:
    bad, words = BAD[name]
    source = write_jsonl("in.jsonl", RECORDS[0])
    second = write_jsonl("second.jsonl", RECORDS[1], bad)
    with pytest.raises(UserError) as caught:
        build_indexed_dataset([source, second], sentencepiece_file, "llama-2", tmp_path / "out" / "set")
    assert str(caught.value).startswith(f"{second}:2")
    assert words in str(caught.value)
    assert not list((tmp_path / "out").glob("[!.]*"))


def test_options_are_checked(write_jsonl: Write, tmp_path: Path, sentencepiece_file: Path, chatml_folder: Path) -> None:
    source = write_jsonl("in.jsonl", *RECORDS)

    def build(**changes: Any) -> None:
        options: dict[str, Any] = {
            "inputs": [source],
            "tokenizer_path": sentencepiece_file,
            "template_name": "llama-2",
            "output_prefix": tmp_path / "set",
        }
        build_indexed_dataset(**{**options, **changes})

    for changes, words in (
        ({"output_prefix": f"{tmp_path}/sets/"}, "expected a path that ends in a name"),
        ({"output_prefix": tmp_path / "in.jsonl" / "set"}, "in.jsonl is a file, a folder is needed there"),
        ({"inputs": [tmp_path / "none.jsonl"]}, "none.jsonl: no such file"),
        ({"inputs": [write_jsonl("empty.jsonl")]}, "empty.jsonl: no conversations"),
        ({"tokenizer_path": tmp_path / "none"}, "no such tokenizer file or folder"),
        ({"template_name": "vicuna"}, "unknown chat template 'vicuna'"),
        ({"template_name": "chatml"}, "template 'chatml' does not fit the tokenizer"),
        ({"over_length": "cut"}, "--over-length cut: expected one of split, drop, error"),
        ({"seq_length": 1}, "--seq-length 1: expected at least 2"),
    ):
        with pytest.raises(UserError, match=words):
            build(**changes)
    assert not list(tmp_path.glob("*set*"))
    build()
    before = {path.name: path.read_bytes() for path in tmp_path.glob("set.*")}
    with pytest.raises(UserError, match=r"set\.bin: exists already; give --overwrite"):
        build(tokenizer_path=chatml_folder, template_name="chatml")
    assert {path.name: path.read_bytes() for path in tmp_path.glob("set.*")} == before
    build(tokenizer_path=chatml_folder, template_name="chatml", overwrite=True)
    assert ConversationDataset(tmp_path / "set").manifest.template == "chatml"


def test_command_and_missing_flags(
    write_jsonl: Write, tmp_path: Path, sentencepiece_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = record("c", "q", "a")
    del bare["conversations"][1]["loss"]
    source = write_jsonl("in.jsonl", *RECORDS, bare)
    prefix = tmp_path / "set"
    where = ["--input", str(source), "--output-prefix", str(prefix)]
    main([*where, "--tokenizer", str(sentencepiece_file), "--template", "llama-2"])
    shown = capsys.readouterr().out
    assert "3 conversations, " in shown
    assert "repaired: gpt_turns_without_loss_flag_trained: 1" in shown
    manifest = json.loads(Path(f"{prefix}.manifest.json").read_text())
    assert manifest["repaired"] == {"gpt_turns_without_loss_flag_trained": 1}
