"""The tolerant JSON reader: cut files, damage in the middle, encodings, gzip; no whole record is lost."""

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest

from data_prep import json_stream
from data_prep.json_stream import Damage, stream_json_records
from megatron_agent.errors import UserError

RECORDS: list[dict[str, Any]] = [
    {
        "id": f"r{i}",
        "conversations": [{"from": "human", "value": f'q{i} {{"id": [1], é🙂\\'}, {"from": "gpt", "value": "a"}],
    }
    for i in range(6)
]
PIECES = [json.dumps(record).encode() for record in RECORDS]


def read(path: Path) -> tuple[list[Any], Damage]:
    """The values of a file, and its damage."""
    damage = Damage()
    return [value for _, value in stream_json_records(path, damage)], damage


def array(*pieces: bytes) -> bytes:
    return b"[" + b", ".join(pieces) + b"]"


@pytest.mark.parametrize("block", [1, 7, 1 << 20])
def test_every_cut_saves_the_complete_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    """Cut a file at every byte: what is complete before the cut comes out, and nothing else."""
    monkeypatch.setattr(json_stream, "BLOCK_BYTES", block)
    records = [{"id": "a", "n": 1.5, "t": 'x,]}\\"é🙂'}, {"id": "b", "t": [True, None]}, {"id": "c"}]
    for text in (json.dumps(records), json.dumps(records, ensure_ascii=False), "\n".join(map(json.dumps, records))):
        data = text.encode()
        starts = [data.index(json.dumps({"id": i})[:-1].encode()) for i in "abc"]
        path = tmp_path / "cut.json"
        for cut in range(starts[1], len(data) + 1):
            path.write_bytes(data[:cut])
            got, damage = read(path)
            assert got == records[: len(got)]
            started = sum(cut > start for start in starts)
            assert len(got) in (started, started - 1)
            whole = cut == len(data) or (text[0] == "{" and len(got) == started)
            assert damage.cut_off is not whole
            assert sum(place.bytes for place in damage.places) == (cut - starts[started - 1]) * (len(got) < started)
        assert got == records


@pytest.mark.parametrize("lines", [False, True])
def test_any_damaged_record_costs_only_itself(tmp_path: Path, lines: bool) -> None:
    """Cut a hole or put garbage anywhere inside one record: the others come out, and the place is told."""
    path = tmp_path / "in.json"
    generator = random.Random(0)
    whole = b"\n".join(PIECES) if lines else array(*PIECES)
    start = whole.index(PIECES[2])
    others = [*RECORDS[:2], *RECORDS[3:]]
    lost = 0
    for _ in range(400):
        at = generator.randrange(1, len(PIECES[2]))
        hole = generator.randrange(1, len(PIECES[2]) - at + 1)
        garbage = generator.choice([b"", b"\x00\x01", b"\xff\xfe", b'"', b"}}", b"\\", b"[[["])
        damaged = PIECES[2][:at] + garbage + PIECES[2][at + hole :]
        path.write_bytes(whole.replace(PIECES[2], damaged))
        got, damage = read(path)
        assert [value for value in got if value in others] == others
        # the damage may leave whole objects, such as a message; at most one of them can be a conversation
        assert sum(isinstance(value.get("conversations"), list) for value in got) <= len(RECORDS)
        if len(got) == len(others):
            lost += 1
            first, last = damage.places[0], damage.places[-1]
            assert (first.byte, first.line) == (start, 3 if lines else 1)
            assert start + len(damaged) <= last.byte + last.bytes <= start + len(damaged) + 2
            assert not damage.cut_off
    assert lost > 250


def test_the_next_record_is_found_across_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "BLOCK_BYTES", 5)
    path = tmp_path / "in.json"
    path.write_bytes(array(PIECES[0], b'{"id": "x" oops ' + b"z" * 2000, PIECES[1]))
    got, damage = read(path)
    assert got == RECORDS[:2]
    assert [(place.characters, place.line) for place in damage.places] == [(len('{"id": "x" oops ') + 2002, 1)]


def test_a_record_without_its_end_does_not_swallow_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "BLOCK_BYTES", 64)
    monkeypatch.setattr(json_stream, "MAX_RECORD_CHARACTERS", 300)
    path = tmp_path / "in.json"
    path.write_bytes(array(PIECES[0], PIECES[1][:-2], *PIECES[2:]))  # the rest of the array is inside record 1
    got, damage = read(path)
    assert got == [RECORDS[0], *RECORDS[2:]]
    assert "no end of the record within 300 characters" in damage.places[0].reason


