"""Kinds of task by name: the six, short names, a user's file or module, and refusals."""

import re
import sys
from pathlib import Path

import pytest

from megatron_agent.environments.registry import HELD_IN, SHORT_NAMES, get_task_kind, get_task_kinds
from megatron_agent.environments.task_kind import TaskKind, WorldOptions
from megatron_agent.errors import UserError

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "guess_number.py"


@pytest.mark.parametrize("name", HELD_IN)
def test_each_of_the_six_is_a_kind_of_its_name(name: str) -> None:
    kind = get_task_kind(name)
    assert (kind.name, kind.prompt_styles[0]) == (name, "paper")
    assert issubclass(kind.options, WorldOptions)
    kind.options()  # every field has a default
    assert kind.weight is not None


def test_no_two_kinds_have_an_option_of_one_name() -> None:
    inherited = set(WorldOptions.__dataclass_fields__)
    own = [set(get_task_kind(name).options.__dataclass_fields__) - inherited for name in HELD_IN]
    assert len(set().union(*own)) == sum(map(len, own))


def test_held_in_and_short_names() -> None:
    assert [kind.name for kind in get_task_kinds(["held-in"])] == list(HELD_IN)
    assert get_task_kind("db") is get_task_kind("database")
    assert set(SHORT_NAMES.values()) < set(HELD_IN)
    assert [kind.name for kind in get_task_kinds(["db", str(EXAMPLE)])] == ["database", "guess_number"]


@pytest.mark.parametrize("names", [["db", "database"], [str(EXAMPLE), str(EXAMPLE)]])
def test_a_task_named_twice_is_refused(names: list[str]) -> None:
    with pytest.raises(UserError, match="is named twice"):
        get_task_kinds(names)


def test_a_module_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "my_task.py").write_text(EXAMPLE.read_text())
    monkeypatch.syspath_prepend(tmp_path)
    assert isinstance(get_task_kind("my_package.my_task"), TaskKind)
    for name in ("my_package", "my_package.my_task"):
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "no such file"),
        ("import nothing_like_it", "cannot be imported: ModuleNotFoundError: No module named 'nothing_like_it'"),
        ("def broken(:", "cannot be imported: SyntaxError"),
        ("1 / 0", "cannot be imported: ZeroDivisionError"),
        ("x = 1", "expected a variable TASK_KIND of type TaskKind there, got NoneType"),
        ("TASK_KIND = 'x'", "expected a variable TASK_KIND of type TaskKind there, got str"),
    ],
)
def test_files_that_are_no_task_are_refused(tmp_path: Path, source: str | None, message: str) -> None:
    path = tmp_path / "task.py"
    if source is not None:
        path.write_text(source)
    with pytest.raises(UserError, match=re.escape(f"--task {path}: {message}")):
        get_task_kind(str(path))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("chess", "--task: expected held-in or one of alfworld, webshop"),
        ("no_such_package.task", "--task no_such_package.task: cannot be imported: No module named 'no_such_package'"),
        ("json", "--task: expected held-in or one of"),
        ("docs/agents.md", "--task: expected held-in or one of"),
        ("json.decoder", "--task json.decoder: expected a variable TASK_KIND"),
        ("..x", "cannot be imported"),
    ],
)
def test_names_that_are_no_task_are_refused(name: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        get_task_kind(name)
