"""What is taken from the `alfworld` package as installed: its grammar, PDDL domain, tables and goal templates.

Importing the package itself makes a folder in the user's home, so its modules of plain tables are loaded from their
files; the game engine's process imports the package with a folder of its own.
"""

import importlib.util
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

from megatron_agent.errors import UserError

MISSING = (
    "--task alfworld: the package {name} is not installed; pip install 'agentlm-megatron[alfworld]' "
    "(compiles fast-downward: gcc, g++, 2 to 5 minutes)"
)


@cache
def alfworld_folder() -> Path:
    """Return the folder of the installed package. Raises UserError naming the extra when a part is missing."""
    for name in ("alfworld", "textworld", "fast_downward", "nltk"):
        if importlib.util.find_spec(name) is None:
            raise UserError(MISSING.format(name=name))
    specification = importlib.util.find_spec("alfworld")
    if specification is None or specification.origin is None:
        raise UserError(MISSING.format(name="alfworld"))
    return Path(specification.origin).parent


def engine_version() -> str:
    """Return the releases that scores depend on, such as `textworld 1.7.0, alfworld 0.4.2`."""
    return f"textworld {version('textworld')}, alfworld {version('alfworld')}"


@cache
def domain_and_grammar() -> tuple[str, str]:
    """Return the package's PDDL domain and TextWorld grammar (whose task reads `UNKNOWN GOAL`)."""
    folder = alfworld_folder() / "data"
    return (folder / "alfred.pddl").read_text(encoding="utf-8"), (folder / "alfred.twl2").read_text(encoding="utf-8")


@cache
def constants() -> ModuleType:
    """Return alfworld's tables of objects, receptacles and what fits where (`alfworld/gen/constants.py`)."""
    return _load("gen/constants.py")


@cache
def goals() -> dict[str, dict[str, object]]:
    """Return alfworld's goal templates by task type: `pddl` text and English `templates`."""
    return _load("gen/goal_library.py").gdict


def _load(name: str) -> ModuleType:
    path = alfworld_folder() / name
    specification = importlib.util.spec_from_file_location(f"_alfworld_{path.stem}", path)
    if specification is None or specification.loader is None:
        raise UserError(f"{path}: expected a Python file of alfworld 0.4.2; reinstall it")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module
