"""One way of reading YAML for every command, whichever function comes first in a process."""

import subprocess
import sys
from pathlib import Path

import pytest

from megatron_agent.configuration import config_parser, load_yaml, read_yaml
from megatron_agent.errors import UserError

FILE = "a: 75e-2\nb: {c: [1, {d: x}]}\n"


def test_numbers_and_text() -> None:
    assert load_yaml(FILE) == {"a": 0.75, "b": {"c": [1, {"d": "x"}]}}
    assert load_yaml("x: 1e-5\ny: 2026-11-22\nz: 0x10\n") == {"x": 1e-5, "y": "2026-11-22", "z": 16}
    assert load_yaml("") is None


@pytest.mark.parametrize("text", ["a: 1\na: 2\n", "b: {c: 1, c: 1}\n", "b:\n  - {c: 1, c: 1}\n"])
def test_repeated_keys(tmp_path: Path, text: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=r"c\.yaml: .*is given twice in one mapping; keep one"):
        read_yaml(file)


def test_a_parser_reads_files_and_values_the_same_way(tmp_path: Path) -> None:
    """In a process of its own: the parser is the first to touch the loader."""
    (tmp_path / "good.yaml").write_text("rate: 75e-2\n")
    (tmp_path / "bad.yaml").write_text("rate: 1\nrate: 2\n")
    code = """
import jsonargparse, sys
from megatron_agent.configuration import config_parser
parser = config_parser(prog="x")
parser = config_parser(prog="x")
parser.add_argument("--config", action="config")
parser.add_argument("--rate", type=float)
assert parser.parse_args(["--config", "good.yaml"]).rate == 0.75
assert parser.parse_args(["--rate", "5e-1"]).rate == 0.5
try:
    parser.parse_args(["--config", "bad.yaml"])
except jsonargparse.ArgumentError as error:
    assert "'rate' is given twice" in str(error), error
else:
    sys.exit("accepted")
"""
    environment = {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)


def test_options_are_passed_on() -> None:
    assert config_parser(prog="x", description="y").description == "y"
