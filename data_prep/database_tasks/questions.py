"""Kinds of questions over a generated table: wording, gold SQL and the thought that leads to it.

A wording names columns and values exactly as the prompt and the SQL write them. Every kind has wordings for
both splits and one that only test tasks use.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from data_prep.database_tasks.families import Family


@dataclass(frozen=True)
class Draft:
    """A table of a family and what a question about it may name."""

    family: Family
    table: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    texts: tuple[str, ...]
    numbers: tuple[str, ...]

    def values(self, column: str) -> list[str]:
        """All cells of a column, in row order."""
        index = self.columns.index(column)
        return [row[index] for row in self.rows]


@dataclass(frozen=True)
class Question:
    """One question: AgentBench's type, the wording, the thought and the gold statement."""

    category: str
    text: str
    thought: str
    sql: str


Wordings = dict[str, tuple[str, ...]]
Kind = Callable[[Draft, str, random.Random], Question]


def _word(wordings: Wordings, split: str, rng: random.Random, **fields: str) -> str:
    choices = wordings["both"] + (wordings["test"] if split == "test" else ())
    return rng.choice(choices).format(**fields)


def _condition(draft: Draft, rng: random.Random) -> tuple[str, str]:
    column = rng.choice(draft.texts)
    return column, rng.choice(draft.values(column))


_LOOKUP: Wordings = {
    "both": (
        'What is the {target} of the {column} "{value}"?',
        'Give the {target} of {column} "{value}".',
    ),
    "test": ('Tell me the {target} of the {column} "{value}".',),
}


def lookup(draft: Draft, split: str, rng: random.Random) -> Question:
    """One cell, found by the key."""
    target = rng.choice(draft.texts + draft.numbers)
    column, value = draft.family.key, rng.choice(draft.values(draft.family.key))
    return Question(
        "other",
        _word(_LOOKUP, split, rng, target=target, column=column, value=value),
        f'I need the {target} from {draft.table} where {column} is "{value}".',
        f"SELECT {target} FROM {draft.table} WHERE {column} = '{value}';",
    )


_LISTING: Wordings = {
    "both": (
        'List the {target} of all {nouns} with {column} "{value}".',
        'Which {nouns} have {column} "{value}"? Give the {target}.',
    ),
    "test": ('Show the {target} of every {noun} with {column} "{value}".',),
}


def listing(draft: Draft, split: str, rng: random.Random) -> Question:
    """The keys of all rows with one text value."""
    column, value = _condition(draft, rng)
    target = draft.family.key
    return Question(
        "other",
        _word(_LISTING, split, rng, target=target, noun=draft.family.noun, nouns=draft.family.nouns,
              column=column, value=value),
        f'I need the {target} from {draft.table} where {column} is "{value}".',
        f"SELECT {target} FROM {draft.table} WHERE {column} = '{value}';",
    )  # fmt: skip


_COUNT: Wordings = {
    "both": ('How many {nouns} have {column} "{value}"?', 'Count the {nouns} whose {column} is "{value}".'),
    "test": ('How many {nouns} are there with {column} "{value}"?',),
}


def count(draft: Draft, split: str, rng: random.Random) -> Question:
    """How many rows have one text value."""
    column, value = _condition(draft, rng)
    return Question(
        "counting",
        _word(_COUNT, split, rng, nouns=draft.family.nouns, column=column, value=value),
        f'I need to count the rows of {draft.table} where {column} is "{value}".',
        f"SELECT COUNT(*) FROM {draft.table} WHERE {column} = '{value}';",
    )


_COMPARISON: Wordings = {
    "both": (
        "How many {nouns} have {number} {relation} {bound}?",
        "Count the {nouns} with {number} {relation} {bound}.",
    ),
    "test": ("How many {nouns} are there with {number} {relation} {bound}?",),
}
_RELATIONS = {"above": ">", "below": "<"}


def comparison(draft: Draft, split: str, rng: random.Random) -> Question:
    """How many rows have a number above or below a bound."""
    number = rng.choice(draft.numbers)
    relation = rng.choice(sorted(_RELATIONS))
    bound = rng.choice(sorted(draft.values(number))[1:-1])
    return Question(
        "comparison",
        _word(_COMPARISON, split, rng, nouns=draft.family.nouns, number=number, relation=relation, bound=bound),
        f"I need to count the rows of {draft.table} where {number} is {relation} {bound}.",
        f"SELECT COUNT(*) FROM {draft.table} WHERE {number} {_RELATIONS[relation]} {bound};",
    )


_AGGREGATES = {"MAX": "highest", "MIN": "lowest", "SUM": "total", "AVG": "average"}
_AGGREGATION: Wordings = {
    "both": ("What is the {adjective} {number} of the {nouns}?", "Find the {adjective} {number} of the {nouns}."),
    "test": ("Tell me the {adjective} {number} of the {nouns}.",),
}
_AGGREGATION_WHERE: Wordings = {
    "both": (
        'What is the {adjective} {number} of the {nouns} with {column} "{value}"?',
        'Find the {adjective} {number} of the {nouns} whose {column} is "{value}".',
    ),
    "test": ('Tell me the {adjective} {number} of the {nouns} with {column} "{value}".',),
}


