"""A seventh task in one file: python -m megatron_agent.evaluate --task docs/examples/guess_number.py --expert ..."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from megatron_agent.environments.base import Message, Observation, Status
from megatron_agent.environments.prompts import read_prompt
from megatron_agent.environments.task_files import TaskSet
from megatron_agent.environments.task_kind import EpisodeScore, Expert, TaskKind, World, WorldOptions
from megatron_agent.errors import UserError

MAX_ROUNDS = 10
INSTRUCTION = "I think of a whole number from 1 to {highest}. Think, then guess on a new line: Action: guess[NUMBER]"


@dataclass(frozen=True)
class GuessOptions(WorldOptions):
    """What the user may choose: each field becomes a flag, this one --guess-highest."""

    guess_highest: int = field(default=100, metadata={"help": "greatest number there is"})


@dataclass(frozen=True)
class GuessTask:
    """One episode. Its `repr` is hashed, so that a resumed run is known to play the same tasks."""

    id: str
    category: str  # scores are broken down by it
    number: int


class GuessEnvironment:
    """Text in, text out: `reset`, then `step` for each reply until it says `done`."""

    def __init__(self, context: list[Message], strict: bool) -> None:
        self.context, self.strict = context, strict

    def reset(self, task: GuessTask) -> list[Message]:
        self.task, self.rounds = task, 0
        return [*self.context, {"role": "user", "content": "What is the number?"}]

    def step(self, reply: str) -> Observation:
        self.rounds += 1
        guess = re.search(r"Action: guess\[(\d{1,9})\]", reply)
        if guess and int(guess[1]) == self.task.number:
            return Observation("", done=True, reward=1.0, status="completed", scores={"guesses": self.rounds})
        if self.rounds == MAX_ROUNDS or (guess is None and self.strict):
            return self.stop("invalid format" if guess is None else "limit reached")
        if guess is None:
            return Observation("I understand only this form: Action: guess[NUMBER]", done=False)
        return Observation("Higher." if int(guess[1]) < self.task.number else "Lower.", done=False)

    def stop(self, status: Status) -> Observation:
        return Observation("", done=True, reward=0.0, status=status)

    def close(self) -> None:
        """Nothing to release: no sandbox, no connection."""


@contextmanager
def open_guess(options: GuessOptions) -> Iterator[World]:
    """Read the tasks, start what they need, and stop it at the end."""
    if options.guess_highest < 4:
        raise UserError(f"--guess-highest: expected at least 4, got {options.guess_highest}")
    numbers = list(range(1, options.guess_highest + 1, options.guess_highest // 4))
    if options.tasks or options.split:
        words = TaskSet(shipped=Path()).find(options).read_text(encoding="utf-8").split()
        if wrong := [word for word in words if not word.isdecimal()]:
            raise UserError(f"--tasks {options.tasks}: expected whole numbers, got {wrong[0]!r}")
        numbers = [int(word) for word in words]
    tasks = [GuessTask(f"guess_{n}", "even" if n % 2 == 0 else "odd", n) for n in numbers]
    instruction = INSTRUCTION.format(highest=options.guess_highest)
    own = [{"role": "user", "content": instruction}, {"role": "assistant", "content": "Ok."}]
    context = read_prompt(options.prompt_file) if options.prompt_file else own
    strict = options.prompt_style == "paper"  # as released evaluators are; "fixed" tells the model instead
    yield World(tasks, lambda: GuessEnvironment(context, strict), facts={"highest": options.guess_highest})


def success_rate(episodes: Sequence[EpisodeScore]) -> dict[str, float]:
    """The scores of a run, each from 0 to 1; `main_metric` below names the one that is reported."""
    return {"success_rate": sum(episode.reward for episode in episodes) / len(episodes) if episodes else 0.0}


def make_expert(task: GuessTask) -> Expert:
    """The gold solution, which `--expert` plays."""
    return lambda messages: f"I know it.\nAction: guess[{task.number}]"


TASK_KIND = TaskKind(
    name="guess_number",
    title="Guess the number",
    options=GuessOptions,
    open=open_guess,
    metrics=success_rate,
    main_metric="success_rate",
    expert=make_expert,
)
