"""What the card of AgentInstruct publishes, and how a set of rows differs from it."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from megatron_agent.chat.conversation import Conversation, conversation_to_record


@dataclass(frozen=True)
class Card:
    """One split of THUDM/AgentInstruct."""

    rows: int
    mean_trained_turns: float
    """Mean number of gpt turns with `loss: true`, to two decimals; the card calls it average turns."""
    arrow_bytes: int
    """`num_bytes`: the split's size as an Arrow table."""


# From the card of THUDM/AgentInstruct on the Hub.
CARD = {
    "os": Card(195, 3.85, 660_245),
    "db": Card(538, 2.06, 1_436_655),
    "alfworld": Card(336, 13.52, 1_223_363),
    "webshop": Card(351, 3.68, 1_602_648),
    "kg": Card(324, 6.04, 2_960_010),
    "mind2web": Card(122, 1.00, 159_590),
}
CARD_ROWS = 1_866
CARD_MEAN_TRAINED_TURNS = 5.24
ID = re.compile(r"(?P<task>[a-z0-9]+)_(?P<number>0|[1-9][0-9]*)")
LISTED = 10
"""Ids that a difference names at most."""


@dataclass(frozen=True)
class TaskCounts:
    """What one task's rows add up to."""

    rows: int
    trained_turns: int
    gpt_turns_without_loss_flag: int
    """Trained all the same; AgentInstruct itself has none."""
    arrow_bytes: int | None
    """None without pyarrow."""

    @property
    def mean_trained_turns(self) -> float:
        """Trained turns a row."""
        return self.trained_turns / self.rows


def task_of(conversation: Conversation) -> str:
    """The record's task, or the part of an id such as `db_42` before its number."""
    return conversation.task or conversation.id.rpartition("_")[0] or conversation.id


def by_task(conversations: Iterable[Conversation]) -> dict[str, list[Conversation]]:
    """Return the conversations of each task, in their order."""
    groups: dict[str, list[Conversation]] = defaultdict(list)
    for conversation in conversations:
        groups[task_of(conversation)].append(conversation)
    return dict(groups)


def count_tasks(conversations: Iterable[Conversation]) -> dict[str, TaskCounts]:
    """Return the counts of each task."""
    return {
        task: TaskCounts(
            rows=len(rows),
            trained_turns=sum(turn.trained for row in rows for turn in row.turns),
            gpt_turns_without_loss_flag=sum(
                turn.speaker == "gpt" and turn.loss is None for row in rows for turn in row.turns
            ),
            arrow_bytes=arrow_bytes(rows),
        )
        for task, rows in by_task(conversations).items()
    }


def arrow_bytes(conversations: Sequence[Conversation]) -> int | None:
    """Return the size of rows as an Arrow table in the card's schema; None when pyarrow is not installed.

    This is the card's `num_bytes`: the released db split gives exactly 1,436,655 (`recipe.md` 2.1).
    """
    try:
        import pyarrow
    except ImportError:
        return None
    turn = pyarrow.struct([("from", pyarrow.string()), ("loss", pyarrow.bool_()), ("value", pyarrow.string())])
    schema = pyarrow.schema([("conversations", pyarrow.list_(turn)), ("id", pyarrow.string())])
    records = [
        {key: value for key, value in conversation_to_record(row).items() if key in schema.names}
        for row in conversations
    ]
    return int(pyarrow.Table.from_pylist(records, schema=schema).nbytes)


def card_differences(conversations: Sequence[Conversation], counts: dict[str, TaskCounts]) -> list[str]:
    """Return every difference from the card: rows, trained turns, Arrow bytes, ids and totals; one sentence each."""
    differences = []
    for task, count in counts.items():
        card = CARD.get(task)
        if card is None:
            differences.append(f"{task}: not a split of AgentInstruct ({count.rows:,} rows)")
            continue
        if count.rows != card.rows:
            differences.append(f"{task}: {count.rows:,} rows, the card has {card.rows:,}")
        if abs(count.mean_trained_turns - card.mean_trained_turns) > 0.0051:
            differences.append(
                f"{task}: {count.mean_trained_turns:.4f} trained turns a row, "
                f"the card has {card.mean_trained_turns:.2f}"
            )
        if count.arrow_bytes is not None and count.arrow_bytes != card.arrow_bytes:
            differences.append(f"{task}: {count.arrow_bytes:,} Arrow bytes, the card has {card.arrow_bytes:,}")
    differences += [f"{task}: no rows, the card has {card.rows:,}" for task, card in CARD.items() if task not in counts]
    rows = sum(count.rows for count in counts.values())
    if rows != CARD_ROWS:
        differences.append(f"all: {rows:,} rows, the card has {CARD_ROWS:,}")
    mean = sum(count.trained_turns for count in counts.values()) / max(rows, 1)
    if abs(mean - CARD_MEAN_TRAINED_TURNS) > 0.0051:
        differences.append(f"all: {mean:.4f} trained turns a row, the card has {CARD_MEAN_TRAINED_TURNS:.2f}")
    return differences + id_differences(conversations)


