"""The Operating System task as the harness knows it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from megatron_agent.environments.base import Message
from megatron_agent.environments.choices import check_choice
from megatron_agent.environments.operating_system.bubblewrap import open_bubblewrap
from megatron_agent.environments.operating_system.docker_backend import open_docker
from megatron_agent.environments.operating_system.environment import (
    PROMPT_STYLES,
    OperatingSystemEnvironment,
    reference_answer,
)
from megatron_agent.environments.operating_system.grammar import EMPTY_OUTPUT
from megatron_agent.environments.operating_system.sandbox import Limits, OpenProvider
from megatron_agent.environments.operating_system.task import OperatingSystemTask, read_tasks
from megatron_agent.environments.prompts import read_prompt
from megatron_agent.environments.scores import mean, reward_by_category
from megatron_agent.environments.task_files import TaskSet
from megatron_agent.environments.task_kind import EpisodeScore, Expert, Fact, TaskKind, World, WorldOptions
from megatron_agent.errors import UserError

TASK_SET = TaskSet(
    shipped=Path(__file__).with_name("shipped.json"),
    splits={
        "dev": ("os_interaction/data/dev.json",),
        "std": ("os_interaction/data",),
        "train": ("os_interaction/data/train_0317/training.json", "os_interaction/train_0317/training.json"),
    },
)
SANDBOXES = ("bubblewrap", "docker")


@dataclass(frozen=True)
class OperatingSystemOptions(WorldOptions):
    """What may be chosen for the operating-system task."""

    operating_system_sandbox: str = field(
        default="bubblewrap", metadata={"help": "where commands run: bubblewrap, or docker (a running engine)"}
    )
    operating_system_rootfs: Path | None = field(
        default=None,
        metadata={"help": "bubblewrap: root file system, as debootstrap makes one (default: the host's programs)"},
    )
    operating_system_scripts: Path | None = field(
        default=None, metadata={"help": "AgentBench's data/os_interaction/scripts (default: this project's own)"}
    )
    operating_system_seconds: float = field(
        default=5.0, metadata={"help": "seconds a command may take; the released evaluator waited 5"}
    )
    operating_system_memory: int = field(default=512, metadata={"help": "memory of an episode, MiB"})
    operating_system_disk: int = field(default=256, metadata={"help": "what an episode may write, MiB (in memory)"})
    operating_system_processes: int = field(default=128, metadata={"help": "processes of an episode"})


@contextmanager
def open_operating_system(options: OperatingSystemOptions) -> Iterator[World]:
    """Read the tasks, look whether sandboxes start, and give environments with one each."""
    for name in ("seconds", "memory", "disk", "processes"):
        if getattr(options, f"operating_system_{name}") <= 0:
            raise UserError(f"--operating-system-{name}: expected a number above 0")
    if options.operating_system_scripts is not None and not options.operating_system_scripts.is_dir():
        raise UserError(f"--operating-system-scripts {options.operating_system_scripts}: no such folder")
    tasks = read_tasks(TASK_SET.find(options), options.operating_system_scripts)
    prompt = read_prompt(options.prompt_file) if options.prompt_file is not None else None
    limits = Limits(
        command_seconds=options.operating_system_seconds,
        memory_mib=options.operating_system_memory,
        disk_mib=options.operating_system_disk,
        processes=options.operating_system_processes,
    )
    check_choice("--operating-system-sandbox", options.operating_system_sandbox, SANDBOXES)
    provider_context: OpenProvider
    if options.operating_system_sandbox == "bubblewrap":
        provider_context = open_bubblewrap(options.operating_system_rootfs, limits)
    else:
        if options.operating_system_rootfs is not None:
            raise UserError("--operating-system-rootfs: only bubblewrap takes one; docker has images")
        provider_context = open_docker(limits)
    with provider_context as provider:

        def make_environment() -> OperatingSystemEnvironment:
            return OperatingSystemEnvironment(
                provider, options.prompt_style, prompt, command_seconds=limits.command_seconds
            )

        make_environment()  # refuses a wrong --prompt-style now
        yield World(tasks, make_environment, _facts(options))


def _facts(options: OperatingSystemOptions) -> dict[str, Fact]:
    root = options.operating_system_rootfs
    return {
        "sandbox": options.operating_system_sandbox,
        "rootfs": str(root.resolve()) if root is not None else None,
        "seconds": options.operating_system_seconds,
        "memory_mib": options.operating_system_memory,
        "disk_mib": options.operating_system_disk,
        "processes": options.operating_system_processes,
    }


def success_rates(episodes: Sequence[EpisodeScore]) -> dict[str, float]:
    """Return the success rate over all episodes (the paper's number), and by category where there are several."""
    by_category = reward_by_category(episodes)
    rates = {"success_rate": mean(episode.reward for episode in episodes)}
    if len(by_category) > 1:
        rates.update({f"success_rate/{name}": rate for name, rate in by_category.items()})
    return rates


def expert(task: OperatingSystemTask) -> Expert:
    """Replay a task's reference solution: its commands one a turn, then their last output as the answer.

    A task with neither commands nor example is answered with what it is matched against.
    """
    commands = list(task.solution) or ([task.example.code] if task.example is not None else [])
    if not commands and (task.match is None or task.match.answer is None):
        raise UserError(f"task {task.id} has no reference solution to replay")
    turns = iter(commands)

    def reply(messages: Sequence[Message]) -> str:
        command = next(turns, None)
        if command is not None:
            return f"Think: The next part of the reference solution.\n\nAct: bash\n\n```bash\n{command}\n```"
        text = messages[-1]["content"]
        output = text.partition("\n\n")[2] if text != EMPTY_OUTPUT else ""
        return f"Think: That was all.\n\n{reference_answer(task, output)}"

    return reply


TASK_KIND = TaskKind(
    name="operating_system",
    title="Operating System",
    options=OperatingSystemOptions,
    open=open_operating_system,
    metrics=success_rates,
    main_metric="success_rate",
    weight=19.0,
    expert=expert,
    prompt_styles=PROMPT_STYLES,
)
