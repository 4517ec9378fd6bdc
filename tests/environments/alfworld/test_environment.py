"""The rules of the episode, on an engine whose answers are written down here."""

from typing import Any

import pytest

from megatron_agent.environments.alfworld.engine import GameState
from megatron_agent.environments.alfworld.environment import AlfworldEnvironment, clean_observation, find_action
from megatron_agent.environments.alfworld.kind import alfworld_scores
from megatron_agent.environments.base import EnvironmentFault, Observation
from megatron_agent.environments.task_kind import EpisodeScore
from megatron_agent.errors import UserError

GREETING = "-= Welcome to TextWorld, ALFRED! =-\n\nYou are in the middle of a room. You see a safe 1.\n\n"
PROMPTS = {"put": [{"role": "user", "content": "rules"}, {"role": "assistant", "content": "OK."}]}


class WrittenGame:
    """An engine, its session and its task in one: `open safe 1` after `go to safe 1` wins."""

    category = "put"

    def __init__(self) -> None:
        self.commands: list[str] = []
        self.closed = 0
        actions = ("go to safe 1", "look", "open safe 1")
        self.state = GameState(f"{GREETING}Your task is to: open it.", actions, False)

    def game(self) -> Any:
        return self

    def open(self, game: Any) -> "WrittenGame":
        return self

    def step(self, command: str) -> GameState:
        self.commands.append(command)
        texts = {
            "go to safe 1": "You arrive at loc 4. The safe 1 is closed.",
            "open safe 1": "You open the safe 1.",
            "look": "You see. Much.",
        }
        won = command == "open safe 1" and "go to safe 1" in self.commands
        self.state = GameState(texts.get(command, "Nothing happens."), self.state.admissible, won)
        return self.state

    def close(self) -> None:
        self.closed += 1


def start(show_actions: bool = False) -> tuple[AlfworldEnvironment, WrittenGame, str]:
    game = WrittenGame()
    environment = AlfworldEnvironment(game, PROMPTS, show_actions)  # type: ignore[arg-type]
    messages = environment.reset(game)  # type: ignore[arg-type]
    assert [message["role"] for message in messages] == ["user", "assistant", "user"]
    return environment, game, messages[-1]["content"]


def finish(environment: AlfworldEnvironment, replies: list[str]) -> list[Observation]:
    return [environment.step(reply) for reply in replies]


def test_a_won_game() -> None:
    environment, game, task = start()
    assert task == "Here is your task. You are in the middle of a room. You see a safe 1.\nYour task is to: open it."
    first, second = finish(environment, ["THOUGHT: hm.\n ACTION: Go to safe 1\n", "ACTION: open safe 1"])
    assert (first.text, first.done) == ("The safe 1 is closed.", False)
    assert (second.text, second.done, second.reward, second.status) == ("", True, 1.0, "completed")
    assert game.closed == 1
    with pytest.raises(RuntimeError, match="reset"):
        environment.step("ACTION: look")


def test_fixed_style_lists_actions() -> None:
    environment, game, task = start(show_actions=True)
    assert task.endswith("open it.\nAVAILABLE ACTIONS: go to ..., look, open safe 1")
    observation = environment.step("I will look around.")
    assert observation.text.startswith('Nothing happened. Your answer must hold a line "ACTION:')
    assert observation.text.endswith("\nAVAILABLE ACTIONS: go to ..., look, open safe 1")
    assert game.commands == []
    assert environment.step("ACTION: dance").text.startswith("Nothing happened.\nAVAILABLE ACTIONS: ")


@pytest.mark.parametrize(
    ("reply", "action"),
    [
        ("ACTION: look", "look"),
        ("THOUGHT: x\n ACTION: Take Apple 1 from Safe 1 \nACTION: look\n", "take apple 1 from safe 1"),
        ("look around", "look around"),
        ("  First\nsecond", "first"),
        ("ACTION:\nlook", ""),
        ("ACTION: a ACTION: b\n", "a action: b"),
        ("action: look", "action: look"),
        ("", ""),
    ],
)
def test_find_action(reply: str, action: str) -> None:
    assert find_action(reply) == action


def test_engine_gets_the_nearest_command_or_the_raw_text() -> None:
    environment, game, _ = start()
    texts = [o.text for o in finish(environment, ["please look here", "ACTION: dance", "ACTION:"])]
    assert game.commands == ["look", "dance", ""]
    assert texts == ["You see. Much.", "Nothing happens.", "Nothing happens."]  # the engine's word, as there


def test_clean_observation_removes_only_the_location() -> None:
    assert (
        clean_observation("You arrive at loc 12. On the desk 1, you see a pen 1.") == "On the desk 1, you see a pen 1."
    )
    assert clean_observation("You arrive at desk 1. On it ...") == "You arrive at desk 1. On it ..."


def test_35_steps() -> None:
    environment, _, _ = start()
    observations = finish(environment, [f"ACTION: dance {n}" for n in range(35)])
    assert not any(observation.done for observation in observations[:-1])
    assert (observations[-1].status, observations[-1].reward) == ("limit reached", 0.0)


def test_repetition_counts_from_the_fourth_step_on() -> None:
    environment, _, _ = start()
    observations = finish(environment, ["ACTION: look"] * 4)
    assert [observation.done for observation in observations] == [False, False, False, True]
    assert observations[-1].status == "repetition"
    environment, _, _ = start()
    assert finish(environment, ["ACTION: look"] * 2 + ["ACTION: look "] * 2 + ["ACTION: look"])[-1].done is False


@pytest.mark.parametrize(("show_actions", "reward"), [(False, 0.0), (True, 1.0)])
def test_a_win_by_the_third_identical_reply(show_actions: bool, reward: float) -> None:
    """The released evaluator looks for repetition first."""
    environment, game, _ = start(show_actions)
    finish(environment, ["ACTION: look", "ACTION: open safe 1", "ACTION: open safe 1"])
    game.commands.append("go to safe 1")
    observation = environment.step("ACTION: open safe 1")
    assert observation.done
    assert observation.reward == reward


def test_stop_and_close() -> None:
    environment, game, _ = start()
    observation = environment.stop("context limit")
    assert (observation.done, observation.reward, observation.status) == (True, 0.0, "context limit")
    environment.close()
    assert game.closed == 1


def test_a_failing_engine_is_a_fault() -> None:
    environment, game, _ = start()

    def fail(command: str) -> GameState:
        raise EnvironmentFault("gone")

    game.step = fail  # type: ignore[method-assign]
    with pytest.raises(EnvironmentFault, match="gone"):
        environment.step("ACTION: look")
    environment.close()
    assert game.closed == 1


def test_a_game_file_lost_within_a_run_is_a_fault() -> None:
    environment, game, _ = start()

    def fail() -> Any:
        raise UserError("game.tw-pddl: cannot be read")

    game.game = fail  # type: ignore[method-assign]
    with pytest.raises(EnvironmentFault, match="cannot be read"):
        environment.reset(game)  # type: ignore[arg-type]


def test_scores() -> None:
    episodes = [
        EpisodeScore("put", 1.0, "completed"),
        EpisodeScore("put", 0.0, "limit reached"),
        EpisodeScore("heat", 0.0, "task error"),
        EpisodeScore("heat", 1.0, "completed"),
    ]
    assert alfworld_scores(episodes) == {
        "rate": 2 / 3,
        "success_rate": 0.5,
        "success_rate_heat": 0.5,
        "success_rate_put": 0.5,
    }
    assert alfworld_scores([])["rate"] == 0.0
