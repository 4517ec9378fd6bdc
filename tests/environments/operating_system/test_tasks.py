"""AgentBench's files: what is irregular in them is read, anything else refused by name."""

import json
from pathlib import Path

import pytest

from megatron_agent.environments.operating_system.kind import OperatingSystemOptions, open_operating_system
from megatron_agent.environments.operating_system.task import Match, Script, read_tasks
from megatron_agent.errors import UserError

GOOD = {"description": "How many?", "evaluation": {"match": "3"}}


def write(folder: Path, *records: object, name: str = "some.json") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(list(records)), encoding="utf-8")
    return path


def test_dev(shared_data: Path) -> None:
    tasks = {task.id: task for task in read_tasks(shared_data / "agentbench/os/dev.json")}
    assert len(tasks) == 26
    assert tasks["dev-0"].match == Match("1")
    assert tasks["dev-10"].init == ()  # `create` is a list there
    assert tasks["dev-24"].example == Script("bash", "chmod 777 test && ~/test")  # outside `evaluation`
    assert tasks["dev-21"].init[0].code.startswith("echo 123>/root/.tmp")  # a text
    assert "/usr/stock.log" in tasks["dev-25"].init[0].code  # a script of ours
    assert tasks["dev-13"].check[0] is None
    assert tasks["dev-13"].check[1].language == "python"


def test_train_sample(shared_data: Path) -> None:
    tasks = read_tasks(shared_data / "agentbench/os/train_sample.json")
    assert len(tasks) == 200
    assert all(task.check and task.example for task in tasks)


def test_a_users_scripts_win(tmp_path: Path) -> None:
    check = {"language": "python", "file": "check/integer-match.py"}
    path = write(tmp_path, GOOD | {"evaluation": {"check": check}})
    assert "int(" in read_tasks(path)[0].check[0].code
    mine = tmp_path / "scripts" / "some" / "check" / "integer-match.py"
    mine.parent.mkdir(parents=True)
    mine.write_text("exit(1)")
    assert read_tasks(path, tmp_path / "scripts")[0].check[0].code == "exit(1)"


def test_std_folder(tmp_path: Path) -> None:
    """The layout of AgentBench's data folder; group 1 has a script of its own beside the problems."""
    data = tmp_path / "os_interaction" / "data"
    write(data, GOOD | {"create": {"local": "default", "init": ["true", {"file": "init/x.sh"}]}}, name="1/stock.json")
    (data / "4").mkdir()
    (data / "4" / "N4.json").write_text(json.dumps(GOOD | {"start": "sleep 1 &"}))  # an object, not a list
    script = tmp_path / "os_interaction" / "scripts" / "1" / "init" / "x.sh"
    script.parent.mkdir(parents=True)
    script.write_text("echo own")
    tasks = read_tasks(data)
    assert [(task.id, task.category) for task in tasks] == [("1-stock-0", "1"), ("4-N4-0", "4")]
    assert tasks[0].init == (Script("bash", "true"), Script("bash", "echo own"))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (3, "item 0: expected a JSON object"),
        ({"evaluation": {"match": "3"}}, "description: expected a non-empty text"),
        (GOOD | {"extra": 1}, "unknown field 'extra'"),
        (GOOD | {"create": "x"}, '"create" to be an object'),
        (GOOD | {"create": {"local": "arch"}}, '"create.local" to be one of default, packages, ubuntu'),
        (GOOD | {"create": {"init": 5}}, "create.init: expected a text"),
        (GOOD | {"create": {"init": {"file": "init/none.sh"}}}, "no script 'init/none.sh'"),
        (GOOD | {"create": {"init": {"file": "../task.py"}}}, "no script '../task.py'"),
        (GOOD | {"create": {"init": {"code": "a", "file": "b"}}}, 'either "code" or "file"'),
        (GOOD | {"create": {"init": {"language": "c++", "code": "a"}}}, '"language" to be one of bash, python'),
        (GOOD | {"evaluation": {}}, 'either "match" or "check"'),
        (GOOD | {"evaluation": {"match": "a", "check": "b"}}, 'either "match" or "check"'),
        (GOOD | {"evaluation": {"match": {"exact": "a"}}}, "evaluation.match: expected a text"),
        (GOOD | {"evaluation": {"check": []}}, "an empty list"),
        (GOOD | {"evaluation": {"check": [None, "x"]}}, "it is missing"),
        (GOOD | {"labels": "file"}, '"labels" to be a list of texts'),
        (GOOD | {"description": "\ud800"}, "item 0"),
    ],
)
def test_bad_records_are_refused(record: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        read_tasks(write(tmp_path, record))
    assert message in str(caught.value)
    assert "some.json item 0" in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[]", '"a"', "[" * 100_000])
def test_bad_files_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "some.json"
    path.write_text(text)
    with pytest.raises(UserError, match="expected a JSON list"):
        read_tasks(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"operating_system_sandbox": "podman"}, "--operating-system-sandbox: expected one of bubblewrap, docker"),
        ({"operating_system_memory": 0}, "--operating-system-memory"),
        ({"operating_system_scripts": Path("/none")}, "--operating-system-scripts /none"),
        ({"operating_system_rootfs": Path("/none")}, "debootstrap"),
        ({"operating_system_rootfs": Path("/"), "operating_system_sandbox": "docker"}, "only bubblewrap takes one"),
    ],
)
def test_bad_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message), open_operating_system(OperatingSystemOptions(**options)):
        pass
