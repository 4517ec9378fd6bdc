"""Lists and folders of games, the shipped set, grammars and prompts; nothing here starts the engine."""

import json
import logging
from collections import Counter
from pathlib import Path

import pytest

from megatron_agent.environments.alfworld import TASK_KIND, AlfworldOptions
from megatron_agent.environments.alfworld.engine import Game
from megatron_agent.environments.alfworld.game import commands_in_grammar, game_of_room, in_grammar
from megatron_agent.environments.alfworld.kind import TASK_SET, read_tasks
from megatron_agent.environments.alfworld.prompts import load_prompts
from megatron_agent.environments.alfworld.room import Room, room_from_record, room_to_record, write_problem
from megatron_agent.environments.alfworld.task import category_of, read_shipped
from megatron_agent.environments.alfworld.wheel import domain_and_grammar
from megatron_agent.errors import UserError

NAME = "json_2.1.1/valid_unseen/pick_two_obj_and_place-Pen-None-Desk-308/trial_T1/game.tw-pddl"


@pytest.fixture
def installed() -> None:
    pytest.importorskip("alfworld", reason="pip install 'agentlm-megatron[alfworld]'")


def write_game(path: Path, **changes: object) -> None:
    record = {"pddl_domain": "(define)", "grammar": "", "pddl_problem": "(define)", "solvable": True, **changes}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record), encoding="utf-8")


def options(tasks: Path | None, games: Path | None = None, **more: object) -> AlfworldOptions:
    return AlfworldOptions(tasks=tasks, alfworld_games=games, **more)  # type: ignore[arg-type]


# --- lists and folders ---------------------------------------------------------------------------------------------


