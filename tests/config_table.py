"""The table of every configuration field in docs/training.md, made from the dataclasses and the text under each field.

python -m tests.config_table        # writes the table anew; tests/test_docs.py fails when it is out of date
"""

import ast
import dataclasses
import inspect
import json
import typing
from pathlib import Path
from typing import Any

from megatron_agent.training.config import TrainConfig

PAGE = Path(__file__).resolve().parents[1] / "docs" / "training.md"
BEGIN, END = "<!-- fields: python -m tests.config_table -->", "<!-- end of fields -->"


def help_texts(section: type) -> dict[str, str]:
    """The text under each field of a dataclass, on one line."""
    (definition,) = ast.parse(inspect.getsource(section)).body
    assert isinstance(definition, ast.ClassDef)
    texts: dict[str, str] = {}
    name = ""
    for node in definition.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and name:
            texts[name] = " ".join(str(node.value.value).split())
            name = ""
    return texts


def default_of(field: "dataclasses.Field[Any]") -> str:
    value = field.default_factory() if callable(field.default_factory) else field.default
    return f"`{value if isinstance(value, str) and value else json.dumps(value).replace(chr(34), '')}`"


def make_table() -> str:
    """One row a field, in the order of the sections."""
    hints = typing.get_type_hints(TrainConfig)
    lines = ["| field | default | meaning |", "|---|---|---|"]
    for section in dataclasses.fields(TrainConfig):
        texts = help_texts(hints[section.name])
        for field in dataclasses.fields(hints[section.name]):
            lines.append(f"| `{section.name}.{field.name}` | {default_of(field)} | {texts[field.name]} |")
    return "\n".join(lines)


def page_with_table(page: str) -> str:
    """The page with the table between its two marks made anew."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{make_table()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page_with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
