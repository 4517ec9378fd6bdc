"""Mind2Web's files: what is read, in which order, and what is refused."""

import copy
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from megatron_agent.environments.mind2web.task import read_mind2web_tasks
from megatron_agent.errors import UserError
from tests.environments.mind2web.pages import make_action, make_record, natural_ranks, write


def test_a_file_of_mind2web(tmp_path: Path) -> None:
    actions = [make_action("u0"), make_action("u1", gold=None), make_action("u2", op="TYPE", value="x", gold="9")]
    records = [make_record(actions), make_record([make_action("u0", gold="11")], "other")]
    tasks = read_mind2web_tasks(write(tmp_path / "test_0.json", records), natural_ranks(records))
    assert [task.id for task in tasks] == ["task_u0", "task_u1", "task_u2", "other_u0"]
    assert [task.gold for task in tasks] == [("3",), (), ("9",), ()]  # rank 11 is not among the ten best
    assert [task.previous_actions for task in tasks[:3]] == [
        (),
        ("[a]  step 0 -> CLICK",),
        ("[a]  step 0 -> CLICK", "[a]  step 1 -> CLICK"),
    ]
    assert (tasks[2].operation, tasks[2].value, tasks[2].category) == ("TYPE", "x", "Info/linkland")
    assert tasks[0].page.html == actions[0]["cleaned_html"]
    assert set(tasks[3].candidates) == {str(n) for n in range(10)}


def test_candidates_are_shuffled_as_one_worker_of_agentbench_does(tmp_path: Path) -> None:
    """`random.seed(123)` once; then, step after step that can succeed, `random.shuffle(right + wrong)`."""
    records = [make_record([make_action("u0"), make_action("u1", gold=None), make_action("u2", gold="7")])]
    tasks = read_mind2web_tasks(write(tmp_path / "a.json", records), natural_ranks(records))
    state = random.getstate()
    random.seed(123)
    for task, gold in ((tasks[0], "3"), (tasks[2], "7")):
        expected = [gold] + [str(n) for n in range(10) if str(n) != gold]
        random.shuffle(expected)
        assert list(task.candidates) == expected
    random.setstate(state)
    assert list(tasks[1].candidates) == [str(n) for n in range(10)]


def test_a_folder_of_files_and_document_order(tmp_path: Path) -> None:
    write(tmp_path / "b.json", [make_record([make_action("u0", links=20, gold="15")], "second")])
    write(tmp_path / "a.json", [make_record([make_action("u0", links=20, gold="5")], "first")])
    write(tmp_path / "scores_all_data.json", {"ranks": {}})
    tasks = read_mind2web_tasks(tmp_path, None)
    assert [(task.id, task.gold) for task in tasks] == [("first_u0", ("5",)), ("second_u0", ())]
    assert sorted(tasks[1].candidates, key=int) == [str(n) for n in range(10)]


def test_tasks_are_told_apart_by_their_repr(tmp_path: Path) -> None:
    """A resumed run compares reprs: the same file gives the same ones, without the page's text."""
    records = [make_record([make_action()])]
    path = write(tmp_path / "a.json", records)
    first, second = (read_mind2web_tasks(path, natural_ranks(records)) for _ in range(2))
    assert repr(first) == repr(second)
    assert len(repr(first[0])) < 700
    records[0]["actions"][0]["cleaned_html"] += " "
    changed = read_mind2web_tasks(write(tmp_path / "a.json", records), natural_ranks(records))
    assert repr(changed) != repr(first)


def damage(**changes: Any) -> Callable[[Any], None]:
    def change(record: Any) -> None:
        for key, value in changes.items():
            (record if key in record else record["actions"][0])[key] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (damage(annotation_id=7), 'a.json item 0: "annotation_id": expected a string, got'),
        (damage(annotation_id=""), 'expected "annotation_id" to be a non-empty string'),
        (damage(confirmed_task=None), '(task): "confirmed_task": expected a string'),
        (damage(confirmed_task="\ud800"), '"confirmed_task": lone surrogate'),
        (damage(website=["x"]), '"website": expected a string'),
        (damage(actions={}), 'expected "actions" to be a list'),
        (damage(actions=[3]), "(task) action 0: expected a JSON object, got int"),
        (damage(action_reprs=[1]), '"action_reprs" 0: expected a string'),
        (damage(action_uid=None), 'action 0: "action_uid": expected a string'),
        (damage(operation={"op": "HOVER", "value": ""}), 'expected "operation" with "op" one of CLICK, SELECT, TYPE'),
        (damage(operation={"op": "TYPE", "value": 3}), '"operation": "value": expected a string'),
        (damage(cleaned_html="<p>"), 'action 0: "cleaned_html" is not well-formed'),
        (damage(cleaned_html="<p/>"), "candidate '3' is no element"),
        (damage(pos_candidates=None), 'expected "pos_candidates" to be a list'),
        (damage(neg_candidates=[{"tag": "a"}]), '"neg_candidates" 0: "backend_node_id": expected a string'),
        (damage(neg_candidates=["5"]), '"neg_candidates" 0: expected a JSON object'),
        (damage(action_uid="unranked"), "scores.pkl: holds no ranks of step 'task_unranked'"),
        (damage(pos_candidates=[{"backend_node_id": "99"}]), "expected a rank (a number) of candidate '99'"),
    ],
)
def test_damaged_records(tmp_path: Path, change: Callable[[Any], None], words: str) -> None:
    record = make_record([make_action()])
    ranks = natural_ranks([record])
    change(record)
    with pytest.raises(UserError) as caught:
        read_mind2web_tasks(write(tmp_path / "a.json", [record]), ranks, "scores.pkl")
    assert words in str(caught.value)
    assert "a.json item 0" in str(caught.value)


def test_files_without_steps_and_steps_that_come_twice(tmp_path: Path) -> None:
    record = make_record([make_action()])
    path = write(tmp_path / "a.json", [record, copy.deepcopy(record)])
    with pytest.raises(UserError, match=r"item 1 \(task\) action 0: step 'task_u0' was already read at .*item 0"):
        read_mind2web_tasks(path, natural_ranks([record]))
    with pytest.raises(UserError, match="at least one step"):
        read_mind2web_tasks(write(tmp_path / "a.json", []), {})
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="found none"):
        read_mind2web_tasks(tmp_path / "empty", {})
    with pytest.raises(UserError, match="item 0: expected a task of Mind2Web"):
        read_mind2web_tasks(write(tmp_path / "a.json", ["text"]), {})