def test_keys_that_open_records_are_learned(tmp_path: Path) -> None:
    path = tmp_path / "in.json"
    pieces = [b'{"unusual": 1, "id": "a"}', b'{"unusual": 2, broken', b'{"unusual": 3}']
    path.write_bytes(array(*pieces))
    got, _ = read(path)
    assert [value["unusual"] for value in got] == [1, 3]


def test_bytes_that_are_not_utf8_cost_their_record(tmp_path: Path) -> None:
    path = tmp_path / "in.json"
    latin = '{"id": "latin", "value": "café"}'.encode("latin-1")
    escaped = b'{"id": "e", "value": "\\udce9"}'  # a lone surrogate in an escape is another matter
    path.write_bytes(array(PIECES[0], latin, escaped, PIECES[1]))
    got, damage = read(path)
    assert [value["id"] for value in got] == ["r0", "e", "r1"]
    (place,) = damage.places
    assert (place.byte, place.bytes) == (len(PIECES[0]) + 3, len(latin))
    assert "not UTF-8" in place.reason
    with pytest.raises(UserError, match="not UTF-8 near byte"):
        list(stream_json_records(path))


def test_byte_order_marks(tmp_path: Path) -> None:
    path = tmp_path / "in.json"
    path.write_bytes(b"\xef\xbb\xbf" + array(*PIECES))
    assert read(path)[0] == RECORDS
    for encoding in ("utf-16", "utf-32"):
        path.write_bytes(array(*PIECES).decode().encode(encoding))
        with pytest.raises(UserError, match=f"expected UTF-8, got {encoding.upper()}; re-encode it: iconv"):
            read(path)


def test_gzip_whole_cut_and_damaged(tmp_path: Path) -> None:
    generator = random.Random(1)
    records = [{"id": str(i), "value": generator.randbytes(3000).hex()} for i in range(200)]
    packed = gzip.compress(json.dumps(records).encode(), mtime=0)
    path = tmp_path / "in.gz"
    path.write_bytes(packed)
    got, damage = read(path)
    assert (got, damage) == (records, Damage())
    for content, least in ((packed[: len(packed) // 2], 95), (flip(packed, len(packed) // 2), 90), (packed[:-4], 200)):
        path.write_bytes(content)
        got, damage = read(path)
        assert got == records[: len(got)]
        assert len(got) >= least
        assert damage.cut_off
        assert damage.gzip_error
        with pytest.raises(UserError, match=r"gzip file that is cut or damaged|not valid JSON|not UTF-8"):
            list(stream_json_records(path))


def flip(data: bytes, at: int) -> bytes:
    """`data` with 64 bytes from `at` on inverted."""
    return data[:at] + bytes(255 - byte for byte in data[at : at + 64]) + data[at + 64 :]


def test_arrays_in_a_row_are_all_read(tmp_path: Path) -> None:
    path = tmp_path / "in.json"
    path.write_bytes(array(*PIECES[:2]) + b"\n" + array(*PIECES[2:]))
    assert read(path) == (RECORDS, Damage())


def test_a_damaged_last_record_is_not_a_cut(tmp_path: Path) -> None:
    path = tmp_path / "in.json"
    path.write_bytes(array(PIECES[0], b'{"id": "z", oops}'))
    got, damage = read(path)
    assert got == RECORDS[:1]
    assert not damage.cut_off
    assert len(damage.places) == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b" \n\n", "holds no record"),
        (b"[]", "holds no record"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 9, "no JSON record in 2,312 bytes; first failure at line 1"),
        (b"id,text\n1,hello\n", "no JSON record in 16 bytes"),
        (b'["only", "strings"]', "a JSON value that is no object"),
        (b"[" * 300_000, "no JSON record"),
        (gzip.compress(b"[" + PIECES[0], mtime=0)[:20], "no JSON record"),
        (
            b'[{"id": "\xe9"}]',
            "no JSON record in 13 bytes; first failure at line 1: a record with bytes that are not UTF-8",
        ),
    ],
)
def test_a_file_without_a_record_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "in.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read(path)
    assert words in str(caught.value)


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
        (b'[{"id": "a"}, {"id": "b', "in.json:1, record 2: the file ends in the middle (after 1 complete records)"),
        (b'[{"id": "a"}', "in.json:1: the file ends in the middle (after 1 complete records)"),
        (b"[" * 300_000, "record 1: not a usable JSON record"),
    ],
)
def test_without_damage_to_fill_in_a_bad_file_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "in.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        list(stream_json_records(path))
    assert words in str(caught.value)
