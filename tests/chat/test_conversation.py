"""The record and its file: what is read, what comes back, and what is refused with which words."""

import gzip
import json
from pathlib import Path

import pytest

from megatron_agent.chat.conversation import (
    Conversation,
    Turn,
    check_trainable,
    conversation_to_record,
    parse_conversation,
    read_conversations,
    read_records,
    write_conversations,
)
from megatron_agent.errors import UserError

HUMAN = {"from": "human", "value": "hi"}
GPT = {"from": "gpt", "value": "hello"}


def test_round_trip_keeps_every_field() -> None:
    record = {
        "conversations": [
            {"from": "system", "loss": None, "value": "Be brief."},
            {"from": "human", "loss": None, "value": "a\u0000b\u2028c\r\n"},
            {"from": "gpt", "loss": False, "value": "Ok."},
            {"from": "human", "loss": None, "value": "go on"},
            {"from": "gpt", "loss": True, "value": "é 漢 🙂"},
        ],
        "id": "db_0",
        "source": "agentinstruct",
        "model": "gpt-4",
        "task": "db",
        "reward": 1.0,
    }
    conversation = parse_conversation(record, "x")
    assert conversation_to_record(conversation) == record
    assert [turn.trained for turn in conversation.turns] == [False, False, False, False, True]


def test_missing_and_null_loss_are_trained() -> None:
    conversation = parse_conversation({"id": "a", "conversations": [HUMAN, GPT, HUMAN, {**GPT, "loss": None}]}, "x")
    assert [turn.trained for turn in conversation.turns] == [False, True, False, True]


