"""The documentation says what the code does."""

import ast
import re
from pathlib import Path

import pytest

from megatron_agent.training.config import parse_config
from tests.config_table import PAGE, page_with_table

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
CONFIGS = sorted((REPOSITORY / "launch" / "configs").glob("*.yaml"))


def test_every_configuration_field_is_in_the_table() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page_with_table(page) == page, "run python -m tests.config_table"


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_configurations_are_valid(config: Path) -> None:
    parse_config(["--config", str(config)])


def options_of_environments() -> set[str]:
    """Flags that `megatron_agent.evaluate` makes from the fields of `WorldOptions` and its subclasses."""
    names = set()
    folders = (REPOSITORY / "megatron_agent" / "environments", REPOSITORY / "docs" / "examples")
    for file in (file for folder in folders for file in folder.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and "WorldOptions" in (node.name, *(ast.unparse(b) for b in node.bases)):
                names |= {line.target.id for line in node.body if isinstance(line, ast.AnnAssign)}
    return {name.replace("_", "-") for name in names}


@pytest.mark.parametrize("page", [*PAGES, *CONFIGS], ids=lambda path: path.name)
def test_commands_name_modules_and_flags_that_exist(page: Path) -> None:
    """Each `python -m MODULE --flag` shown is a module of ours whose source knows the flag."""
    text = re.sub(r"\\\n#?\s*", " ", page.read_text(encoding="utf-8"))
    ours = r"-m ((?:megatron_agent|data_prep|checkpoints_convert|tests)(?:\.\w+)*)([^`\n|#>]*)"
    for module, rest in re.findall(ours, text):
        path = REPOSITORY / Path(*module.split("."))
        source = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
        assert source.is_file(), f"{page.name} shows python -m {module}"
        flags = {flag for flag in re.findall(r"--([\w-]+)(?=[\s=\]]|$)", rest) if "." not in flag}
        texts = [
            str(node.value)
            for node in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
            if isinstance(node, ast.Constant)
        ]
        known = {text.removeprefix("--") for text in texts if text.startswith("--")}
        known |= {text.replace("_", "-") for text in texts if text.isidentifier()}  # flags made from names
        if module == "megatron_agent.evaluate":
            known |= options_of_environments()
        if known and module != "megatron_agent.train":
            missing = flags - known - {"help", "config"}
            assert not missing, f"{page.name} shows python -m {module} with {sorted(missing)}"
