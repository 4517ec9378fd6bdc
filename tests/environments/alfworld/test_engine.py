"""The real engine: generated games are won, processes are shared, and their failures are faults."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from data_prep.alfworld_games.generator import TASK_TYPES, generate_room
from data_prep.generate_alfworld_games import generate_alfworld_games
from megatron_agent.agents.client import ScriptedClient
from megatron_agent.agents.episode import play
from megatron_agent.environments.alfworld import TASK_KIND, AlfworldEnvironment, AlfworldOptions
from megatron_agent.environments.alfworld.engine import EnginePool, Game
from megatron_agent.environments.alfworld.game import game_of_room
from megatron_agent.environments.alfworld.kind import TASK_SET, read_tasks
from megatron_agent.environments.alfworld.prompts import load_prompts
from megatron_agent.environments.alfworld.room import Room
from megatron_agent.environments.alfworld.task import AlfworldTask, read_shipped
from megatron_agent.environments.base import EnvironmentFault
from megatron_agent.errors import UserError

pytestmark = pytest.mark.usefixtures("engines")  # skips where there is no engine

PLAIN_ENGINE = """
import json, sys
arguments = json.load(sys.stdin)
import textworld
from textworld.envs.pddl import PddlEnv
from alfworld.agents.environment.alfred_tw_env import AlfredDemangler
game = AlfredDemangler(PddlEnv(textworld.EnvInfos(won=True, admissible_commands=True)))
game.load(arguments["game"])
states = [game.reset()] + [game.step(command)[0] for command in arguments["commands"]]
print(json.dumps([[s["feedback"], s["admissible_commands"], bool(s["won"])] for s in states]))
"""

HAND_CODED_EXPERT = """
import json, sys
path = sys.argv[1]
import textworld
from textworld.envs.pddl import PddlEnv
from alfworld.agents.environment.alfred_tw_env import AlfredDemangler, AlfredExpert
infos = textworld.EnvInfos(won=True, admissible_commands=True)
game = AlfredExpert(AlfredDemangler(PddlEnv(infos)), expert_type="handcoded")
game.load(path)
state, done, steps = game.reset(), False, 0
while not done and steps < 60:
    state, _, done = game.step(state["extra.expert_plan"][0])
    steps += 1
