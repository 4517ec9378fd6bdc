"""Tables filled, questions drawn, labels computed by running the gold SQL."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from data_prep.database_tasks.families import FAMILIES, Family
from data_prep.database_tasks.questions import KINDS, Draft, Question, random_number
from megatron_agent.environments.database.backend import SqliteBackend
from megatron_agent.environments.database.task import MODIFICATIONS, DatabaseTask, Table, describe_table
from megatron_agent.environments.literals import literal_eval
from megatron_agent.errors import UserError


@dataclass(frozen=True)
class GeneratedTask:
    """A task with the gold statement and the thought the scripted expert writes before it."""

    task: DatabaseTask
    question: Question


def generate_tasks(split: str, count: int, seed: int) -> list[GeneratedTask]:
    """Return `count` tasks over the families of `split` (train or test); the same for the same seed.

    Kinds and families take turns, so that a small set holds all of them. Questions do not repeat. A draft
    whose gold answer is empty, ambiguous (ties in a ranking) or not exact in decimals is drawn again.
    """
    if split not in FAMILIES:
        raise UserError(f"--split: expected one of {', '.join(FAMILIES)}, got {split!r}")
    if count < 1:
        raise UserError(f"--count: expected at least 1, got {count}")
    rng = random.Random(f"{split} {seed}")
    families = _in_turns(FAMILIES[split], rng)
    generated: list[GeneratedTask] = []
    seen: set[str] = set()
    backend = SqliteBackend()
    while len(generated) < count:
        kind = KINDS[len(generated) % len(KINDS)]
        draft = draw_table(next(families), rng)
        question = kind(draft, split, rng)
        table = Table(draft.table, draft.columns, draft.rows)
        label = gold_label(question, draft, table, backend)
        if label is None or question.text in seen:
            continue
        seen.add(question.text)
        modifies = question.category in MODIFICATIONS
        task = DatabaseTask(
            id=f"database_{split}_{seed}_{len(generated)}",
            question=question.text,
            table_description=describe_table(table),
            table=table,
            category=question.category,
            label=() if modifies else tuple(label),
            answer_md5=label[0] if modifies else None,
            gold_sql=question.sql,
        )
        generated.append(GeneratedTask(task, question))
    backend.close()
    return generated


def draw_table(family: Family, rng: random.Random) -> Draft:
    """Fill a table of a family: 5 to 8 rows of the key and two or three text and number columns."""
    text_count, number_count = rng.choice(((1, 1), (1, 2), (2, 1)))
    texts = rng.sample(sorted(family.texts), text_count)
    numbers = rng.sample(sorted(family.numbers), number_count)
    others = [*texts, *numbers]
    rng.shuffle(others)
    columns = (family.key, *others)
    size = rng.randint(5, min(8, len(family.key_values) - 1))
    cells: dict[str, list[str]] = {family.key: rng.sample(family.key_values, size)}
    for column in texts:
        few = rng.sample(family.texts[column], 3)  # few values, so that they repeat
        cells[column] = [rng.choice(few) for _ in range(size)]
    for column in numbers:
        cells[column] = [random_number(family.numbers[column], rng) for _ in range(size)]
    rows = tuple(zip(*(cells[column] for column in columns), strict=True))
    return Draft(family, rng.choice(family.tables), columns, rows, tuple(texts), tuple(numbers))


def gold_label(question: Question, draft: Draft, table: Table, backend: SqliteBackend) -> list[str] | None:
    """Run the gold SQL: the answer's values as text, or the md5 of the changed table; None if unfit."""
    backend.create(table)
    before = backend.table_hash(table)
    feedback = backend.execute(question.sql)
    if question.category in MODIFICATIONS:
        after = backend.table_hash(table)
        return [after] if after != before else None
    rows: list[tuple[Any, ...]] = literal_eval(feedback)
    values = [value for row in rows for value in row]
    if not values or len(values) > 4 or None in values or len(set(values)) < len(values):
        return None
    if question.category == "ranking" and _has_ties(draft):
        return None
    if any(isinstance(value, float) and value * 2 != int(value * 2) for value in values):
        return None  # an average such as 13.333333333333334 is copied by luck
    return [str(value) for value in values]


def task_to_record(task: DatabaseTask) -> dict[str, Any]:
    """Return a task as a row of AgentBench's dbbench files (plus `id` and `gold_sql`)."""
    record: dict[str, Any] = {
        "id": task.id,
        "description": task.question,
        "add_description": task.table_description,
        "table": {
            "table_name": task.table.name,
            "table_info": {
                "columns": [{"name": column, "type": "TEXT"} for column in task.table.columns],
                "rows": [list(row) for row in task.table.rows],
            },
        },
        "type": [task.category],
    }
    if task.modifies:
        record["answer_md5"] = task.answer_md5
    else:
        record["label"] = list(task.label)
    record["gold_sql"] = task.gold_sql
    return record


def _has_ties(draft: Draft) -> bool:
    return any(len(set(draft.values(number))) < len(draft.rows) for number in draft.numbers)


def _in_turns(families: tuple[Family, ...], rng: random.Random) -> Iterator[Family]:
    while True:
        yield from rng.sample(families, len(families))
