"""Looking at a built dataset."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from data_prep.build_indexed_dataset import build_indexed_dataset
from data_prep.inspect_dataset import inspect_dataset, main
from megatron_agent.errors import UserError
from tests.data_prep.conftest import record


@pytest.fixture
def prefix(write_jsonl: Callable[..., Path], sentencepiece_file: Path, tmp_path: Path) -> Path:
    """A dataset of two conversations, its tokenizer beside it."""
    tokenizer = tmp_path / "tokenizer.model"
    shutil.copy(sentencepiece_file, tokenizer)
    rows = [record("a", "instruction", "!Ok.", "How many <rows>?", "Twelve."), record("b", "Why?", "Because.")]
    build_indexed_dataset([write_jsonl("in.jsonl", *rows)], tokenizer, "llama-2", tmp_path / "set")
    return tmp_path / "set"


def test_summary_terminal_and_page(prefix: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    main(["--prefix", str(prefix), "--index", "0", "1", "--html", str(page)])
    shown = capsys.readouterr().out
    assert "2 conversations, " in shown
    assert "template llama-2, system prompt 'You are a helpful, respectful and honest assistant.'" in shown
    assert "\x1b[1;32m Twelve.</s>\x1b[0m" in shown
    assert "\x1b[1;32m Because.</s>\x1b[0m" in shown
    html = page.read_text()
    assert '<span class="trained"> Twelve.&lt;/s&gt;</span>' in html
    assert "Ok.&lt;/s&gt;&lt;s&gt;[INST] How many &lt;rows&gt;? [/INST]</span>" in html


def test_misuse_is_named(prefix: Path, tmp_path: Path, chatml_folder: Path) -> None:
    with pytest.raises(UserError, match="conversation 2 asked for, expected 0 to 1"):
        inspect_dataset(prefix, [2])
    with pytest.raises(UserError, match="no indexed dataset at"):
        inspect_dataset(tmp_path / "none", [0])
    with pytest.raises(UserError, match=r"built with a tokenizer of sha256 .*give --tokenizer"):
        inspect_dataset(prefix, [0], chatml_folder)
    (tmp_path / "tokenizer.model").rename(tmp_path / "moved.model")
    with pytest.raises(UserError, match=r"its tokenizer was at .*tokenizer\.model, which is not there now"):
        inspect_dataset(prefix, [0])
    assert "Twelve" in inspect_dataset(prefix, [0], tmp_path / "moved.model")
    with open(f"{prefix}.bin", "r+b") as handle:
        handle.write(b"\xff")
    with pytest.raises(UserError, match=r"set\.bin: expected sha256"):
        inspect_dataset(prefix, [0], tmp_path / "moved.model")