print(json.dumps({"won": bool(state["won"]), "steps": steps}))
"""


def run_python(code: str, tmp_path: Path, *arguments: str, given: str = "") -> object:
    """Run code in an interpreter of its own and return the JSON of its last line."""
    environment = {**os.environ, "ALFWORLD_DATA": str(tmp_path / "alfworld_data")}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, input=given, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().split("\n")[-1])


def shipped_by_type(grammar: str) -> list[AlfworldTask]:
    """The first game of each of the six types."""
    tasks = {task.category: task for task in reversed(read_shipped(TASK_SET.shipped, grammar))}
    assert len(tasks) == 6
    return list(tasks.values())


def win(engines: EnginePool, task: AlfworldTask, style: str = "paper") -> str:
    """Play the expert through the agent loop; return what the transcript says."""
    prompts = load_prompts(style, task.grammar, None)
    environment = AlfworldEnvironment(engines, prompts, show_actions=style == "fixed")
    assert TASK_KIND.expert is not None
    trajectory = play(environment, task, ScriptedClient(TASK_KIND.expert(task)))
    assert (trajectory.reward, trajectory.status) == (1.0, "completed"), trajectory.messages
    assert trajectory.rounds == len(task.walkthrough())
    return "\n".join(message["content"] for message in trajectory.messages[trajectory.context_messages - 1 :])


# --- games ---------------------------------------------------------------------------------------------------------


def test_expert_wins_in_the_grammar_of_the_paper(engines: EnginePool) -> None:
    for task in shipped_by_type("put"):
        text = win(engines, task)
        assert text.startswith("Here is your task. You are in the middle of a room. Looking quickly around you, you")
        assert "\nYour task is to: " in text
        assert "You arrive" not in text
        assert "Nothing happen" not in text
        if task.category != "examine":
            assert "ACTION: put " in text
        if task.category == "puttwo":
            assert " in/on the " in text


def test_expert_wins_in_the_new_grammar_and_sees_actions(engines: EnginePool) -> None:
    for task in shipped_by_type("move"):
        text = win(engines, task, "fixed")
        assert "You arrive at " in text  # the released evaluator cuts only `loc N`
        assert "\nAVAILABLE ACTIONS: go to ..., " in text
        if task.category != "examine":
            assert "ACTION: move " in text


@pytest.mark.parametrize("category", ["puttwo", "cool"])
def test_the_pool_answers_as_the_plain_engine(engines: EnginePool, tmp_path: Path, category: str) -> None:
    """The work that the worker spares changes no observation and no command, on a walk that wins half-way."""
    task = next(task for task in read_shipped(TASK_SET.shipped, "put") if task.category == category)
    session = engines.open(task.game())
    states, commands, generator = [session.state], [], random.Random(5)
    for command in task.walkthrough() * 2:
        for wandering in (True, False):
            guess = generator.choice([*session.state.admissible, "dance"])
            if wandering and guess.startswith(("go to", "take", "put")):
                continue  # these would lead away from the walkthrough
            commands.append(guess if wandering else command)
            states.append(session.step(commands[-1]))
    session.close()
    given = json.dumps({"game": vars(task.game()), "commands": commands})
    truth = run_python(PLAIN_ENGINE, tmp_path, given=given)
    assert [[state.text, list(state.admissible), state.won] for state in states] == truth
    assert any(state.won for state in states)
    assert any(state.text == "Nothing happens." for state in states)


def test_generated_folder(engines: EnginePool, tmp_path: Path) -> None:
    """The command's games: checked by the engine, read as ALFWorld's own, won by alfworld's own expert."""
    folder = tmp_path / "games"
    counts = generate_alfworld_games(1, 3, folder, max_receptacles=18)
    assert counts == {"games": 6, "discarded": 0}
    tasks = read_tasks(AlfworldOptions(alfworld_games=folder))
    assert sorted(task.category for task in tasks) == ["clean", "cool", "examine", "heat", "put", "puttwo"]
    task = next(task for task in tasks if task.category == "clean")
    win(engines, task)
    assert task.path is not None
    played = run_python(HAND_CODED_EXPERT, tmp_path, str(task.path))
    assert isinstance(played, dict)
    assert played["won"], played
    with pytest.raises(UserError, match=r"--output .*: expected a new or empty folder"):
        generate_alfworld_games(1, 3, folder)


def test_generator_is_deterministic_and_says_what_it_cannot() -> None:
    for task_type in TASK_TYPES:
        first, again, other = (generate_room(task_type, seed, 100) for seed in ("1 0", "1 0", "1 1"))
        assert first == again != other
        assert len(first.walkthrough) <= 35
    with pytest.raises(UserError, match=r"--max-receptacles 2: no room of .* allow more"):
        generate_alfworld_games(1, 1, "never-made", max_receptacles=2)
    with pytest.raises(UserError, match="--count: expected at least 1"):
        generate_alfworld_games(0, 1, "never-made")


def test_world(small_room: Room) -> None:
    with TASK_KIND.open(AlfworldOptions(alfworld_workers=1)) as world:
        assert len(world.tasks) == 18
        assert world.facts == {"engine": "textworld 1.7.0, alfworld 0.4.2"}
        task = replace(world.tasks[0], room=small_room)
        environment = world.make_environment()
        environment.reset(task)
        environment.reset(task)  # the game before is left
        observation = environment.step("ACTION: go to the counter-top 1")
        assert observation.text == "On the countertop 1, you see a apple 2, a apple 1, and a knife 1."
    with pytest.raises(EnvironmentFault):  # closed with the world
        environment.step("ACTION: look")
    environment.close()


# --- processes -----------------------------------------------------------------------------------------------------


