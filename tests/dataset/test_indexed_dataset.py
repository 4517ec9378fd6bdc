"""The indexed dataset: round trips, refusals, damage, and a writer killed at every step."""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from megatron_agent.chat.template import Span
from megatron_agent.dataset.indexed import ConversationDataset
from megatron_agent.dataset.manifest import read_manifest
from megatron_agent.errors import UserError
from tests.indexed_datasets import write_spans

FIELDS = {
    "vocab_size": 1000,
    "tokenizer_name": "tiny",
    "tokenizer_sha256": "a" * 64,
    "template": "llama-2",
    "system_prompt": "Be kind.",
    "max_length": 128,
}
DOCUMENTS = [
    [Span([1, 5, 6], False), Span([7, 2], True), Span([1, 8], False), Span([9, 10, 2], True)],
    [Span([1, 999], False), Span([0], True)],
    [Span([1, 4], False), Span([3], False), Span([], False), Span([11], True), Span([12, 2], True), Span([1], False)],
]


def write(prefix: Path, documents: Iterable[list[Span]] = DOCUMENTS, **changes: object) -> None:
    write_spans(prefix, documents, **{**FIELDS, **changes})  # type: ignore[arg-type]


def test_round_trip(tmp_path: Path) -> None:
    dropped: dict[str, int] = {}

    def documents() -> Iterator[list[Span]]:
        yield from DOCUMENTS
        dropped["too long"] = 2  # counted while streaming, must still reach the manifest

    manifest = write_spans(
        tmp_path / "x", documents(), **FIELDS, dropped=dropped, repaired={"trim": 1}, source={"a.jsonl": "f" * 64}
    )
    assert (manifest.num_documents, manifest.num_tokens, manifest.num_trained_tokens) == (3, 20, 9)
    assert (manifest.dropped, manifest.repaired) == ({"too long": 2}, {"trim": 1})
    assert read_manifest(tmp_path / "x") == manifest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.bin", "x.idx", "x.manifest.json"]

    dataset = ConversationDataset(tmp_path / "x")
    assert (len(dataset), dataset.name) == (3, "x")
    assert dataset.lengths.tolist() == [10, 3, 7]
    assert dataset.trained_lengths.tolist() == [5, 1, 3]
    assert dataset.spans(0) == DOCUMENTS[0]
    assert dataset.spans(2) == [Span([1, 4, 3], False), Span([11, 12, 2], True), Span([1], False)]  # maximal spans
    ids, trained = dataset.document(1)
    assert (ids.dtype, ids.tolist(), trained.tolist()) == (np.int64, [1, 999, 0], [False, False, True])
    with pytest.raises(UserError, match="conversation 3 asked for, expected 0 to 2"):
        dataset.document(3)


@pytest.mark.parametrize("vocab_size", [1000, 65_499, 65_500, 128_256])
def test_files_are_megatron_cores_own(tmp_path: Path, vocab_size: int) -> None:
    """Truth: the bytes that Megatron-core's builder writes."""
    from megatron.core.datasets.indexed_dataset import DType, IndexedDatasetBuilder

    write(tmp_path / "x", vocab_size=vocab_size)
    builder = IndexedDatasetBuilder(
        str(tmp_path / "theirs.bin"), dtype=DType.optimal_dtype(vocab_size), multimodal=True
    )
    ours = ConversationDataset(tmp_path / "x")
    for number in range(len(ours)):
        spans = ours.spans(number)
        ids = np.concatenate([span.ids for span in spans])
        builder.add_document(ids, [len(span.ids) for span in spans], [int(span.trained) for span in spans])
    builder.finalize(str(tmp_path / "theirs.idx"))
    for end in (".bin", ".idx"):
        assert (tmp_path / f"x{end}").read_bytes() == (tmp_path / f"theirs{end}").read_bytes()


