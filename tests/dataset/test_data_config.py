"""Configuration of the data: values, no heavy imports."""

import subprocess
import sys
from dataclasses import replace

import pytest

from megatron_agent.dataset.config import DataConfig, SourceConfig
from megatron_agent.errors import UserError

GOOD = DataConfig(agent=[SourceConfig("p/a")], general=[SourceConfig("p/g"), SourceConfig("x/y", 4, name="h")])


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
        (
            {"agent": [SourceConfig("x", name="h")]},
            r"data.general\[1\].name 'h' is already the name of data.agent\[0\]",
        ),
        ({"agent": [SourceConfig("x/h")]}, r"data.general\[1\].name 'h' is already the name of data.agent\[0\]"),
        ({"agent": [SourceConfig("/")]}, r"data.agent\[0\].name must not be empty, and prefix '/' gives none"),
        ({"agent": [SourceConfig("", name="b")]}, r"data.agent\[0\].prefix must not be empty"),
        ({"agent": [SourceConfig("x", 0.0)]}, r"data.agent\[0\].weight must be a finite number above 0"),
        ({"agent": [SourceConfig("x", float("inf"))]}, "weight must be a finite number"),
        ({"agent": [SourceConfig("x", float("nan"))]}, "weight must be a finite number"),
        (
            {"general": [SourceConfig("x", 1e308), SourceConfig("y", 1e308)]},
            r"above 0 \(1e-100 to 1e\+100\), got 1e\+308",
        ),
        ({"agent": [SourceConfig("x", 5e-324)]}, r"above 0 \(1e-100 to 1e\+100\), got 5e-324"),
        ({"eta_per": "row"}, "data.eta_per must be one of conversation, token, got 'row'"),
    ],
)
def test_check_names_the_field(changes: dict[str, object], message: str) -> None:
    GOOD.check()
    with pytest.raises(UserError, match=message):
        replace(GOOD, **changes).check()  # type: ignore[arg-type]


def test_name_defaults_to_the_last_part_of_the_prefix() -> None:
    assert [source.name for source in GOOD.sources()] == ["a", "g", "h"]
    assert replace(GOOD.general[0], weight=2.0) == SourceConfig("p/g", 2.0, "g")


def test_one_group_alone() -> None:
    replace(GOOD, eta=0.0, agent=[]).check()
    replace(GOOD, eta=1.0, general=[]).check()


def test_config_imports_nothing_heavy() -> None:
    code = (
        "import sys, megatron_agent.dataset.config, megatron_agent.configuration; "
        "assert not {'torch', 'numpy', 'yaml', 'jsonargparse'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