def test_released_file_comes_back_byte_for_byte(shared_data: Path, tmp_path: Path) -> None:
    """Truth: the released db split of AgentInstruct itself."""
    source = shared_data / "agentinstruct" / "db.jsonl"
    copy = tmp_path / "copy.jsonl"
    assert write_conversations(copy, read_conversations(source)) == 538
    assert copy.read_bytes() == source.read_bytes()


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ([], "expected a JSON object"),
        ({"conversations": [HUMAN, GPT]}, '"id"'),
        ({"id": "", "conversations": [HUMAN, GPT]}, 'string under "id", got a string that is empty'),
        ({"id": 3, "conversations": [HUMAN, GPT]}, 'string under "id", got a number'),
        ({"id": "a", "conversations": []}, 'non-empty list of turns under "conversations", got a list that is empty'),
        ({"id": "a", "items": []}, "unknown key 'items'"),
        ({"id": "a", "conversations": ["hi"]}, "turn 1: expected an object"),
        ({"id": "a", "conversations": [HUMAN, {**GPT, "los": False}]}, "turn 2: unknown key 'los'"),
        ({"id": "a", "conversations": [{"from": "user", "value": "x"}]}, "got 'user'; data_prep.clean_sharegpt"),
        ({"id": "a", "conversations": [{"from": ["gpt"], "value": "x"}]}, "got ['gpt']"),
        ({"id": "a", "conversations": [{"from": "human", "value": None}]}, 'string under "value", got null'),
        ({"id": "a", "conversations": [HUMAN, {**GPT, "loss": 1}]}, 'under "loss", got 1'),
        ({"id": "a", "conversations": [{**HUMAN, "loss": True}, GPT]}, "only gpt turns can be trained"),
        ({"id": "a", "conversations": [HUMAN, GPT], "reward": float("nan")}, 'finite number or null under "reward"'),
        ({"id": "a", "conversations": [HUMAN, GPT], "reward": 10**400}, 'finite number or null under "reward"'),
        ({"id": "a", "conversations": [HUMAN, GPT], "reward": True}, 'finite number or null under "reward"'),
        ({"id": "a", "conversations": [HUMAN, GPT], "task": 3}, 'string or null under "task"'),
        ({"id": "a", "conversations": [{"from": "human", "value": "a\ud800"}]}, "lone surrogate '\\ud800'"),
        ({"id": "a\udc00", "conversations": [HUMAN, GPT]}, "lone surrogate"),
    ],
)
def test_wrong_schema_is_refused(record: object, words: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_conversation(record, "data.jsonl:7 (id 'a')")
    assert str(caught.value).startswith("data.jsonl:7 (id 'a'):")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"id": "a"', "not valid JSON"),
        (b'{"id": "a", "id": "b"}', "key 'id' is given twice"),
        (b'{"id": "a", "reward": NaN}', "NaN is not a JSON number"),
        (b'{"id": "\xff"}', "not UTF-8 (byte 8 of the line)"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"id": ' + b"9" * 5_000 + b"}", "not valid JSON"),
        (b'{"id": "b", "conversations": [{"from": "human", "value": "\\ud83d"}]}', "(id 'b'): turn 1: lone surrogate"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, line: bytes, words: str) -> None:
    path = tmp_path / "data.jsonl"
    good = json.dumps({"id": "good", "conversations": [HUMAN, GPT]}).encode()
    path.write_bytes(good + b"\n\n" + line + b"\n")
    reading = read_conversations(path)
    assert next(reading).id == "good"
    with pytest.raises(UserError) as caught:
        next(reading)
    assert str(caught.value).startswith(f"{path}:3")
    assert words in str(caught.value)


def test_arrays_and_missing_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_text('[{"id": "a"}]')
    with pytest.raises(UserError, match="got a JSON array; convert it with"):
        list(read_conversations(path))
    with pytest.raises(UserError, match="no such file"):
        list(read_conversations(tmp_path / "none.jsonl"))
    with pytest.raises(UserError, match="got a folder"):
        list(read_conversations(tmp_path))


def test_a_failing_stream_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text("old")

    def failing():
        yield Conversation("a", (Turn("human", "x"), Turn("gpt", "y")))
        raise UserError("stop")

    with pytest.raises(UserError, match="stop"):
        write_conversations(path, failing())
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


S, H, G = Turn("system", "s"), Turn("human", "h"), Turn("gpt", "g")
CONTEXT = Turn("gpt", "Ok.", loss=False)


@pytest.mark.parametrize("turns", [(H, G), (S, H, G), (H, CONTEXT, H, G), (H, G, H, CONTEXT)])
def test_trainable(turns: tuple[Turn, ...]) -> None:
    check_trainable(Conversation("a", turns), "x")


@pytest.mark.parametrize(
    ("turns", "words"),
    [
        ((), "no human and gpt turns"),
        ((S,), "no human and gpt turns"),
        ((G, H, G), "the first turn after an optional system turn must be human: turn 1 is gpt"),
        ((S, G), "must be human: turn 2 is gpt"),
        ((H, H, G), "turns must alternate: turn 2 is human, expected gpt"),
        ((H, G, G), "turns must alternate: turn 3 is gpt, expected human"),
        ((H, G, S, H, G), "a system turn may only come first: turn 3 is system"),
        ((H, G, H), "the last turn is human, expected gpt"),
        ((H, Turn("gpt", " \n")), "turn 2 (gpt) is empty"),
        ((Turn("system", ""), H, G), "turn 1 (system) is empty"),
        ((H, CONTEXT), "nothing to train on"),
    ],
)
def test_untrainable_names_the_rule(turns: tuple[Turn, ...], words: str) -> None:
    with pytest.raises(UserError) as caught:
        check_trainable(Conversation("a", turns), "f:1 (id 'a')")
    assert str(caught.value).startswith("f:1 (id 'a'): ")
    assert words in str(caught.value)


def test_gzip_files_are_read_whatever_their_name(tmp_path: Path) -> None:
    record = '{"id": "a", "conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yes"}]}\n'
    path = tmp_path / "data.jsonl"
    path.write_bytes(gzip.compress(record.encode() * 2))
    assert [conversation.id for conversation in read_conversations(path)] == ["a", "a"]


def test_a_cut_gzip_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"id": "a"}\n' * 50)[:-12])
    with pytest.raises(UserError, match=r"data\.jsonl\.gz: a gzip file that is cut or damaged"):
        list(read_records(path))