@pytest.mark.parametrize(("vocab_size", "dtype"), [(1000, "uint16"), (65_499, "uint16"), (65_500, "int32")])
def test_megatron_core_reads_what_we_write(tmp_path: Path, vocab_size: int, dtype: str) -> None:
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    write(tmp_path / "x", vocab_size=vocab_size)
    theirs = IndexedDataset(str(tmp_path / "x"), multimodal=True, mmap=True)
    assert theirs.index.dtype.__name__ == dtype
    assert theirs.document_indices.tolist() == [0, 4, 6, 9]
    ours = ConversationDataset(tmp_path / "x")
    for number in range(len(ours)):
        first, last = theirs.document_indices[number : number + 2]
        read = [theirs[i] for i in range(first, last)]
        assert [Span(ids.tolist(), bool(mode)) for ids, mode in read] == ours.spans(number)


def test_random_documents_round_trip(make_dataset: Callable[..., str]) -> None:
    for seed in range(5):
        prefix = make_dataset(f"set{seed}", 40, seed=seed)
        dataset = ConversationDataset(prefix)
        for number in range(len(dataset)):
            spans = dataset.spans(number)
            ids, trained = dataset.document(number)
            assert ids.tolist() == [token for span in spans for token in span.ids]
            assert trained.tolist() == [span.trained for span in spans for _ in span.ids]
            assert all(one.trained != two.trained for one, two in itertools.pairwise(spans))
            assert dataset.lengths[number] == len(ids)
            assert dataset.trained_lengths[number] == trained.sum()


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "conversation 1 of the stream has 0 tokens"),
        ([Span([], True)], "0 tokens"),
        ([Span([1, 2, 3], False)], "0 trained tokens"),
        ([Span([1], True), Span([2], False)], "0 trained tokens"),
        ([Span([1, 1000], False), Span([2], True)], "holds token id 1000, expected 0 to 999"),
        ([Span([1, -1], False), Span([2], True)], "holds token id -1"),
        ([Span([1] * 128, False), Span([2], True)], "has 129 tokens, expected at most 128.*--seq-length"),
    ],
)
def test_bad_documents_are_refused_and_leave_the_old_set(tmp_path: Path, document: list[Span], message: str) -> None:
    write(tmp_path / "x")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UserError, match=message):
        write(tmp_path / "x", [DOCUMENTS[0], document])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_no_documents(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no conversations left.*'empty': 3"):
        write(tmp_path / "x", [], dropped={"empty": 3})
    assert list(tmp_path.iterdir()) == []


def test_two_writers(tmp_path: Path) -> None:
    def documents() -> Iterator[list[Span]]:
        yield DOCUMENTS[0]
        with pytest.raises(UserError, match="another process is writing"):
            write(tmp_path / "x")
        yield DOCUMENTS[1]

    write(tmp_path / "x", documents())
    assert len(ConversationDataset(tmp_path / "x")) == 2


def change_manifest(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def cut(path: Path) -> None:
    with path.open("r+b") as handle:
        handle.truncate(path.stat().st_size - 1)


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: cut(Path(f"{p}.bin")), r"x\.bin: expected 40 bytes, got 39: the file was cut"),
        (lambda p: cut(Path(f"{p}.idx")), r"x\.idx: expected \d+ bytes, got \d+: the file was cut"),
        (lambda p: flip(Path(f"{p}.bin"), 7), r"x\.bin: expected sha256"),
        (lambda p: flip(Path(f"{p}.idx"), 40), r"x\.idx: expected sha256"),
        (lambda p: Path(f"{p}.idx").unlink(), r"x\.idx: missing"),
        (lambda p: Path(f"{p}.bin").unlink(), r"x\.bin: missing"),
        (lambda p: Path(f"{p}.manifest.json").unlink(), r"manifest\.json: missing beside .*x\.bin and .*x\.idx"),
        (lambda p: cut(Path(f"{p}.manifest.json")) or cut(Path(f"{p}.manifest.json")), "not valid JSON"),
        (lambda p: Path(f"{p}.manifest.json").write_text("{}"), "not the manifest of an indexed dataset"),
        (lambda p: Path(f"{p}.manifest.json").write_text("[]"), "expected a JSON object, got list"),
        (lambda p: Path(f"{p}.manifest.json").write_bytes(b"\xff\xfe"), "not valid JSON"),
        (lambda p: change_manifest(Path(f"{p}.manifest.json"), template="chatml"), "altered"),
        (lambda p: change_manifest(Path(f"{p}.manifest.json"), extra=1), "altered"),
        (lambda p: change_manifest(Path(f"{p}.manifest.json"), format_version=99), "format_version 2, got 99"),
    ],
)
def test_damage_is_refused(tmp_path: Path, damage: Callable[[Path], object], message: str) -> None:
    write(tmp_path / "x")
    damage(tmp_path / "x")
    with pytest.raises(UserError, match=message) as caught:
        ConversationDataset(tmp_path / "x")
    assert "build_indexed_dataset" in str(caught.value)  # says how to mend it


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no indexed dataset at .*nowhere"):
        ConversationDataset(tmp_path / "nowhere")


