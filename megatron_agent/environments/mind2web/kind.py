"""Mind2Web as the harness knows it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from megatron_agent.environments.choices import check_choice
from megatron_agent.environments.demonstrations import load_demonstrations
from megatron_agent.environments.mind2web.candidate_scores import FILE_NAMES, find_scores, read_ranks
from megatron_agent.environments.mind2web.environment import PROMPT_STYLES, Mind2WebEnvironment
from megatron_agent.environments.mind2web.expert import gold_replay
from megatron_agent.environments.mind2web.scoring import mind2web_metrics
from megatron_agent.environments.mind2web.task import read_mind2web_tasks
from megatron_agent.environments.prompts import read_prompt
from megatron_agent.environments.task_files import TaskSet
from megatron_agent.environments.task_kind import TaskKind, World, WorldOptions
from megatron_agent.errors import UserError

TASK_SET = TaskSet(
    shipped=Path(__file__).with_name("shipped") / "tasks.json",
    splits={
        "dev": ("data_dev", "mind2web/data_dev"),
        "std": ("data_std", "mind2web/data_std"),
        "train": ("train", "mind2web/train"),
    },
)
"""Folders of AgentBench's docker image (`/root/work/data`), and Mind2Web's own for training."""

CANDIDATES = ("ranked", "document")


@dataclass(frozen=True)
class Mind2WebOptions(WorldOptions):
    """What Mind2Web adds: how the ten candidates of a step are found."""

    mind2web_candidates: str = field(
        default="ranked",
        metadata={
            "help": "ranked: the ten best of the candidate ranker's scores; document: the first ten of the page "
            "(the right element is then mostly not among them)"
        },
    )
    mind2web_scores: Path | None = field(
        default=None,
        metadata={
            "help": "the ranker's scores, scores_all_data.pkl or the same as JSON (default: beside the tasks or one "
            "folder up)"
        },
    )


@contextmanager
def open_mind2web(options: Mind2WebOptions) -> Iterator[World]:
    """Read the steps and the ranks of their candidates; environments share nothing but them."""
    check_choice("--prompt-style", options.prompt_style, PROMPT_STYLES)
    check_choice("--mind2web-candidates", options.mind2web_candidates, CANDIDATES)
    path = _tasks_path(options)
    if options.mind2web_candidates == "document":
        if options.mind2web_scores is not None:
            raise UserError("--mind2web-candidates document: takes no --mind2web-scores; leave one of them away")
        tasks = read_mind2web_tasks(path, None)
    else:
        scores = options.mind2web_scores or find_scores(path)
        if scores is None:
            raise UserError(
                f"--tasks {path}: found no {' or '.join(FILE_NAMES)} beside it or one folder up; pass the scores of "
                "the candidate ranker with --mind2web-scores, or choose --mind2web-candidates document (the first ten "
                "elements of the page, with which most steps cannot succeed)"
            )
        tasks = read_mind2web_tasks(path, read_ranks(scores), str(scores))
    if options.prompt_file is not None:
        demonstrations = read_prompt(options.prompt_file)
    else:
        demonstrations = load_demonstrations("mind2web")[""]
    yield World(
        tasks,
        lambda: Mind2WebEnvironment(demonstrations, options.prompt_style),
        {"candidates": options.mind2web_candidates},
    )


def _tasks_path(options: WorldOptions) -> Path:
    """Return the file or folder of tasks; a folder that holds Mind2Web's files itself (`test_task`) has no splits."""
    if options.tasks is not None and options.split is None and any(options.tasks.glob("*.json")):
        return options.tasks
    return TASK_SET.find(options)


TASK_KIND = TaskKind(
    name="mind2web",
    title="Mind2Web",
    options=Mind2WebOptions,
    open=open_mind2web,
    metrics=mind2web_metrics,
    main_metric="step_sr",
    weight=9.0,
    expert=gold_replay,
    prompt_styles=PROMPT_STYLES,
)
