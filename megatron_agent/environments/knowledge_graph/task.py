"""Questions of the Knowledge Graph task, read from AgentBench's knowledgegraph files (one JSON list)."""

import json
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_agent.chat.conversation import refuse_lone_surrogates, require_file
from megatron_agent.errors import UserError
from megatron_agent.files import open_decompressed

CALL = re.compile(r"(\w+)\((.+)\)")


@dataclass(frozen=True)
class KnowledgeGraphTask:
    """One question: the entities it names, gold calls if known, and the ids or values of its answer.

    `graph` is the IRI of the named graph the question is asked of (None: the store's default graph).
    """

    id: str
    question: str
    category: str
    entities: tuple[tuple[str, str], ...]
    actions: tuple[str, ...]
    answer: tuple[str, ...]
    s_expression: str = ""
    graph: str | None = None


def read_knowledge_graph_tasks(path: str | Path) -> list[KnowledgeGraphTask]:
    """Read every question of dev.json, std.json, kg_rl_all.json, or of a file the graph builder wrote.

    Tolerated by name: a missing or null `qid` (named `<file stem>_<row number from 0>`), a missing `source` (category
    `unknown`), `s_expression`, `actions` or `graph`, answers without `answer_type` or `entity_name`, answers that
    are numbers, and the same answer twice. Fields this environment does not use are ignored.

    Raises UserError naming file, item and field for anything else, lone surrogates anywhere included.
    """
    path = require_file(path)
    tasks: list[KnowledgeGraphTask] = []
    seen: dict[str, str] = {}
    for index, record in enumerate(_records(path)):
        where = f"{path}: item {index}"
        task = parse_knowledge_graph_task(record, where, default_id=f"{path.name.split('.')[0]}_{index}")
        if task.id in seen:
            raise UserError(f"{where}: qid {task.id!r} was already used at {seen[task.id]}; ids must be unique")
        seen[task.id] = where
        tasks.append(task)
    if not tasks:
        raise UserError(f"{path}: expected at least one question, found none")
    return tasks


def parse_knowledge_graph_task(record: object, where: str, default_id: str) -> KnowledgeGraphTask:
    """Turn one record into a task; `where` (file and item) opens every error message."""
    if not isinstance(record, dict):
        raise UserError(f"{where}: expected an object with a question, got {type(record).__name__}")
    refuse_lone_surrogates(json.dumps(record, ensure_ascii=False), where)
    identifier = record.get("qid")
    if identifier is None:
        identifier = default_id
    if isinstance(identifier, bool) or not isinstance(identifier, str | int) or identifier == "":
        raise UserError(f'{where}: expected "qid" to be a non-empty string or a whole number, got {identifier!r}')
    where = f"{where} (qid {identifier})"
    entities = record.get("entities")
    if not isinstance(entities, dict) or not all(isinstance(mid, str) and mid for mid in entities.values()):
        raise UserError(f'{where}: expected "entities" to be an object of names and ids, got {str(entities)[:80]!r}')
    graph = record.get("graph")
    if graph is not None and (not isinstance(graph, str) or not re.fullmatch(r'[a-z]+://[^\s<>"{}|\\^`]+', graph)):
        raise UserError(f'{where}: expected "graph" to be the IRI of a named graph, got {graph!r}')
    return KnowledgeGraphTask(
        id=str(identifier),
        question=_text(record, "question", where),
        category=_text({"source": "unknown", **record}, "source", where),
        entities=tuple(entities.items()),
        actions=_actions(record.get("actions"), where),
        answer=_answer(record.get("answer"), where),
        s_expression=record["s_expression"] if isinstance(record.get("s_expression"), str) else "",
        graph=graph,
    )


def task_to_record(task: KnowledgeGraphTask) -> dict[str, Any]:
    """Return a task in AgentBench's layout, with `graph` beside it."""
    return {
        "question": task.question,
        "qid": task.id,
        "source": task.category,
        "entities": dict(task.entities),
        "s_expression": task.s_expression,
        "actions": list(task.actions),
        "answer": [{"answer_argument": answer} for answer in task.answer],
        "graph": task.graph,
    }


def split_call(action: str) -> tuple[str, list[str]]:
    """Return name and arguments of a gold call, such as `get_neighbors(m.0f8l9c,location.country.capital)`."""
    match = CALL.fullmatch(action.strip())
    if match is None:
        raise ValueError(f"{action!r} is not a call")
    return match[1], re.split(r"\s*,\s*", match[2].strip())


def _records(path: Path) -> list[Any]:
    try:
        with open_decompressed(path) as handle:
            data = json.loads(handle.read().decode("utf-8"))
    except (EOFError, zlib.error, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON: {error}; expected one list of questions") from error
    if not isinstance(data, list):
        raise UserError(f"{path}: expected a list of questions, got {type(data).__name__}")
    return data


def _text(record: dict[str, Any], key: str, where: str) -> str:
    value = record.get(key)
    if not isinstance(value, str) or not value.strip():
        raise UserError(f'{where}: expected "{key}" to be a non-empty string, got {value!r}')
    return value


def _actions(value: object, where: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise UserError(f'{where}: expected "actions" to be a list of calls, got {type(value).__name__}')
    for action in value:
        if not isinstance(action, str) or CALL.fullmatch(action.strip()) is None:
            raise UserError(f'{where}: expected "actions" to list calls such as count(#0), got {action!r}')
    return tuple(value)


def _answer(value: object, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise UserError(f'{where}: expected "answer" to be a non-empty list, got {str(value)[:80]!r}')
    answers: dict[str, None] = {}
    for entry in value:
        argument = entry.get("answer_argument") if isinstance(entry, dict) else None
        if isinstance(argument, bool) or not isinstance(argument, str | int | float) or argument == "":
            raise UserError(f'{where}: expected every answer to have "answer_argument", an id or value, got {entry!r}')
        answers[str(argument)] = None
    return tuple(answers)
