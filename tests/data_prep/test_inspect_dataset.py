"""Looking at a built dataset: in the terminal, and what the page is made of (its behaviour: test_inspect_browser)."""

import base64
import errno
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from data_prep.build_indexed_dataset import build_indexed_dataset
from data_prep.inspect_dataset import choose, inspect_conversations, inspect_rows, main
from megatron_agent.chat.tokenizer import load_tokenizer
from megatron_agent.dataset.manifest import read_manifest, write_manifest
from megatron_agent.dataset.mixture import load_config
from megatron_agent.dataset.rows import PackedRow, PackedRows
from megatron_agent.errors import UserError
from tests.data_prep.conftest import record

HOSTILE = (
    "</script><script>alert(1)</script> <!-- <img src=x onerror=alert(2)> {{script}} \0 \x1b[31mred \x9b2J \u202egnirts"
)


@pytest.fixture
def build(write_jsonl: Callable[..., Path], sentencepiece_file: Path, tmp_path: Path) -> Callable[..., str]:
    """Return a function that builds a dataset of conversations under a name, its tokenizer beside it."""

    def build(name: str, *records: dict[str, Any]) -> str:
        tokenizer = tmp_path / "tokenizer.model"
        shutil.copy(sentencepiece_file, tokenizer)
        build_indexed_dataset([write_jsonl(f"{name}.jsonl", *records)], tokenizer, "llama-2", tmp_path / name)
        return str(tmp_path / name)

    return build


@pytest.fixture
def prefix(build: Callable[..., str]) -> str:
    """A dataset of two conversations."""
    return build(
        "set", record("a", "instruction", "!Ok.", "How many <rows>?", "Twelve."), record("b", "Why?", "Because.")
    )


@pytest.fixture
def config(build: Callable[..., str], tmp_path: Path) -> Path:
    """A training configuration of 40 rows over an agent and a general source, with hostile and astral text."""
    agent = build("agent", *(record(f"a{i}", f"task {i}", "!Ok.", "go " * (i + 1), f"Done 🎉 {i}.") for i in range(8)))
    general = build("general", *(record(f"g{i}", HOSTILE, f"Answer {i}. {HOSTILE}") for i in range(9)))
    path = tmp_path / "c.yaml"
    data = {"agent": [{"prefix": agent}], "general": [{"prefix": general}], "eta": 0.5, "seq_length": 1500}
    path.write_text(yaml.safe_dump({"data": data, "training": {"train_iters": 20, "global_batch_size": 2}}))
    return path


class PageParser(HTMLParser):
    """Collects the scripts and what else a page could load or run."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts: list[tuple[dict, str]] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.policy = ""
        self.inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag."""
        self.attributes += attrs
        if tag == "script":
            self.scripts.append((dict(attrs), ""))
            self.inside = True
        if tag == "meta" and ("http-equiv", "Content-Security-Policy") in attrs:
            self.policy = dict(attrs)["content"] or ""

    def handle_endtag(self, tag: str) -> None:
        """Leave a script."""
        self.inside = self.inside and tag != "script"

    def handle_data(self, data: str) -> None:
        """Note the text of a script."""
        if self.inside:
            attributes, text = self.scripts.pop()
            self.scripts.append((attributes, text + data))