def id_differences(conversations: Iterable[Conversation]) -> list[str]:
    """Return what is wrong with ids, which are `<split>_0` to `<split>_<rows - 1>` in the release."""
    numbers: dict[str, set[int]] = defaultdict(set)
    strange = []
    for conversation in conversations:
        match = ID.fullmatch(conversation.id)
        if match and len(match["number"]) < 10:
            numbers[match["task"]].add(int(match["number"]))
        else:
            strange.append(conversation.id)
    differences = []
    if strange:
        differences.append(f"ids that are not <split>_<number>: {listed(strange)}")
    for task in [task for task in numbers if task in CARD]:
        found = numbers[task]
        expected = max(CARD[task].rows, max(found) + 1)
        count = expected - len(found)
        if count:
            first: list[str] = []
            number = 0
            while len(first) < min(count, LISTED):
                if number not in found:
                    first.append(f"{task}_{number}")
                number += 1
            more = ", ..." if count > LISTED else ""
            differences.append(f"{task}: {count:,} ids missing from 0 to {expected - 1:,}: {', '.join(first)}{more}")
    return differences


def split_differences(splits: Iterable[tuple[str | None, Conversation]]) -> list[str]:
    """Return the rows whose id names another task than the split in their file's name (None: it names none)."""
    wrong: dict[tuple[str, str], list[str]] = defaultdict(list)
    for split, conversation in splits:
        task = task_of(conversation)
        if split is not None and task != split:
            wrong[split, task].append(conversation.id)
    return [
        f"{split}: {len(ids):,} rows in this split's file have ids of {task}: {listed(ids)}"
        for (split, task), ids in wrong.items()
    ]


def listed(ids: Sequence[str]) -> str:
    """Join the first ids of a list; how many there are in all comes after them."""
    more = f", ... ({len(ids):,} in all)" if len(ids) > LISTED else ""
    return ", ".join(ids[:LISTED]) + more


def counts_report(counts: dict[str, TaskCounts]) -> dict[str, Any]:
    """Return the counts and the card's, by task, for the JSON report."""
    return {
        task: asdict(count)
        | {"mean_trained_turns": round(count.mean_trained_turns, 4)}
        | {"card": asdict(CARD[task]) if task in CARD else None}
        for task, count in counts.items()
    }


def format_counts(counts: dict[str, TaskCounts], removed_keys: Counter[str]) -> str:
    """Return the table of counts for the terminal, each task with its verdict against the card."""
    lines = [f"{'task':<12}{'rows':>7}{'trained turns':>15}{'mean':>9}{'Arrow bytes':>13}   card"]
    for task, count in sorted(counts.items()):
        size = "-" if count.arrow_bytes is None else f"{count.arrow_bytes:,}"
        verdict = ""
        if card := CARD.get(task):
            same = (
                count.rows == card.rows
                and abs(count.mean_trained_turns - card.mean_trained_turns) < 0.0051
                and count.arrow_bytes in (None, card.arrow_bytes)
            )
            verdict = (
                "as in the card"
                if same
                else f"DIFFERS: the card has {card.rows} rows, mean {card.mean_trained_turns:.2f}, "
                f"{card.arrow_bytes:,} bytes"
            )
        row = f"{task:<12}{count.rows:>7,}{count.trained_turns:>15,}{count.mean_trained_turns:>9.4f}{size:>13}"
        lines.append(f"{row}   {verdict}".rstrip())
    rows = sum(count.rows for count in counts.values())
    trained = sum(count.trained_turns for count in counts.values())
    lines.append(f"{'total':<12}{rows:>7,}{trained:>15,}{trained / max(rows, 1):>9.4f}")
    missing = sum(count.gpt_turns_without_loss_flag for count in counts.values())
    lines.append(f"gpt turns without a loss flag (trained): {missing:,}")
    for key, number in sorted(removed_keys.items()):
        lines.append(f"removed key outside the schema: {key!r}, {number:,} times")
    return "\n".join(lines)