@pytest.mark.parametrize("prefix", ["d/", "", ".", "d/.."])
def test_a_prefix_needs_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="expected a path that ends in a name"):
        write_spans(prefix, DOCUMENTS, **FIELDS)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="expected a path that ends in a name"):
        ConversationDataset(prefix)
    assert not list(tmp_path.iterdir())


def test_damaged_index_is_refused_without_hashes(tmp_path: Path) -> None:
    """With verify off, most altered bytes of the index are still caught, and none makes reads leave the file."""
    write(tmp_path / "x")
    truth = ConversationDataset(tmp_path / "x")
    index = tmp_path / "x.idx"
    original = index.read_bytes()
    refused = 0
    for position in range(len(original)):
        flip(index, position)
        try:
            changed = ConversationDataset(tmp_path / "x", verify=False)
            assert len(changed.tokens) == len(truth.tokens)  # what it reads stays inside the file
        except UserError:
            refused += 1
        index.write_bytes(original)
    assert refused > 0.8 * len(original)


def test_reading_needs_no_torch(tmp_path: Path) -> None:
    write(tmp_path / "x")
    code = (
        "import sys; from megatron_agent.dataset.indexed import ConversationDataset;"
        "print(len(ConversationDataset(sys.argv[1]))); assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x")], capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.returncode) == ("3", 0), done.stderr


KILLED_WRITER = """
import json, os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_indexed_dataset import DOCUMENTS, write
from megatron_agent.dataset.indexed import ConversationDataset
from megatron_agent.errors import UserError

prefix = Path(sys.argv[1]) / "x"
outcomes = []
for point in range(100):
    write(prefix)  # the old set; also shows that what a killed writer left behind is no hindrance
    child = os.fork()
    if child == 0:
        calls = 0
        def deadly(function):
            def call(*arguments, **named):
                global calls
                if calls == point:
                    os.kill(os.getpid(), signal.SIGKILL)
                calls += 1
                return function(*arguments, **named)
            return call
        for name in ("replace", "fsync", "unlink"):
            setattr(os, name, deadly(getattr(os, name)))
        write(prefix, DOCUMENTS[:2])
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    try:
        outcomes.append(len(ConversationDataset(prefix)))
    except UserError as error:
        outcomes.append(str(error))
    if status == 0:
        break
print(json.dumps(outcomes))
"""


def test_writer_killed_at_every_step(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLED_WRITER, str(tmp_path), str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )
    outcomes = json.loads(done.stdout)
    assert len(outcomes) > 8
    old = [number for number, outcome in enumerate(outcomes) if outcome == 3]
    new = [number for number, outcome in enumerate(outcomes) if outcome == 2]
    between = [outcome for outcome in outcomes if isinstance(outcome, str)]
    assert old
    assert new
    assert between
    assert outcomes == [3] * len(old) + between + [2] * len(new)  # old, refused, new: in this order, nothing else
    assert all("manifest.json: missing" in message and "build it again" in message for message in between)
