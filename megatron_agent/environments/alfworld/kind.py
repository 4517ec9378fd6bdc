"""ALFWorld as the harness knows it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from megatron_agent.environments.alfworld.engine import EnginePool
from megatron_agent.environments.alfworld.environment import AlfworldEnvironment
from megatron_agent.environments.alfworld.game import GRAMMARS
from megatron_agent.environments.alfworld.prompts import load_prompts
from megatron_agent.environments.alfworld.task import AlfworldTask, read_game_folder, read_game_list, read_shipped
from megatron_agent.environments.alfworld.wheel import alfworld_folder, engine_version
from megatron_agent.environments.base import Message
from megatron_agent.environments.choices import check_choice
from megatron_agent.environments.scores import mean, reward_by_category
from megatron_agent.environments.task_files import TaskSet
from megatron_agent.environments.task_kind import EpisodeScore, TaskKind, World, WorldOptions
from megatron_agent.errors import UserError
from megatron_agent.processes import available_cores

TASK_SET = TaskSet(
    shipped=Path(__file__).with_name("shipped.jsonl"),
    splits={
        "dev": ("alfworld/dev.json",),
        "std": ("alfworld/std.json", "alfworld/standard.json"),
        "train": ("alfworld/train_valid.json",),
    },
)


@dataclass(frozen=True)
class AlfworldOptions(WorldOptions):
    """What a user may choose for ALFWorld."""

    alfworld_games: Path | None = field(
        default=None,
        metadata={
            "help": "ALFWorld's data folder (holds json_2.1.1; default $ALFWORLD_DATA), where the games of --tasks "
            "are; without --tasks every game below it is played"
        },
    )
    alfworld_grammar: str = field(
        default="put",
        metadata={"help": "put: `put a in/on b`, as in the paper; move: `move a to b`, as from alfworld 0.4 on"},
    )
    alfworld_workers: int | None = field(
        default=None, metadata={"help": "processes of the game engine, which all episodes share (default: cores)"}
    )


@contextmanager
def open_alfworld(options: AlfworldOptions) -> Iterator[World]:
    """Read the list of games and set up the engine's processes, which start with the first game."""
    check_choice("--prompt-style", options.prompt_style, TASK_KIND.prompt_styles)
    check_choice("--alfworld-grammar", options.alfworld_grammar, GRAMMARS)
    if options.alfworld_workers is not None and options.alfworld_workers < 1:
        raise UserError(f"--alfworld-workers: expected at least 1, got {options.alfworld_workers}")
    alfworld_folder()  # says what to install
    tasks = read_tasks(options)
    prompts = load_prompts(options.prompt_style, options.alfworld_grammar, options.prompt_file)
    engines = EnginePool(options.alfworld_workers or available_cores())
    try:
        yield World(
            tasks,
            lambda: AlfworldEnvironment(engines, prompts, show_actions=options.prompt_style == "fixed"),
            {"engine": engine_version()},
        )
    finally:
        engines.close()


def read_tasks(options: AlfworldOptions) -> list[AlfworldTask]:
    """Return the games that the options name."""
    if options.tasks is None and options.split is None and options.alfworld_games is not None:
        return read_game_folder(options.alfworld_games, options.alfworld_grammar)
    path = TASK_SET.find(options)
    if path == TASK_SET.shipped:
        return read_shipped(path, options.alfworld_grammar)
    return read_game_list(path, options.alfworld_games, options.alfworld_grammar)


def alfworld_scores(episodes: Sequence[EpisodeScore]) -> dict[str, float]:
    """Return AgentTuning's `rate`, the share of games won among those that raised no error; and of all games.

    `success_rate` counts games the machinery failed in (status `task error`) as lost; the rates by type do too.
    """
    played = [episode for episode in episodes if episode.status != "task error"]
    by_type = {f"success_rate_{name}": rate for name, rate in reward_by_category(episodes).items()}
    return {
        "rate": mean(episode.reward for episode in played),
        "success_rate": mean(episode.reward for episode in episodes),
        **by_type,
    }


def alfworld_expert(task: AlfworldTask) -> Callable[[Sequence[Message]], str]:
    """Return an expert that replays the walkthrough stored with the game."""
    commands = iter(task.walkthrough())

    def reply(messages: Sequence[Message]) -> str:
        return f"ACTION: {next(commands, 'look')}"

    return reply


TASK_KIND = TaskKind(
    name="alfworld",
    title="ALFWorld",
    options=AlfworldOptions,
    open=open_alfworld,
    metrics=alfworld_scores,
    main_metric="rate",
    weight=20.0,
    expert=alfworld_expert,
)