def test_many_games_share_few_processes(engines: EnginePool, small_room: Room) -> None:
    game = game_of_room(small_room, "move")

    def play_through(number: int) -> bool:
        session = engines.open(game)
        for command in small_room.walkthrough[: None if number % 2 else -1]:
            session.step(command)
        won = session.state.won
        session.close()
        return won

    with ThreadPoolExecutor(12) as pool:
        won = list(pool.map(play_through, range(12)))
    assert won == [False, True] * 6
    assert len(engines._processes) == 2
    assert [process.sessions for process in engines._processes] == [0, 0]


def test_a_bad_game_is_a_fault_and_harms_no_other(engines: EnginePool, small_room: Room) -> None:
    game = game_of_room(small_room, "put")
    session = engines.open(game)
    for broken in (Game("(define", game.grammar, game.pddl_problem), Game(game.pddl_domain, "grammar", "x")):
        with pytest.raises(EnvironmentFault, match="the game engine failed to load: "):
            engines.open(broken)
    assert session.step("go to fridge 1").text.endswith("The fridge 1 is closed.")
    session.close()


def test_lost_processes(small_room: Room) -> None:
    """Killed, silent, or used up: the games in a process end as faults, the next one gets a new process."""
    game = game_of_room(small_room, "put")
    pool = EnginePool(workers=1, games_per_worker=2)
    try:
        lost, used = pool.open(game), pool.open(game)
        first = lost._process
        first._process.kill()
        with pytest.raises(EnvironmentFault, match="process ended: exit status -9"):
            lost.step("look")
        with pytest.raises(EnvironmentFault):
            used.step("look")
        lost.close()
        used.close()

        silent = pool.open(game)
        process = silent._process
        assert process is not first
        process._request_seconds = 0.2
        os.kill(process._process.pid, signal.SIGSTOP)
        with pytest.raises(EnvironmentFault, match="did not answer within"):
            silent.step("look")
        silent.close()

        sessions = [pool.open(game) for _ in range(3)]
        worn, fresh = sessions[0]._process, sessions[2]._process
        assert sessions[1]._process is worn is not fresh  # two games each
        sessions[0].close()
        assert worn.alive()
        sessions[1].close()
        assert not worn.alive()
        assert sessions[2].step("look").text.startswith("You are in the middle of a room.")
    finally:
        pool.close()
    assert not fresh.alive()
    pool.close()
    with pytest.raises(EnvironmentFault, match="closed"):
        pool.open(game)


def test_descriptors_above_1023(small_room: Room) -> None:
    """A harness with many connections: `select.select` takes none of these."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 1200:
        pytest.skip(f"at most {hard} open files here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    taken = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    pool = EnginePool(workers=1)
    try:
        assert pool.open(game_of_room(small_room, "put")).state.admissible
    finally:
        pool.close()
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_process_that_cannot_start_is_a_fault(small_room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    game = game_of_room(small_room, "put")
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    with pytest.raises(EnvironmentFault, match=r"cannot be started: .*No such file"):
        EnginePool(workers=1).open(game)


@pytest.mark.parametrize("request_under_way", [False, True])
def test_a_process_ends_with_its_harness(request_under_way: bool) -> None:
    """Killed outright, the harness cannot close its pool, nor take the answer that it waits for."""
    code = (
        "import os, signal, sys\n"
        "from megatron_agent.environments.alfworld.engine import EnginePool\n"
        "pool = EnginePool(1)\n"
        "process = pool._assign()\n"
        "print(process._process.pid, process._folder.name, flush=True)\n"
        'if sys.argv[1] == "True":\n'
        '    os.write(process._process.stdin.fileno(), b\'{"do": "step", "session": 1, "command": "look"}\\n\')\n'
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    command = [sys.executable, "-c", code, str(request_under_way)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    pid, folder = done.stdout.split()
    status = Path(f"/proc/{int(pid)}/stat")
    deadline = time.monotonic() + 60
    while status.exists() and status.read_text(encoding="utf-8").split()[2] != "Z" and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not status.exists() or status.read_text(encoding="utf-8").split()[2] == "Z"
    assert not Path(folder).exists()
