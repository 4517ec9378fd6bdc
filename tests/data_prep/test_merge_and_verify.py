"""Merging datasets without encoding again, and verifying what is on disk."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data_prep.build_indexed_dataset import build_indexed_dataset
from data_prep.merge_indexed_datasets import main as merge
from data_prep.merge_indexed_datasets import merge_indexed_datasets
from data_prep.verify_indexed_dataset import main as verify
from data_prep.verify_indexed_dataset import verify_indexed_dataset
from megatron_agent.chat.template import Span
from megatron_agent.dataset.indexed import ConversationDataset
from megatron_agent.dataset.writer import DocumentBatch, write_indexed_dataset
from megatron_agent.errors import UserError
from tests.data_prep.conftest import record
from tests.indexed_datasets import write_spans

Write = Callable[..., Path]
FIELDS = {
    "vocab_size": 1000,
    "tokenizer_name": "tiny",
    "tokenizer_sha256": "a" * 64,
    "template": "llama-2",
    "system_prompt": "Be kind.",
    "max_length": 128,
}


def documents(seed: int, count: int) -> list[list[Span]]:
    generator = np.random.default_rng(seed)
    return [
        [Span(generator.integers(0, 1000, int(n)), False), Span(generator.integers(0, 1000, 3), True)]
        for n in generator.integers(1, 50, count)
    ]


def write(prefix: Path, seed: int = 0, count: int = 20, **changes: object) -> Path:
    write_spans(prefix, documents(seed, count), **{**FIELDS, **changes})  # type: ignore[arg-type]
    return prefix


def test_merging_equals_building_at_once(write_jsonl: Write, tmp_path: Path, sentencepiece_file: Path) -> None:
    """Truth: one build over both inputs; every byte of .bin and .idx, every count."""
    files = [
        write_jsonl(
            f"{name}.jsonl", *(record(f"{name}{i}", "q " * 70, "a", f"rows {i}", "b " * i) for i in range(1, 9))
        )
        for name in "xy"
    ]
    for name, inputs in (("x", files[:1]), ("y", files[1:]), ("both", files)):
        build_indexed_dataset(inputs, sentencepiece_file, "llama-2", tmp_path / name, seq_length=140, workers=1)
    merge_indexed_datasets([tmp_path / "x", tmp_path / "y"], tmp_path / "merged")
    for end in (".bin", ".idx", ".manifest.json"):
        assert (tmp_path / f"merged{end}").read_bytes() == (tmp_path / f"both{end}").read_bytes()
    assert ConversationDataset(tmp_path / "merged").manifest.dropped  # the counts that were added are not all zero


def test_merging_keeps_order_across_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_prep.merge_indexed_datasets.CHUNK", 7)
    prefixes = [write(tmp_path / name, seed=i, max_length=100 + i) for i, name in enumerate("abc")]
    manifest = merge_indexed_datasets(prefixes, tmp_path / "all")
    merged = verify_indexed_dataset(tmp_path / "all")
    assert manifest.max_length == 102
    assert [merged.spans(i) for i in range(60)] == [
        dataset.spans(i) for dataset in map(ConversationDataset, prefixes) for i in range(20)
    ]


def test_what_cannot_be_merged(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a"), write(tmp_path / "b", seed=1)
    for field, value in (("template", "chatml"), ("system_prompt", ""), ("tokenizer_sha256", "b" * 64)):
        other = write(tmp_path / "other", **{field: value})
        with pytest.raises(UserError, match=rf"a and .*other were built with different {field}"):
            merge_indexed_datasets([a, other], tmp_path / "all")
    with pytest.raises(UserError, match=r"--input .*given twice"):
        merge_indexed_datasets([a, b, tmp_path / "." / "a"], tmp_path / "all")
    with pytest.raises(UserError, match=r"--output-prefix .*is an input too"):
        merge_indexed_datasets([a, b], a, overwrite=True)
    with pytest.raises(UserError, match=r"b\.bin: exists already; give --overwrite"):
        merge_indexed_datasets([a], b)
    assert not list(tmp_path.glob("all*"))
    merge(["--input", str(a), str(b), "--output-prefix", str(tmp_path / "other"), "--overwrite"])
    assert len(ConversationDataset(tmp_path / "other")) == 40


def test_verify_names_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, flipped, short, foreign = (write(tmp_path / name, seed=i) for i, name in enumerate(("g", "f", "s", "i")))
    content = bytearray(Path(f"{flipped}.bin").read_bytes())
    content[11] ^= 1
    Path(f"{flipped}.bin").write_bytes(content)
    Path(f"{short}.bin").write_bytes(Path(f"{short}.bin").read_bytes()[:-2])
    Path(f"{foreign}.idx").write_bytes(Path(f"{good}.idx").read_bytes())
    prefixes = [str(prefix) for prefix in (flipped, good, short, foreign, tmp_path / "none")]
    with pytest.raises(SystemExit) as caught:
        verify(["--prefix", *prefixes])
    assert caught.value.code == 2
    shown = capsys.readouterr()
    assert shown.out.startswith(f"{good}: whole: 20 conversations")
    errors = shown.err.splitlines()
    assert [error.split(":")[1].strip() for error in errors[:3]] == [f"{flipped}.bin", f"{short}.bin", f"{foreign}.idx"]
    assert "no indexed dataset at" in errors[3]
    verify(["--prefix", str(good)])


def test_verify_finds_what_hashes_do_not(tmp_path: Path) -> None:
    """Files that are whole but were written wrong, by another program with our manifest."""
    for name, ids, modes, message in (
        ("id", [5, 1000, 7], [0, 1], r"id\.bin: conversation 0 holds token id 1000, expected 0 to 999"),
        ("flag", [5, 6, 7], [0, 0], r"flag\.idx: conversation 0 \(and 0 others\) has no trained token"),
    ):
        batch = DocumentBatch(np.array(ids, np.uint16), np.array([1, 2]), np.array(modes), np.array([2]))
        write_indexed_dataset(tmp_path / name, [batch], **FIELDS)  # type: ignore[arg-type]
        with pytest.raises(UserError, match=message):
            verify_indexed_dataset(tmp_path / name)
