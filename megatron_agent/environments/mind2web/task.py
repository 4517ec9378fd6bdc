"""The steps of Mind2Web, read from its own test files; AgentBench counts each step as a task."""

import logging
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from megatron_agent.chat.conversation import refuse_lone_surrogates
from megatron_agent.environments.json_entries import stream_entries
from megatron_agent.environments.mind2web.candidate_scores import Ranks
from megatron_agent.environments.mind2web.page import Dom, Page
from megatron_agent.environments.mind2web.question import OPERATIONS
from megatron_agent.errors import UserError

_LOG = logging.getLogger(__name__)

TOP_CANDIDATES = 10
SEED = 123


@dataclass(frozen=True)
class Mind2WebTask:
    """One step of a recorded task: a page, the actions before it, and the elements one of which is right.

    `candidates` are the ten best of the ranker in the order of the tournament, `gold` those of them that are right
    (none: the step counts 0, whatever is answered).
    """

    id: str
    website: str
    domain: str
    confirmed_task: str
    previous_actions: tuple[str, ...]
    operation: str
    value: str
    page: Page
    gold: tuple[str, ...]
    candidates: tuple[str, ...]

    @property
    def category(self) -> str:
        return f"{self.domain}/{self.website}"


def read_mind2web_tasks(path: Path, ranks: Ranks | None, ranks_name: str = "--mind2web-scores") -> list[Mind2WebTask]:
    """Read the steps of a Mind2Web file, or of all `*.json` files of a folder, by name.

    `ranks` are the ranker's (`ranks_name` is their file); None takes candidates in document order. The ten best
    candidates of each step, right ones first, are shuffled by one generator with seed 123, step after step: the
    order of AgentBench with one worker and a client that draws nothing from the same generator.

    Raises UserError naming file, item, action and field for anything that is not Mind2Web's schema, for a candidate
    that has no rank or no place on its page, and for a step that comes twice. `raw_html` is not read.
    """
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    files = [file for file in files if not file.name.startswith("scores_")]
    if not files:
        raise UserError(f"{path}: expected Mind2Web's files (*.json) there, found none")
    shuffle = random.Random(SEED).shuffle
    tasks: list[Mind2WebTask] = []
    seen: dict[str, str] = {}
    for file in files:
        for number, record in stream_entries(file, list):
            where = f"{file} item {number}"
            if not isinstance(record, dict):
                raise UserError(f"{where}: expected a task of Mind2Web (a JSON object), got {type(record).__name__}")
            for action_where, task in _steps(record, where, ranks, ranks_name):
                if task.id in seen:
                    raise UserError(f"{action_where}: step {task.id!r} was already read at {seen[task.id]}")
                seen[task.id] = action_where
                tasks.append(_in_tournament_order(task, shuffle))
    if not tasks:
        raise UserError(f"{path}: expected at least one step of Mind2Web, found none")
    missed = sum(not task.gold for task in tasks)
    _LOG.info("%s: %d steps, %d of them without the right element among the first ten", path, len(tasks), missed)
    return tasks


def _in_tournament_order(task: Mind2WebTask, shuffle: Callable[[list[str]], None]) -> Mind2WebTask:
    if not task.gold:  # never played, and takes nothing from the generator
        return task
    candidates = list(task.candidates)
    shuffle(candidates)
    return replace(task, candidates=tuple(candidates))


def _steps(
    record: Mapping[str, Any], where: str, ranks: Ranks | None, ranks_name: str
) -> Iterator[tuple[str, Mind2WebTask]]:
    annotation_id = _text(record, "annotation_id", where)
    where = f"{where} ({annotation_id})"
    confirmed_task = _text(record, "confirmed_task", where)
    website = _text(record, "website", where)
    domain = _text(record, "domain", where) if "domain" in record else "unknown"
    actions, reprs = _list(record, "actions", where), _list(record, "action_reprs", where)
    for index, text in enumerate(reprs):
        _checked(text, f'{where}: "action_reprs" {index}')
    for index, action in enumerate(actions):
        action_where = f"{where} action {index}"
        if not isinstance(action, dict):
            raise UserError(f"{action_where}: expected a JSON object, got {type(action).__name__}")
        step_id = f"{annotation_id}_{_text(action, 'action_uid', action_where)}"
        operation, value = _operation(action.get("operation"), action_where)
        html = _text(action, "cleaned_html", action_where)
        dom = Dom(html, action_where)
        right = _node_ids(action, "pos_candidates", action_where)
        wrong = _node_ids(action, "neg_candidates", action_where)
        if ranks is None:
            in_order = dom.in_document_order(right + wrong)
            ranking: Mapping[str, int] = {node_id: rank for rank, node_id in enumerate(in_order)}
        else:
            ranking = _ranking(ranks, step_id, right + wrong, f"{action_where}: {ranks_name}")
        gold, others = ([node for node in nodes if ranking[node] < TOP_CANDIDATES] for nodes in (right, wrong))
        for node_id in gold + others:
            dom.check_candidate(node_id, action_where)
        yield (
            action_where,
            Mind2WebTask(
                id=step_id,
                website=website,
                domain=domain,
                confirmed_task=confirmed_task,
                previous_actions=tuple(reprs[:index]),
                operation=operation,
                value=value,
                page=Page.from_html(html),
                gold=tuple(gold),
                candidates=tuple(gold + others),
            ),
        )


def _ranking(ranks: Ranks, step_id: str, candidates: Sequence[str], where: str) -> Mapping[str, int]:
    ranking = ranks.get(step_id)
    if ranking is None:
        raise UserError(f"{where}: holds no ranks of step {step_id!r}; these scores are of other tasks")
    for node_id in candidates:
        rank = ranking.get(node_id)
        if isinstance(rank, bool) or not isinstance(rank, int | float):
            raise UserError(
                f"{where}: expected a rank (a number) of candidate {node_id!r} of {step_id!r}, got {rank!r}"
            )
    return ranking


def _operation(value: object, where: str) -> tuple[str, str]:
    if not isinstance(value, dict) or value.get("op") not in OPERATIONS:
        raise UserError(
            f'{where}: expected "operation" with "op" one of {", ".join(OPERATIONS)}, got {str(value)[:80]}'
        )
    return value["op"], _checked(value.get("value", ""), f'{where}: "operation": "value"')


def _node_ids(action: Mapping[str, Any], key: str, where: str) -> list[str]:
    node_ids = []
    for index, candidate in enumerate(_list(action, key, where)):
        if not isinstance(candidate, dict):
            raise UserError(f'{where}: "{key}" {index}: expected a JSON object, got {type(candidate).__name__}')
        node_ids.append(_text(candidate, "backend_node_id", f'{where}: "{key}" {index}'))
    return node_ids


def _list(record: Mapping[str, Any], key: str, where: str) -> list[Any]:
    value = record.get(key)
    if not isinstance(value, list):
        raise UserError(f'{where}: expected "{key}" to be a list, got {str(value)[:60]!r}')
    return value


def _text(record: Mapping[str, Any], key: str, where: str) -> str:
    value = _checked(record.get(key), f'{where}: "{key}"')
    if not value:
        raise UserError(f'{where}: expected "{key}" to be a non-empty string')
    return value


def _checked(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{where}: expected a string, got {str(value)[:60]!r}")
    refuse_lone_surrogates(value, where)
    return value