def read_page(path: Path) -> dict[str, Any]:
    """Check that a page is self-contained and runs its own script only; return its data."""
    parser = PageParser()
    content = path.read_text(encoding="utf-8")
    parser.feed(content)
    (data_attributes, data), (script_attributes, script) = parser.scripts
    assert (data_attributes, script_attributes) == ({"type": "application/json", "id": "data"}, {})
    assert not {"src", "href", "onerror", "onclick"} & {name for name, _ in parser.attributes}
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert parser.policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|eval\(|https?://", content)
    return json.loads(data)


def unpack(item: dict[str, Any]) -> PackedRow:
    """The inverse of `pack_view`, as the page's script does it."""
    tokens = np.array(item["tokens"])
    labels = np.append(tokens[1:], 0)
    for at, label in item["labels_that_are_not_the_next_token"]:
        labels[at] = label
    runs = item["loss_mask_runs"]
    mask = np.repeat(np.arange(len(runs)) % 2, runs).astype(np.float32)
    positions = np.concatenate([np.arange(start, start + length) for start, length in item["position_runs"]])
    borders, sources = np.array(item["cu_seqlens"]), np.array(item["segment_sources"])
    return PackedRow(tokens, labels, mask, positions, borders, sources)


def test_summary_terminal_and_page(prefix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    main(["--prefix", prefix, "--index", "0", "1", "--html", str(page)])
    shown = capsys.readouterr().out
    assert "2 conversations, " in shown
    assert "template llama-2, system prompt 'You are a helpful, respectful and honest assistant.'" in shown
    assert "\x1b[1;32m Twelve.</s>\x1b[0m" in shown
    assert "\x1b[1;32m Because.</s>\x1b[0m" in shown
    data = read_page(page)
    assert [item["title"] for item in data["items"]] == ["set, conversation 0", "set, conversation 1"]
    assert data["items"][0]["text"].endswith("Ok.</s><s>[INST] How many <rows>? [/INST] Twelve.</s>")
    (source,) = data["sources"]
    assert sum(source["histogram"]["counts"]) == 2
    assert ["repaired", "gpt_turns_without_loss_flag_trained", "0"] not in source["tables"][1]
    assert source["tables"][0][1][0] == "2"
    main(["--prefix", prefix])  # without a page and --index: conversation 0
    assert "Twelve" in capsys.readouterr().out


def test_page_holds_the_rows_that_training_reads(config: Path, tmp_path: Path) -> None:
    page = tmp_path / "rows.html"
    shown = inspect_rows(config, None, html=page)
    assert shown == f"wrote {page}: 40 of 40 rows"
    data = read_page(page)
    assert (data["kind"], data["total"]) == ("row", 40)
    rows = PackedRows(*load_config(config))
    tokenizer = load_tokenizer(tmp_path / "tokenizer.model")
    for number, item in enumerate(data["items"]):
        expected, found = rows.row(number), unpack(item)
        for name in vars(expected):
            assert np.array_equal(getattr(expected, name), getattr(found, name)), name
        assert item["numbers"] == [number]
        assert item["conversations"] == rows.plan.row(number)[1].tolist()
        # the text: that of the tokens before the padding, in UTF-16 units by token
        assert sum(item["widths"]) == len(item["text"].encode("utf-16-le")) // 2
        assert len(item["widths"]) == len(item["tokens"])
        stop = expected.cu_seqlens[-2] if expected.segment_sources[-1] == -1 else None
        whole = tokenizer.decode(expected.tokens[:stop].tolist())
        assert re.sub(r"\[U\+....\]|[␀␛]", "", item["text"]) == re.sub("[\0\x1b\x9b\u202e]", "", whole)
    assert {"␀", "␛", "[U+009B]", "[U+202E]"} == set(re.findall(r"\[U\+....\]|[␀␛]", data["items"][0]["text"]))
    table = next(source for source in data["sources"] if source["name"] == "agent")["tables"][1]
    assert table[1][0] == "agent"
    assert table[1][-1] == f"{rows.summary()['sources']['agent']['passes']:.2f}"


def test_terminal_shows_the_borders_of_a_row(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--config", str(config), "--row", "3"])
    shown = capsys.readouterr().out
    row = PackedRows(*load_config(config)).row(3)
    borders = re.findall(r"segment \d+: (\w+), conversation \d+, tokens ([\d,]+) to ([\d,]+) \(([\d,]+)\)", shown)
    real = [name for name in row.segment_sources if name != -1]
    assert [name for name, *_ in borders] == [["agent", "general"][source] for source in real]
    assert [int(start.replace(",", "")) for _, start, *_ in borders] == row.cu_seqlens[: len(real)].tolist()
    assert ("padding" in shown) == (row.segment_sources[-1] == -1)
    assert f"row 3: 1,500 tokens, {int(row.loss_mask.sum()):,} trained" in shown
    assert set(re.findall(r"\x1b[^m]*m", shown)) == {"\x1b[1;32m", "\x1b[2m", "\x1b[0m"}  # ours only
    assert not {"\0", "\x9b", "\u202e"} & set(shown)


def test_sample_is_seeded_over_all_datasets(build: Callable[..., str], tmp_path: Path) -> None:
    one = build("one", *(record(f"a{i}", f"q{i}", f"a{i}") for i in range(12)))
    two = build("two", *(record(f"b{i}", f"q{i}", f"b{i}") for i in range(5)))
    page = tmp_path / "page.html"

    def titles(sample: int, seed: int) -> list[str]:
        inspect_conversations([one, two], html=page, sample=sample, seed=seed)
        return [item["title"] for item in read_page(page)["items"]]

    everything = [f"one, conversation {i}" for i in range(12)] + [f"two, conversation {i}" for i in range(5)]
    assert titles(17, 0) == titles(500, 0) == everything
    assert titles(6, 1) == titles(6, 1) != titles(6, 2)
    assert len(set(titles(6, 1))) == 6
    assert set(titles(6, 1)) < set(everything)
    assert choose(10, 3, 0).tolist() == sorted(choose(10, 3, 0).tolist())
    shown = inspect_conversations([one, two], indices=[4], html=page)
    assert [item["title"] for item in read_page(page)["items"]] == ["one, conversation 4", "two, conversation 4"]
    assert "q4" in shown


def test_misuse_is_named(prefix: str, tmp_path: Path, chatml_folder: Path) -> None:
    for index in (2, -1):
        with pytest.raises(UserError, match=rf"--index {index}: .*set has conversations 0 to 1"):
            inspect_conversations([prefix], [index])
    with pytest.raises(UserError, match="no indexed dataset at"):
        inspect_conversations([str(tmp_path / "none")], [0])
    with pytest.raises(UserError, match=r"built with a tokenizer of sha256 .*give --tokenizer"):
        inspect_conversations([prefix], [0], chatml_folder)
    (tmp_path / "tokenizer.model").rename(tmp_path / "moved.model")
    with pytest.raises(UserError, match=r"its tokenizer was at .*tokenizer\.model, which is not there now"):
        inspect_conversations([prefix], [0])
    assert "Twelve" in inspect_conversations([prefix], [0], tmp_path / "moved.model")
    with open(f"{prefix}.bin", "r+b") as handle:
        handle.write(b"\xff")
    with pytest.raises(UserError, match=r"set\.bin: expected sha256"):
        inspect_conversations([prefix], [0], tmp_path / "moved.model")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", "C", "--row", "40"], r"--row 40: .* has rows 0 to 39 \(training.train_iters x"),
        (["--config", "C", "--row", "-1"], "--row -1"),
        (["--config", "C", "--index", "1"], "--index chooses conversations of --prefix; with --config give --row"),
        (["--prefix", "P", "--row", "1"], "--row chooses packed rows of --config; with --prefix give --index"),
        (["--prefix", "P", "--sample", "5"], "--sample is for a page"),
        (["--prefix", "P", "--sample", "5", "--index", "1", "--html", "F"], "--sample is for a page"),
        (["--prefix", "P", "--sample", "0", "--html", "F"], "--sample must be at least 1, got 0"),
        (["--prefix", "P", "--html", "."], "--html .: expected the path of a file to write, got a folder"),
    ],
)
def test_flags_that_cannot_be_meant(config: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        main([str(config) if argument == "C" else argument for argument in arguments])


def test_full_disk_leaves_the_old_page(prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.html"
    page.write_text("old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: .*page\.html"):
        inspect_conversations([prefix], html=page)
    assert page.read_text() == "old"
    assert not list(tmp_path.glob(".page*"))


def test_names_and_manifests_cannot_act(prefix: str, tmp_path: Path) -> None:
    hostile = f"{prefix}\x1b[31m"
    for ending in (".bin", ".idx"):
        shutil.copy(prefix + ending, hostile + ending)
    source = {"\x1b]0;title\x07.jsonl": "0" * 64}
    write_manifest(hostile, replace(read_manifest(prefix), source=source, template="llama\u202e"))
    shown = inspect_conversations([hostile], [0], html=tmp_path / "page.html")
    assert "\x1b[31m" not in shown
    assert "\u202e" not in shown
    assert "source ␛]0;title␇.jsonl" in shown
    assert "set␛[31m, conversation 0" in shown
    data = read_page(tmp_path / "page.html")
    assert data["items"][0]["title"] == "set␛[31m, conversation 0"
    assert ["template", "llama[U+202E]"] in data["sources"][0]["tables"][1]


def test_exit_code_names_the_flag(prefix: str) -> None:
    command = [sys.executable, "-m", "data_prep.inspect_dataset", "--prefix", prefix, "--index", "9"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: --index 9: ")
    assert "Traceback" not in done.stderr
