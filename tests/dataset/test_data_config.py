"""Configuration of the data: values, strict parsing, no heavy imports."""

import subprocess
import sys
from dataclasses import replace

import pytest

from megatron_agent.dataset.config import DataConfig, SourceConfig, parse_data_config
from megatron_agent.errors import UserError

GOOD = DataConfig(agent=[SourceConfig("a", "p/a")], general=[SourceConfig("g", "p/g"), SourceConfig("h", "p/h", 4)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eta": 1.2}, r"data.eta must lie in \[0, 1\], got 1.2"),
        ({"eta": -0.1}, "data.eta"),
        ({"eta": float("nan")}, "data.eta"),
        ({"seq_length": 1}, "data.seq_length must be at least 2"),
        ({"seed": -1}, "data.seed"),
        ({"validation_fraction": 1.0}, r"data.validation_fraction must lie in \[0, 1\), got 1.0"),
        ({"agent": []}, r"data.agent must name at least one source, data.eta is above 0 \(0.2\)"),
        ({"general": []}, "data.general must name at least one source"),
        ({"agent": [SourceConfig("h", "x")]}, r"data.general\[1\].name 'h' is already the name of data.agent\[0\]"),
        ({"agent": [SourceConfig("", "x")]}, r"data.agent\[0\].name must not be empty"),
        ({"agent": [SourceConfig("b", "")]}, r"data.agent\[0\].prefix must not be empty"),
        ({"agent": [SourceConfig("b", "x", 0.0)]}, r"data.agent\[0\].weight must be a finite number above 0"),
        ({"agent": [SourceConfig("b", "x", float("inf"))]}, "weight must be a finite number"),
    ],
)
def test_check_names_the_field(changes: dict[str, object], message: str) -> None:
    GOOD.check()
    with pytest.raises(UserError, match=message):
        replace(GOOD, **changes).check()  # type: ignore[arg-type]


def test_one_group_alone() -> None:
    replace(GOOD, eta=0.0, agent=[]).check()
    replace(GOOD, eta=1.0, general=[]).check()


def test_parse() -> None:
    section = {
        "agent": [{"name": "a", "prefix": "p/a"}],
        "general": [{"name": "g", "prefix": "p/g", "weight": 4}],
        "eta": 1,
        "cache_dir": None,
    }
    config = parse_data_config(section, "c.yaml")
    assert config == DataConfig(agent=[SourceConfig("a", "p/a")], general=[SourceConfig("g", "p/g", 4.0)], eta=1.0)
    assert isinstance(config.eta, float)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ([], "c.yaml: data must be a mapping"),
        ({"etta": 0.2}, "c.yaml: data.etta is not a known key; expected one of agent, general, eta"),
        ({"eta": "0.2"}, "c.yaml: data.eta must be a number, got '0.2'"),
        ({"eta": True}, "data.eta must be a number"),
        ({"seed": 1.5}, "data.seed must be a whole number"),
        ({"seed": False}, "data.seed must be a whole number"),
        ({"verify": 1}, "data.verify must be true or false"),
        ({"cache_dir": 3}, "data.cache_dir must be text or null"),
        ({"agent": {"name": "a"}}, "data.agent must be a list"),
        ({"agent": ["a"]}, r"data.agent\[0\] must be a mapping"),
        ({"agent": [{"name": "a"}]}, r"data.agent\[0\].prefix is missing"),
        ({"general": [{"name": "a", "prefix": "p", "wieght": 1}]}, r"data.general\[0\].wieght is not a known key"),
    ],
)
def test_parse_is_strict(section: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_data_config(section, "c.yaml")


def test_jsonargparse_reads_it_with_help_from_docstrings() -> None:
    jsonargparse = pytest.importorskip("jsonargparse")
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(DataConfig, "data")
    result = parser.parse_object({"data": {"general": [{"name": "g", "prefix": "p", "weight": 2}], "eta": 0.0}})
    config = parser.instantiate_classes(result).data
    assert config == DataConfig(general=[SourceConfig("g", "p", 2.0)], eta=0.0)


def test_config_imports_nothing_heavy() -> None:
    code = "import sys, megatron_agent.dataset.config; assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
