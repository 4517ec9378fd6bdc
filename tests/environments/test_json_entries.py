"""Large JSON files entry by entry, against `json` itself; damaged ones are named."""

import gzip
import json
from pathlib import Path

import pytest

from megatron_agent.environments import json_entries
from megatron_agent.environments.json_entries import stream_entries
from megatron_agent.errors import UserError

VALUES = (
    [],
    {},
    [1, 22.5, -1e-7, 0, None, True, "é\U0001f642", [{"a": ["NaN"]}], float("inf")],
    {"a": 1, "b é": [2, "x"], "": {"c": {}}, "last": 12345.678},
    [{"html": 'a]}\\"' * n, "n": [n, {"é": None}]} for n in range(6)],
)


@pytest.mark.parametrize("block", [1, 2, 7, 1 << 20])
def test_entries_are_those_of_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(json_entries, "BLOCK_BYTES", block)
    path = tmp_path / "x.json"
    for value in VALUES:
        for text in (json.dumps(value), f"\ufeff {json.dumps(value, ensure_ascii=False, indent=1)} \n"):
            for data in (text.encode(), gzip.compress(text.encode(), mtime=0)):
                path.write_bytes(data)
                entries = list(stream_entries(path, type(value)))
                assert entries == list(enumerate(value) if isinstance(value, list) else value.items())


@pytest.mark.parametrize("block", [1, 1 << 20])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "expected a JSON array, got the end of the file"),
        (b'{"a": 1}', "expected a JSON array, got "),
        (b'[{"a": 1}, {"b"', "entry 1: not whole JSON"),
        (b'[{"a": 1}, x]', "entry 1: not whole JSON"),
        (b'[{"a": 1}', "entry 1: expected a comma before it, got the end of the file"),
        (b'[{"a": 1} {"b": 2}]', "entry 1: expected a comma before it"),
        (b'[{"a": 1},]', "entry 1: not whole JSON"),
        (b"[1.", "entry 0: not whole JSON"),
        (b"[1.]", "entry 0: not whole JSON"),
        (b"[1", "entry 1: expected a comma before it, got the end of the file"),
        (b'["', "entry 0: not whole JSON"),
        (b"[{}] [{}]", "expected nothing behind entry 0"),
        (b'["\xff"]', "expected whole UTF-8 text"),
        (b'["\xc3', "expected whole UTF-8 text"),
        (b"[" * 100_000, "entry 0: not whole JSON"),
        (gzip.compress(b"[1, 2, 3]" * 999, mtime=0)[:-12], "expected whole UTF-8 text|expected nothing behind"),
    ],
    ids=lambda value: repr(value[:16]),
)
def test_damaged_files_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, data: bytes, message: str
) -> None:
    monkeypatch.setattr(json_entries, "BLOCK_BYTES", block)
    path = tmp_path / "x.json"
    path.write_bytes(data)
    with pytest.raises(UserError, match=message):
        list(stream_entries(path, list))


def test_objects_need_names_and_colons(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for text in ('{"a" 1}', "{1: 2}"):
        path.write_text(text)
        with pytest.raises(UserError, match="entry 0: expected a name and a colon"):
            list(stream_entries(path, dict))
    with pytest.raises(UserError, match=r"none\.json: cannot be read"):
        list(stream_entries(tmp_path / "none.json", dict))


def test_a_fault_in_the_middle_is_told_before_the_rest_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of gigabytes is not read to its end, nor held, for a fault at its beginning."""
    monkeypatch.setattr(json_entries, "BLOCK_BYTES", 100)
    path = tmp_path / "x.json"
    path.write_text('[{"a": 1}, {"b": oh}, ' + ", ".join(["2"] * 10_000) + "]")
    read: list[int] = []
    with pytest.raises(UserError, match="entry 1: not whole JSON"):
        list(stream_entries(path, list, lambda name, size: read.append(size)))
    assert sum(read) <= 200
