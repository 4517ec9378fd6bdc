"""Builds by several workers, stopped and taken up again, on a full disk: always the same files."""

import errno
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep import build_indexed_dataset as command
from data_prep import build_shards
from data_prep.build_indexed_dataset import build_indexed_dataset, main
from data_prep.build_shards import BuildCounts, input_shards, load_shard, save_shard
from megatron_agent.dataset.indexed import ConversationDataset
from megatron_agent.dataset.writer import DocumentBatch
from megatron_agent.errors import UserError
from tests.data_prep.conftest import record

Write = Callable[..., Path]
ENDINGS = (".bin", ".idx", ".manifest.json")


def many_records(count: int) -> list[dict[str, Any]]:
    generator = np.random.default_rng(3)
    return [
        record(f"r{i}", *(f"rows {i} {k} " + "people " * int(n) for k, n in enumerate(generator.integers(1, 40, 4))))
        for i in range(count)
    ]


@pytest.fixture
def source(write_jsonl: Write) -> Path:
    return write_jsonl("in.jsonl", *many_records(300))


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some 30 shards; the processes of a pool are not patched, but they get ready-made shards."""
    monkeypatch.setattr(build_shards.input_shards, "__defaults__", (8_000,))


def contents(prefix: Path) -> list[bytes]:
    return [Path(f"{prefix}{end}").read_bytes() for end in ENDINGS]


def test_shards_hold_every_line_once(source: Path, write_jsonl: Write) -> None:
    second = write_jsonl("second.jsonl", *many_records(3))
    shards = list(input_shards([source, second], shard_bytes=10_000))
    assert len(shards) > 10
    assert [shard.number for shard in shards] == list(range(len(shards)))
    for path in (source, second):
        of_file = [shard for shard in shards if shard.path == path]
        assert b"".join(line for shard in of_file for line in shard.lines) == path.read_bytes()
        lines = 0
        for shard in of_file:
            assert shard.first_line == lines + 1
            lines += len(shard.lines)


@pytest.mark.usefixtures("small_shards")
def test_the_number_of_workers_does_not_matter(source: Path, tmp_path: Path, sentencepiece_file: Path) -> None:
    for workers in (1, 2, 3):
        build_indexed_dataset([source], sentencepiece_file, "llama-2", tmp_path / f"by{workers}", workers=workers)
    assert contents(tmp_path / "by1") == contents(tmp_path / "by2") == contents(tmp_path / "by3")
    assert len(ConversationDataset(tmp_path / "by2")) == 300
    assert not list(tmp_path.glob(".by*"))  # no shard stays


def test_shard_size_does_not_change_tokens(
    source: Path, tmp_path: Path, sentencepiece_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_indexed_dataset([source], sentencepiece_file, "llama-2", tmp_path / "one", workers=1)
    monkeypatch.setattr(build_shards.input_shards, "__defaults__", (3_000,))
    build_indexed_dataset([source], sentencepiece_file, "llama-2", tmp_path / "many", workers=1)
    assert contents(tmp_path / "one") == contents(tmp_path / "many")


@pytest.mark.usefixtures("small_shards")
def test_a_failed_build_goes_on_where_it_stopped(
    source: Path,
    tmp_path: Path,
    sentencepiece_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A disk that is full after 10 shards; then the rest, with other workers; only what was missing is encoded."""
    build_indexed_dataset([source], sentencepiece_file, "llama-2", tmp_path / "whole", workers=1)
    real = build_shards.save_shard
    calls = 0

    def full_disk(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > 10:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(arguments[0]))
        real(*arguments)

    monkeypatch.setattr(build_shards, "save_shard", full_disk)
    with pytest.raises(OSError, match="No space left"):
        build_indexed_dataset([source], sentencepiece_file, "llama-2", tmp_path / "set", workers=1)
    assert "10 finished shards are kept in" in capsys.readouterr().err
    assert not list(tmp_path.glob("set*"))
    assert len(list((tmp_path / ".set.shards").glob("*.npz"))) == 10

    damaged = tmp_path / ".set.shards" / "000003.npz"
    damaged.write_bytes(damaged.read_bytes()[:-100] + bytes(100))
    calls = -10_000
    build_indexed_dataset([source], sentencepiece_file, "llama-2", tmp_path / "set", workers=1)
    shards = len(list(input_shards([source])))
    assert calls + 10_000 == shards - 9  # the damaged one again too
    assert "9 shards were finished before and are used again" in capsys.readouterr().out
    assert contents(tmp_path / "set") == contents(tmp_path / "whole")
    assert not (tmp_path / ".set.shards").exists()


