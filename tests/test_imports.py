"""Packages import only what the table of the design allows: arrows point one way, no circles."""

import ast
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
EVERYWHERE = {f"megatron_agent.{name}" for name in ("configuration", "errors", "files", "processes")}
ALLOWED = {
    "megatron_agent/chat": set(),
    "megatron_agent/dataset": {"megatron_agent.chat"},
    "megatron_agent/model": set(),
    "megatron_agent/training": {"megatron_agent.dataset", "megatron_agent.model"},
    "megatron_agent/installation": {
        "megatron_agent.chat",
        "megatron_agent.dataset",
        "megatron_agent.model",
        "megatron_agent.training",
    },
    "megatron_agent/environments": {"megatron_agent.chat"},
    "megatron_agent/agents": {"megatron_agent.chat", "megatron_agent.environments"},
    "megatron_agent/evaluation": {"megatron_agent.agents", "megatron_agent.environments"},
    "megatron_agent/report": {"megatron_agent.evaluation", "megatron_agent.training", "megatron_agent.model"},
    "checkpoints_convert": {"megatron_agent.model"},
    "launch": set(),
}


def imported_packages(file: Path) -> set[str]:
    """Packages of ours that a file names in import statements, anywhere in it."""
    modules = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module in ("megatron_agent", "checkpoints_convert", "data_prep"):
                modules |= {f"{node.module}.{alias.name}" for alias in node.names}
            else:
                modules.add(node.module)
    ours = {name for name in modules if name.split(".")[0] in ("megatron_agent", "checkpoints_convert", "data_prep")}
    return {".".join(name.split(".")[:2]) if name.startswith("megatron_agent") else name.split(".")[0] for name in ours}


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_follow_the_table(package: str) -> None:
    itself = package.replace("/", ".")
    files = list((REPOSITORY / package).rglob("*.py"))
    assert files
    for file in files:
        foreign = imported_packages(file) - {itself} - EVERYWHERE - ALLOWED[package]
        assert not foreign, f"{file.relative_to(REPOSITORY)} imports {sorted(foreign)}"


def test_nothing_but_its_commands_imports_installation() -> None:
    """Doctor and preflight look at the others; a run must not depend on them."""
    commands = {REPOSITORY / "megatron_agent" / name for name in ("doctor.py", "preflight.py")}
    others = [
        file
        for folder in ("megatron_agent", "data_prep", "checkpoints_convert", "launch")
        for file in (REPOSITORY / folder).rglob("*.py")
        if file not in commands and (REPOSITORY / "megatron_agent" / "installation") not in file.parents
    ]
    for file in others:
        assert "megatron_agent.installation" not in imported_packages(file), file
    for file in commands:
        assert "megatron_agent.installation" in imported_packages(file)