def test_agentbench_dev_list(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every name of the real list; the games themselves cannot be had, so empty ones stand in their places."""
    source = shared_data / "agentbench" / "alfworld" / "dev.json"
    names = [name for group in json.loads(source.read_text(encoding="utf-8")).values() for name in group]
    monkeypatch.delenv("ALFWORLD_DATA", raising=False)
    with pytest.raises(UserError, match=r"--alfworld-games DIR or \$ALFWORLD_DATA.*alfworld-download"):
        read_tasks(options(source))
    with pytest.raises(UserError, match=r"20 of its 20 games are not in .*alfworld-download"):
        read_tasks(options(source, tmp_path))
    for name in names:
        write_game(tmp_path / name)
    tasks = read_tasks(options(source, tmp_path))
    assert [f"{task.id}/game.tw-pddl" for task in tasks] == names
    assert Counter(task.category for task in tasks) == {
        "put": 4,
        "clean": 4,
        "heat": 3,
        "cool": 3,
        "examine": 3,
        "puttwo": 3,
    }
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))
    folder = tmp_path / "agentbench" / "data" / "alfworld"
    folder.mkdir(parents=True)
    (folder / "dev.json").write_bytes(source.read_bytes())
    assert read_tasks(options(tmp_path / "agentbench", split="dev")) == tasks
    assert repr(tasks[0]).count(str(tmp_path)) == 0  # resumed runs compare it


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "expected a JSON object"),
        ("{", "not valid JSON"),
        ("{}", "names no games"),
        ('{"pick_two_obj": "x"}', 'group "pick_two_obj": expected a list of paths'),
        (json.dumps({"pick_two_obj": [NAME, NAME]}), "names .* twice"),
        (json.dumps({"pick_two_obj": [NAME.replace("pick_two", "dance")]}), "expected a game whose name begins with"),
        (json.dumps({"pick_two_obj": ["game.tw-pddl"]}), "expected <type>-<object>"),
    ],
)
def test_bad_lists(tmp_path: Path, content: str, message: str) -> None:
    for name in (NAME, NAME.replace("pick_two", "dance"), "game.tw-pddl"):
        write_game(tmp_path / name)
    path = tmp_path / "list.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        read_tasks(options(path, tmp_path))


def test_folder_leaves_out_what_alfworld_leaves_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(UserError, match="no such folder"):
        read_tasks(options(None, tmp_path / "absent"))
    with pytest.raises(UserError, match="holds no game to play"):
        read_tasks(options(None, tmp_path))
    write_game(tmp_path / NAME)
    write_game(tmp_path / NAME.replace("T1", "T2"), solvable=False)
    write_game(tmp_path / NAME.replace("Pen", "AppleSliced"))
    with caplog.at_level(logging.WARNING):
        tasks = read_tasks(options(None, tmp_path))
    assert [task.id for task in tasks] == [NAME.removesuffix("/game.tw-pddl")]
    assert "2 of 3 games left out" in caplog.text


def test_bad_games(tmp_path: Path) -> None:
    write_game(tmp_path / NAME, walkthrough=["go to desk 1", "move pen 1 to desk 1"])
    (task,) = read_tasks(options(None, tmp_path))
    assert task.walkthrough() == ["go to desk 1", "put pen 1 in/on desk 1"]
    write_game(tmp_path / NAME)
    with pytest.raises(UserError, match="carries no walkthrough"):
        task.walkthrough()
    path = tmp_path / "list.json"
    path.write_text(json.dumps({"pick_two_obj": [NAME]}), encoding="utf-8")
    (tmp_path / NAME).write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match='a text under "pddl_domain"'):
        task.game()
    with pytest.raises(UserError, match='a text under "pddl_domain"'):  # when the world opens
        read_tasks(options(path, tmp_path))
    (tmp_path / NAME).write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="not valid JSON"):
        task.game()
    (tmp_path / NAME).unlink()
    with pytest.raises(UserError, match="cannot be read"):
        task.game()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alfworld_grammar": "shove"}, "--alfworld-grammar: expected one of put, move, got 'shove'"),
        ({"alfworld_workers": 0}, "--alfworld-workers: expected at least 1"),
        ({"prompt_style": "short"}, "--prompt-style: expected one of paper, fixed"),
        ({"split": "dev"}, "needs --tasks"),
    ],
)
@pytest.mark.usefixtures("installed")
def test_bad_options(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message), TASK_KIND.open(AlfworldOptions(**changes)):  # type: ignore[arg-type]
        pass


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from megatron_agent.environments.alfworld import wheel

    wheel.alfworld_folder.cache_clear()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with (
        pytest.raises(UserError, match=r"alfworld is not installed; pip install 'agentlm-megatron\[alfworld\]'"),
        TASK_KIND.open(AlfworldOptions()),
    ):
        pass
    wheel.alfworld_folder.cache_clear()


def test_shipped_set() -> None:
    tasks = read_shipped(TASK_SET.shipped, "put")
    assert Counter(task.category for task in tasks) == dict.fromkeys(
        ("put", "clean", "heat", "cool", "examine", "puttwo"), 3
    )
    assert len({task.id for task in tasks}) == len(set(tasks)) == 18
    assert [repr(task) for task in tasks] == [repr(task) for task in read_shipped(TASK_SET.shipped, "put")]
    assert "Apple|" not in repr(tasks)
    for task in tasks:
        assert task.room is not None
        assert room_from_record(json.loads(json.dumps(room_to_record(task.room)))) == task.room


@pytest.mark.parametrize(
    ("name", "category"),
    [
        ("pick_and_place_simple-Mug-None-Desk-308", "put"),
        ("pick_two_obj_and_place-Pen-None-Desk-308", "puttwo"),
        ("look_at_obj_in_light-Pen-None-DeskLamp-308", "examine"),
        ("pick_cool_then_place_in_recep-Pan-None-Shelf-1", "cool"),
    ],
)
def test_category(name: str, category: str) -> None:
    assert category_of(name, "here") == category


# --- grammars ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("installed")
def test_grammars_of_the_installed_package(small_room: Room) -> None:
    """AgentBench's logic files differ from alfworld 0.4.2's in exactly these lines."""
    domain, grammar = domain_and_grammar()
    put, move = game_of_room(small_room, "put"), game_of_room(small_room, "move")
    assert move.pddl_domain == domain
    assert move.grammar == grammar.replace("UNKNOWN GOAL", "put some apple on fridge")
    changed = [
        (old.strip(), new.strip())
        for old, new in zip(put.grammar.split("\n"), move.grammar.split("\n"), strict=True)
        if old != new
    ]
    assert changed == [
        (
            '"rhs": "You arrive at {lend.name}. #examineReceptacle.feedback#"',
            '"rhs": "You arrive at {r.name}. #examineReceptacle.feedback#"',
        ),
        (
            '"rhs": "You put the {o.name} in/on the {r.name}."',
            '"rhs": "You move the {o.name} to the {r.name}."',
        ),
        *[('template :: "put {o} in/on {r}";', 'template :: "move {o} to {r}";')] * 2,
    ]
    assert "(:action help" in move.pddl_domain
    assert "(:action help" not in put.pddl_domain
    cut = move.pddl_domain[move.pddl_domain.index("(:action help") : move.pddl_domain.rindex(")")].strip()
    assert put.pddl_domain == move.pddl_domain.replace(cut, "")
    assert put.pddl_domain.count("(:action ") == move.pddl_domain.count("(:action ") - 1
    assert in_grammar(in_grammar(put, "move"), "put") == put


def test_a_domain_without_help_stays() -> None:
    game = Game("(define (domain x))", "", "")
    assert in_grammar(game, "put") == game


def test_commands_in_grammar() -> None:
    new = ["go to desk 1", "move pen 1 to desk 1"]
    old = ["go to desk 1", "put pen 1 in/on desk 1"]
    assert commands_in_grammar(new, "put") == commands_in_grammar(old, "put") == old
    assert commands_in_grammar(new, "move") == commands_in_grammar(old, "move") == new


@pytest.mark.usefixtures("installed")
def test_problem(small_room: Room) -> None:
    problem = write_problem(small_room)
    assert problem.count("(") == problem.count(")")
    apple = "Apple_bar__plus_00_dot_12_bar__plus_01_dot_10_bar__minus_01_dot_10"
    for fact in ("pickupable", "cleanable", "heatable", "coolable", "sliceable"):
        assert f"({fact} {apple})" in problem
    assert "(canContain FridgeType AppleType)" in problem
    assert "canContain FridgeType KnifeType" not in problem
    assert "(canContain DrawerType KnifeType)" in problem
    assert "(objectType ?o AppleType)" in problem
    assert "ButterKnifeType - otype" in problem  # the domain names it, the room has none


# --- prompts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", TASK_KIND.prompt_styles)
@pytest.mark.parametrize("grammar", ["put", "move"])
def test_prompts(style: str, grammar: str) -> None:
    prompts = load_prompts(style, grammar, None)
    assert set(prompts) == {"put", "clean", "heat", "cool", "examine", "puttwo"}
    for messages in prompts.values():
        assert [message["role"] for message in messages] == ["user", "assistant"] * (len(messages) // 2)
        assert messages[2]["content"].startswith("Here is one example.\nYou are in the middle of a room.")
        assert ("AVAILABLE ACTIONS" in messages[0]["content"]) == (style == "fixed")
    last = prompts["puttwo"][-1]["content"]
    assert last.endswith(
        "ACTION: put candle 3 in/on cabinet 1\n" if grammar == "put" else "move candle 3 to cabinet 1\n"
    )
    text = json.dumps(prompts)
    assert ("in/on" in text) == (grammar == "put")


def test_prompt_file_with_demonstrations(tmp_path: Path) -> None:
    """The form of AgentBench's alfworld_multiturn_react.json."""
    path = tmp_path / "react.json"
    games = ("put", "clean", "heat", "cool", "examine", "puttwo")
    path.write_text(json.dumps({game: [f"room {game}", "ACTION: look\n"] for game in games}), encoding="utf-8")
    prompts = load_prompts("paper", "put", path)
    assert [message["content"] for message in prompts["heat"][2:]] == [
        "Here is one example.\nroom heat",
        "ACTION: look\n",
    ]
    path.write_text(json.dumps({game: ["a", "b"] for game in games[1:]}), encoding="utf-8")
    with pytest.raises(UserError, match="with keys put, clean"):
        load_prompts("paper", "put", path)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match="not valid JSON"):
        load_prompts("paper", "put", path)
    with pytest.raises(UserError, match="cannot be read"):
        load_prompts("paper", "put", tmp_path / "absent.json")


def test_prompt_file_with_all_messages(tmp_path: Path) -> None:
    path = tmp_path / "all.json"
    messages = [{"role": "user", "content": "rules"}, {"role": "agent", "content": "fine"}]
    path.write_text(json.dumps(messages), encoding="utf-8")
    expected = [{"role": "user", "content": "rules"}, {"role": "assistant", "content": "fine"}]
    assert load_prompts("paper", "put", path)["cool"] == expected


def test_prompt_file_from_a_split_of_agentinstruct(tmp_path: Path) -> None:
    """Its conversations hold instruction and acknowledgement, no demonstration."""
    turns = [
        ("human", None, "The rules."),
        ("gpt", False, "OK."),
        ("human", None, "Your task"),
        ("gpt", True, "ACTION: look"),
    ]
    record = {"id": "alfworld_0", "conversations": [{"from": f, "loss": loss, "value": v} for f, loss, v in turns]}
    path = tmp_path / "alfworld.jsonl"
    path.write_text(json.dumps(record) + "\n", encoding="utf-8")
    prompts = load_prompts("paper", "put", path)
    assert set(prompts) == {"put", "clean", "heat", "cool", "examine", "puttwo"}
    assert [message["content"] for message in prompts["heat"]] == ["The rules.", "OK."]