@pytest.mark.usefixtures("small_shards")
def test_shards_of_other_settings_are_not_used(
    source: Path, tmp_path: Path, sentencepiece_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(command, "write_indexed_dataset", stop)
        with pytest.raises(KeyboardInterrupt):
            build_indexed_dataset(
                [source], sentencepiece_file, "llama-2", tmp_path / "set", system_prompt="A", workers=1
            )
    assert (tmp_path / ".set.shards" / "000000.npz").exists()
    build_indexed_dataset([source], sentencepiece_file, "llama-2", tmp_path / "set", system_prompt="B", workers=1)
    build_indexed_dataset([source], sentencepiece_file, "llama-2", tmp_path / "fresh", system_prompt="B", workers=1)
    assert contents(tmp_path / "set") == contents(tmp_path / "fresh")


def test_killed_and_taken_up_again(write_jsonl: Write, tmp_path: Path, sentencepiece_file: Path) -> None:
    """kill -9 of the command while two workers encode real shards: no orphan, no dataset, then the same bytes."""
    source = write_jsonl("big.jsonl", *(record(f"r{i}", "people " * 3000, "rows " * 3000) for i in range(900)))
    arguments = ["--input", str(source), "--tokenizer", str(sentencepiece_file), "--template", "llama-2"]
    arguments += ["--workers", "2", "--seq-length", "20000"]
    building = subprocess.Popen(
        [sys.executable, "-m", "data_prep.build_indexed_dataset", *arguments, "--output-prefix", str(tmp_path / "set")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    folder = tmp_path / ".set.shards"
    while building.poll() is None and not list(folder.glob("*.npz")):
        time.sleep(0.01)
    building.kill()
    assert building.wait() == -signal.SIGKILL
    for _ in range(500):  # the workers end by themselves
        try:
            os.killpg(building.pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.01)
    else:
        pytest.fail("worker processes outlived the command")
    finished = len(list(folder.glob("*.npz")))
    assert 0 < finished < len(list(input_shards([source])))
    assert not list(tmp_path.glob("set*"))
    main([*arguments, "--output-prefix", str(tmp_path / "set")])
    main([*arguments, "--output-prefix", str(tmp_path / "other")])
    assert contents(tmp_path / "set") == contents(tmp_path / "other")


@pytest.mark.usefixtures("small_shards")
def test_the_first_bad_record_is_named_whichever_worker_meets_it(
    write_jsonl: Write, tmp_path: Path, sentencepiece_file: Path
) -> None:
    records = many_records(200)
    for number in (60, 180):
        records[number]["conversations"][1]["value"] = " "
    source = write_jsonl("in.jsonl", *records)
    with pytest.raises(UserError, match=r"in\.jsonl:61 \(id 'r60'\): turn 2 \(gpt\) is empty"):
        build_indexed_dataset([source], sentencepiece_file, "llama-2", tmp_path / "set", workers=2)
    assert not list(tmp_path.glob("set*"))


def test_gzip_input_gives_the_same_tokens(source: Path, tmp_path: Path, sentencepiece_file: Path) -> None:
    packed = tmp_path / "packed.jsonl.gz"
    packed.write_bytes(gzip.compress(source.read_bytes()))
    build_indexed_dataset([source], sentencepiece_file, "llama-2", tmp_path / "plain", workers=1)
    build_indexed_dataset([packed], sentencepiece_file, "llama-2", tmp_path / "gzip", workers=1)
    assert contents(tmp_path / "plain")[:2] == contents(tmp_path / "gzip")[:2]
    packed.write_bytes(packed.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"packed\.jsonl\.gz: a gzip file that is cut or damaged"):
        build_indexed_dataset([packed], sentencepiece_file, "llama-2", tmp_path / "cut", workers=1)


def test_two_builds_of_one_dataset(
    source: Path, tmp_path: Path, sentencepiece_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = command.write_indexed_dataset

    def second(*arguments: Any, **named: Any) -> Any:
        with pytest.raises(UserError, match="another process is writing the dataset"):
            build_indexed_dataset([source], sentencepiece_file, "llama-2", tmp_path / "set", workers=1)
        return real(*arguments, **named)

    monkeypatch.setattr(command, "write_indexed_dataset", second)
    build_indexed_dataset([source], sentencepiece_file, "llama-2", tmp_path / "set", workers=1)
    assert len(ConversationDataset(tmp_path / "set")) == 300


def test_workers_are_counted(source: Path, tmp_path: Path, sentencepiece_file: Path) -> None:
    with pytest.raises(UserError, match="--workers 0: expected at least 1"):
        build_indexed_dataset([source], sentencepiece_file, "llama-2", tmp_path / "set", workers=0)


def test_shard_files_round_trip(tmp_path: Path) -> None:
    batch = DocumentBatch(
        np.array([1, 2, 3], dtype=np.uint16), np.array([1, 2]), np.array([0, 1]), np.array([2], dtype=np.int64)
    )
    counts = BuildCounts(2)
    counts.dropped["conversation_over_length"] = 1
    save_shard(tmp_path / "s.npz", "key", batch, counts)
    loaded = load_shard(tmp_path / "s.npz", "key")
    assert loaded is not None
    assert all(np.array_equal(vars(loaded[0])[name], array) for name, array in vars(batch).items())
    assert (loaded[0].ids.dtype, loaded[1]) == (np.uint16, counts)
    assert load_shard(tmp_path / "s.npz", "other key") is None
    assert load_shard(tmp_path / "none.npz", "key") is None
    content = (tmp_path / "s.npz").read_bytes()
    for position in range(0, len(content), 7):  # a flipped byte is noticed, or changes nothing that counts
        damaged = bytearray(content)
        damaged[position] ^= 0x55
        (tmp_path / "s.npz").write_bytes(damaged)
        again = load_shard(tmp_path / "s.npz", "key")
        assert again is None or json.dumps(vars(again[1])) == json.dumps(vars(counts))
        assert again is None or again[0].ids.tolist() == [1, 2, 3]
