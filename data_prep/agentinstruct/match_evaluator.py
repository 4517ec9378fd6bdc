"""Released rows rewritten into the form in which the evaluator prompts the model.

What differs (`recipe.md` 2.3, AgentTuning's `AgentBench.old/src/tasks`): WebShop's pages come without the evaluator's
`Observation:` and `Available Actions:`; the demonstrations of WebShop, ALFWorld and Mind2Web are missing. They are put
back as turns that are not trained. Knowledge graph and operating system hold theirs already, database has none.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from data_prep.agentinstruct.card import task_of
from data_prep.agentinstruct.mind2web_rows import parse_question
from data_prep.agentinstruct.replies import question_index
from data_prep.agentinstruct.webshop_pages import AVAILABLE_ACTIONS, OBSERVATION, learn_option_names, read_page
from megatron_agent.chat.conversation import Conversation, Turn
from megatron_agent.environments.base import Message
from megatron_agent.environments.demonstrations import load_demonstrations

AS_EVALUATED = ("kg", "os", "db")
"""Tasks whose released rows already have the evaluator's form."""
REWRITTEN = ("webshop", "alfworld", "mind2web")
# The goal sentences of ALFWorld's tasks (alfred.twl2 templates); the first that matches names the game type.
ALFWORLD_GOALS = (
    ("puttwo", re.compile(r"(put|find) two ")),
    ("clean", re.compile(r"clean |put a clean ")),
    ("heat", re.compile(r"heat |put a hot ")),
    ("cool", re.compile(r"cool |put a cool ")),
    ("examine", re.compile(r"(look at|examine) ")),
    ("put", re.compile(r"put ")),
)
ALFWORLD_TASK = re.compile(r"Your task is to: (.*)")


@dataclass
class MatchReport:
    """What a rewriting did."""

    rows: Counter[str] = field(default_factory=Counter)
    """Rows rewritten, by task."""
    wrapped_turns: Counter[str] = field(default_factory=Counter)
    """User turns put into the evaluator's wrapper, by task."""
    demonstration_turns: Counter[str] = field(default_factory=Counter)
    """Turns added, by task."""
    as_evaluated: Counter[str] = field(default_factory=Counter)
    """Rows left as they are, since they have the evaluator's form, by task."""
    undecided_pages: list[str] = field(default_factory=list)
    """`id: turn n` of WebShop pages of which it could not be told which texts are names of options."""
    failed: dict[str, str] = field(default_factory=dict)
    """Id to the reason why a row could not be rewritten."""


class CannotRewriteError(Exception):
    """A row has none of the forms that are known; the message says what is missing."""


def match_evaluator(
    conversations: Sequence[Conversation], demonstrations: str | Path | None = None
) -> tuple[list[Conversation], MatchReport]:
    """Return the rows in the evaluator's form, in their order; those in `failed` are returned as they came.

    `demonstrations` is a folder with AgentBench's prompt files (default: this project's own demonstrations). Rewriting
    a row twice changes nothing more. Raises `UserError` when a demonstration that is needed cannot be read.
    """
    report = MatchReport()
    shown = {
        task: load_demonstrations(task, demonstrations)
        for task in REWRITTEN
        if any(task_of(conversation) == task for conversation in conversations)
    }
    option_names = learn_option_names(
        turn.value
        for conversation in conversations
        if task_of(conversation) == "webshop"
        for turn in conversation.turns
        if turn.speaker == "human"
    )
    rewritten = []
    for conversation in conversations:
        task = task_of(conversation)
        try:
            if task in AS_EVALUATED:
                report.as_evaluated[task] += 1
            elif task == "webshop":
                conversation = match_webshop(conversation, shown[task][""], option_names, report)
            elif task == "alfworld":
                game = game_type(conversation)
                conversation = with_demonstration(conversation, 2, shown[task][game], report)
            elif task == "mind2web":
                question = conversation.turns[question_index(conversation)].value
                if parse_question(question) is None:
                    raise CannotRewriteError(
                        "the question is not in the released form (page, task, previous actions, choices)"
                    )
                conversation = with_demonstration(conversation, 0, shown[task][""], report)
            else:
                raise CannotRewriteError(f"{task!r} is not a task of AgentInstruct")
        except CannotRewriteError as error:
            report.failed[conversation.id] = str(error)
        rewritten.append(conversation)
    return rewritten, report


def match_webshop(
    conversation: Conversation, demonstration: list[Message], option_names: frozenset[str], report: MatchReport
) -> Conversation:
    """Wrap the pages of a WebShop row, and put the demonstration after the acknowledgement."""
    turns, wrapped, undecided = list(conversation.turns), 0, []
    for index, turn in enumerate(turns[2:], start=2):
        if turn.speaker != "human" or turn.value.startswith(OBSERVATION):
            continue
        try:
            page = read_page(turn.value, option_names)
        except ValueError as error:
            raise CannotRewriteError(f"turn {index + 1}: not a page of WebShop ({error})") from error
        if page.undecided:
            undecided.append(f"{conversation.id}: turn {index + 1}")
        text = f"{OBSERVATION}{turn.value.strip()}{AVAILABLE_ACTIONS}{page.available_actions()}"
        turns[index] = replace(turn, value=text)
        wrapped += 1
    result = with_demonstration(replace(conversation, turns=tuple(turns)), 2, demonstration, report, bool(wrapped))
    report.wrapped_turns["webshop"] += wrapped
    report.undecided_pages += undecided
    return result


def with_demonstration(
    conversation: Conversation, position: int, messages: list[Message], report: MatchReport, changed: bool = False
) -> Conversation:
    """Insert a demonstration as context turns at `position`, unless one is there; count the row.

    One is there when the first reply from `position` on is not trained. Position 2 follows the instruction and its
    acknowledgement, which must not be trained.
    """
    task = task_of(conversation)
    turns = conversation.turns
    if position and (len(turns) < position + 2 or turns[0].speaker != "human" or turns[1].trained):
        raise CannotRewriteError("does not begin with an instruction and an acknowledgement that is not trained")
    if turns[position + 1].trained:
        shown = tuple(
            Turn("gpt", message["content"], loss=False)
            if message["role"] == "assistant"
            else Turn("human", message["content"])
            for message in messages
        )
        conversation = replace(conversation, turns=turns[:position] + shown + turns[position:])
        report.demonstration_turns[task] += len(shown)
        changed = True
    (report.rows if changed else report.as_evaluated)[task] += 1
    return conversation


def game_type(conversation: Conversation) -> str:
    """Return the ALFWorld game type that a row's goal sentence names."""
    match = ALFWORLD_TASK.search(conversation.turns[question_index(conversation)].value)
    goal = match[1].strip() if match else ""
    for game, pattern in ALFWORLD_GOALS:
        if pattern.match(goal):
            return game
    raise CannotRewriteError(f"the goal {goal!r} is none of ALFWorld's six kinds")
