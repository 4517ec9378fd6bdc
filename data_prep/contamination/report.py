"""What a contamination check found: by item, by task, in all, and beside the paper's figures."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

PAPER_TOKEN_SHARE = 0.1558
PAPER_DIRTY = {
    "alfworld": (6, 50),
    "webshop": (1, 200),
    "kg": (0, 150),
    "os": (0, 144),
    "db": (0, 300),
    "mind2web": (0, 177),
}
"""Dirty items and items of AgentTuning's Table 7 (appendix B): 7 of 1,021 in all. Its shares by task are not known
to us, and its training set is not ours: the figures are there to compare the order of magnitude."""


@dataclass
class ItemResult:
    """One test item. `verdict` is `dirty`, `clean` or `between`; `tokens` counts those of all its texts."""

    id: str
    task: str
    where: str
    tokens: int
    contaminated_tokens: int
    share: float
    verdict: str
    too_short: bool
    """No text of the item is as long as one n-gram: it cannot match."""
    spans: list[list[int]]
    """The contaminated tokens as `[first, end)`, counted over the item's texts laid end to end."""


@dataclass
class TaskResult:
    """Counts over the items of a task. `token_share` weighs each token alike, `mean_share` each item."""

    task: str
    items: int
    tokens: int
    contaminated_tokens: int
    token_share: float
    mean_share: float
    dirty: int
    clean: int
    between: int
    too_short: int


@dataclass
class RecordEvidence:
    """A training conversation that matches an item. `turn` and the excerpts belong to the longest run of matches."""

    where: str
    share: float
    """Of the item's tokens, those inside a match with this conversation."""
    turn: int
    test_excerpt: str
    training_excerpt: str


@dataclass
class ItemEvidence:
    """An item and the training conversations found for it, the one that covers most of it first."""

    item: ItemResult
    records: list[RecordEvidence]


@dataclass
class ContaminationReport:
    """The whole result, as written to `--report`."""

    settings: dict[str, object]
    test_files: dict[str, str]
    """sha256 by path."""
    training_files: dict[str, str]
    training_conversations: int
    training_turns: int
    training_tokens: int
    total: TaskResult
    tasks: list[TaskResult]
    items: list[ItemResult]
    evidence: list[ItemEvidence] = field(default_factory=list)
    """For the most contaminated items."""


def verdict(share: float, dirty: float, clean: float) -> str:
    """Return `dirty` above the one threshold, `clean` below the other, else `between`."""
    return "dirty" if share > dirty else "clean" if share < clean else "between"


def sum_up(task: str, items: Sequence[ItemResult]) -> TaskResult:
    """Count over items, of which there is at least one."""
    tokens = sum(item.tokens for item in items)
    contaminated = sum(item.contaminated_tokens for item in items)
    verdicts = [item.verdict for item in items]
    return TaskResult(
        task=task,
        items=len(items),
        tokens=tokens,
        contaminated_tokens=contaminated,
        token_share=contaminated / tokens if tokens else 0.0,
        mean_share=sum(item.share for item in items) / len(items),
        dirty=verdicts.count("dirty"),
        clean=verdicts.count("clean"),
        between=verdicts.count("between"),
        too_short=sum(item.too_short for item in items),
    )


def sum_up_tasks(items: Sequence[ItemResult]) -> list[TaskResult]:
    """Count by task, in the order in which tasks first come."""
    tasks = dict.fromkeys(item.task for item in items)
    return [sum_up(task, [item for item in items if item.task == task]) for task in tasks]


def format_report(report: ContaminationReport, listed: int = 5) -> str:
    """Return the table by task and the first `listed` dirty items for the terminal."""
    settings = report.settings
    lines = [
        f"{report.training_conversations:,} training conversations, {report.training_turns:,} turns, "
        f"{report.training_tokens:,} tokens ({settings['tokens']}; part: {settings['train_part']})",
        f"contaminated: in {settings['ngram']} tokens of which at most {settings['mismatches']} differ from training; "
        f"dirty above {settings['dirty']:.0%}, clean below {settings['clean']:.0%}",
        "",
        f"{'task':<20}{'items':>7}{'tokens':>11}{'contam.':>9}{'mean':>8}{'dirty':>7}{'between':>9}{'clean':>7}"
        f"{'too short':>11}   paper",
    ]
    lines += [format_row(row, paper_figures(row.task)) for row in report.tasks]
    dirty, items = (sum(column) for column in zip(*PAPER_DIRTY.values(), strict=True))
    lines.append(format_row(report.total, f"{PAPER_TOKEN_SHARE:.2%}, dirty {dirty} of {items:,}"))
    lines.append("paper: AgentTuning's Table 7, on AgentInstruct and AgentBench's test sets with Llama's tokenizer")
    shown = [evidence for evidence in report.evidence if evidence.item.verdict == "dirty"][:listed]
    for evidence in shown:
        lines += ["", *format_evidence(evidence)]
    if report.total.dirty > len(shown):
        lines += ["", f"{report.total.dirty - len(shown):,} more dirty items: see --report"]
    return "\n".join(lines)


def format_row(row: TaskResult, paper: str) -> str:
    """One row of the table."""
    return (
        f"{one_line(row.task)[:19]:<20}{row.items:>7,}{row.tokens:>11,}{row.token_share:>9.2%}{row.mean_share:>8.1%}{row.dirty:>7,}"
        f"{row.between:>9,}{row.clean:>7,}{row.too_short:>11,}   {paper}"
    ).rstrip()


def paper_figures(task: str) -> str:
    """What the paper printed for a task."""
    if task.lower() not in PAPER_DIRTY:
        return ""
    dirty, items = PAPER_DIRTY[task.lower()]
    return f"dirty {dirty} of {items}"


def format_evidence(evidence: ItemEvidence) -> Iterable[str]:
    """Lines on one item: its best training conversation, and the excerpt of both."""
    item = evidence.item
    name = one_line(f"{item.task} {item.id}")
    yield f"{item.verdict}: {name}: {item.share:.0%} of {item.tokens:,} tokens ({item.where})"
    for record in evidence.records[:1]:
        yield f"  {record.share:.0%} from {record.where}, turn {record.turn}"
        yield f"    test:     {one_line(record.test_excerpt)}"
        yield f"    training: {one_line(record.training_excerpt)}"


def one_line(text: str) -> str:
    """A text of the data without line ends or control characters, which a terminal would obey; 160 at most."""
    visible = "".join(character if character.isprintable() else " " for character in text)
    return visible if len(visible) <= 160 else visible[:157] + "..."