def aggregation(draft: Draft, split: str, rng: random.Random, function: str) -> Question:
    """MAX, MIN, SUM or AVG of a number column, over all rows or those with one text value."""
    adjective, number = _AGGREGATES[function], rng.choice(draft.numbers)
    fields = {"adjective": adjective, "number": number, "nouns": draft.family.nouns}
    if rng.random() < 0.5:
        return Question(
            f"aggregation-{function}",
            _word(_AGGREGATION, split, rng, **fields),
            f"I need the {adjective} {number} from {draft.table}.",
            f"SELECT {function}({number}) FROM {draft.table};",
        )
    column, value = _condition(draft, rng)
    return Question(
        f"aggregation-{function}",
        _word(_AGGREGATION_WHERE, split, rng, column=column, value=value, **fields),
        f'I need the {adjective} {number} from {draft.table} where {column} is "{value}".',
        f"SELECT {function}({number}) FROM {draft.table} WHERE {column} = '{value}';",
    )


_RANKING: Wordings = {
    "both": ("Which {target} has the {adjective} {number}?", "Name the {target} with the {adjective} {number}."),
    "test": ("Show the {target} with the {adjective} {number}.",),
}
_ORDERS = {"highest": "DESC", "lowest": "ASC"}


def ranking(draft: Draft, split: str, rng: random.Random) -> Question:
    """The key of the row with the highest or lowest number."""
    number, adjective, target = rng.choice(draft.numbers), rng.choice(sorted(_ORDERS)), draft.family.key
    return Question(
        "ranking",
        _word(_RANKING, split, rng, target=target, adjective=adjective, number=number),
        f"I need the {target} from {draft.table} with the {adjective} {number}.",
        f"SELECT {target} FROM {draft.table} ORDER BY {number} {_ORDERS[adjective]} LIMIT 1;",
    )


_INSERTION: Wordings = {
    "both": (
        "Add a new {noun} with {cells}.",
        "Insert a new {noun} with {cells}.",
    ),
    "test": ("Add the {noun} with {cells}.",),
}


def insertion(draft: Draft, split: str, rng: random.Random) -> Question:
    """One new row."""
    row = dict(zip(draft.columns, draft.rows[0], strict=True))
    row[draft.family.key] = rng.choice([v for v in draft.family.key_values if v not in draft.values(draft.family.key)])
    for column in draft.texts:
        row[column] = rng.choice(draft.family.texts[column])
    for column in draft.numbers:
        row[column] = random_number(draft.family.numbers[column], rng)
    cells = [f'{column} "{value}"' for column, value in row.items()]
    values = ", ".join(f"'{value}'" for value in row.values())
    return Question(
        "INSERT",
        _word(_INSERTION, split, rng, noun=draft.family.noun, cells=", ".join(cells[:-1]) + " and " + cells[-1]),
        f"I need to insert one row into {draft.table}.",
        f"INSERT INTO {draft.table} VALUES ({values});",
    )


_UPDATING: Wordings = {
    "both": (
        'Set the {target} of the {column} "{value}" to "{new}".',
        'Change the {target} of {column} "{value}" to "{new}".',
    ),
    "test": ('Update the {target} of the {column} "{value}" to "{new}".',),
}


def updating(draft: Draft, split: str, rng: random.Random) -> Question:
    """One cell of the row with a given key."""
    target = rng.choice(draft.texts + draft.numbers)
    column, value = draft.family.key, rng.choice(draft.values(draft.family.key))
    old = draft.values(target)[draft.values(column).index(value)]
    new = old
    while new == old:
        digits = draft.family.numbers.get(target)
        new = random_number(digits, rng) if digits else rng.choice(draft.family.texts[target])
    return Question(
        "UPDATE",
        _word(_UPDATING, split, rng, target=target, column=column, value=value, new=new),
        f'I need to update {draft.table} and set {target} to "{new}" where {column} is "{value}".',
        f"UPDATE {draft.table} SET {target} = '{new}' WHERE {column} = '{value}';",
    )


_DELETION: Wordings = {
    "both": ('Delete all {nouns} with {column} "{value}".', 'Remove the {nouns} whose {column} is "{value}".'),
    "test": ('Delete every {noun} with {column} "{value}".',),
}


def deletion(draft: Draft, split: str, rng: random.Random) -> Question:
    """All rows with one text value."""
    column, value = _condition(draft, rng)
    return Question(
        "DELETE",
        _word(_DELETION, split, rng, noun=draft.family.noun, nouns=draft.family.nouns, column=column, value=value),
        f'I need to delete the rows of {draft.table} where {column} is "{value}".',
        f"DELETE FROM {draft.table} WHERE {column} = '{value}';",
    )


KINDS: tuple[Kind, ...] = (
    lookup,
    count,
    insertion,
    ranking,
    updating,
    partial(aggregation, function="MAX"),
    listing,
    comparison,
    deletion,
    partial(aggregation, function="MIN"),
    partial(aggregation, function="SUM"),
    partial(aggregation, function="AVG"),
)
"""In the order tasks cycle through them."""


def random_number(digits: int, rng: random.Random) -> str:
    """A number of exactly `digits` digits, as text."""
    return str(rng.randrange(10 ** (digits - 1), 10**digits))
