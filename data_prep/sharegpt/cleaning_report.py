"""What a cleaning run did: every record read is kept or dropped by a rule, and the sums are checked."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import IO, Any

from data_prep.json_stream import Damage
from data_prep.sharegpt.defects import DEFECTS

EXAMPLES = 5
"""Examples kept for each rule."""


@dataclass
class InputFile:
    """One file read."""

    path: str
    sha256: str
    model: str | None = None
    """The label given to the whole file."""
    records: int = 0
    cut_off: bool = False
    lost_characters: int = 0
    gzip_error: str | None = None
    damaged_places: list[dict[str, Any]] = field(default_factory=list)

    def take_damage(self, damage: Damage) -> None:
        """Copy what the reader found."""
        self.cut_off, self.gzip_error = damage.cut_off, damage.gzip_error
        self.lost_characters = damage.lost_characters
        self.damaged_places = [asdict(place) for place in damage.places]


@dataclass
class CleaningReport:
    """Counts of a cleaning run, ids of what was dropped, and examples."""

    settings: dict[str, Any] = field(default_factory=dict)
    inputs: list[InputFile] = field(default_factory=list)
    read: int = 0
    kept: int = 0
    """Conversations kept, before over-long ones are split."""
    written: int = 0
    """Records in the outputs."""
    turns_kept: int = 0
    outputs: dict[str, int] = field(default_factory=dict)
    """Records by output file."""
    layouts: Counter[str] = field(default_factory=Counter)
    roles: Counter[str] = field(default_factory=Counter)
    """Messages by role name as it came."""
    found: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(DEFECTS, 0)))
    """Defects of the records as they came (`data_prep.sharegpt.defects`)."""
    repaired: Counter[str] = field(default_factory=Counter)
    """Conversations changed, by rule, among those kept."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Conversations left out, by rule."""
    languages: Counter[str] = field(default_factory=Counter)
    """Conversations judged, by language, when --keep-lang is given."""
    models: Counter[str] = field(default_factory=Counter)
    """Records read, by their own label as it came."""
    unknown_models: Counter[str] = field(default_factory=Counter)
    """Those labels that are not in the table of names."""
    model_conflicts: int = 0
    """Records whose own label names another model than their file's."""
    kept_by_model: Counter[str] = field(default_factory=Counter)
    split: Counter[str] = field(default_factory=Counter)
    """What splitting at --max-length did."""
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    dropped_ids: dict[str, list[str]] = field(default_factory=dict)
    """Ids of what was left out, by rule."""
    other_language_ids: dict[str, list[str]] = field(default_factory=dict)
    """Ids that `other_language` left out, by language."""
    duplicates: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """What each dropped duplicate is a duplicate of, by rule; `similarity` is estimated by MinHash."""

    def drop(self, rule: str, identifier: str, **example: Any) -> None:
        """Count a conversation that is left out."""
        self.dropped[rule] += 1
        self.dropped_ids.setdefault(rule, []).append(identifier)
        self.show(rule, id=identifier, **example)

    def show(self, rule: str, **example: Any) -> None:
        """Keep an example of a rule while there are fewer than `EXAMPLES`."""
        shown = self.examples.setdefault(rule, [])
        if len(shown) < EXAMPLES:
            shown.append(example)

    def check_sums(self) -> None:
        """Raise `RuntimeError` when the counts contradict each other: a defect of this program, not of the input."""
        for what, left, right in (
            ("records read and kept + dropped", self.read, self.kept + sum(self.dropped.values())),
            ("records read and records of the files", self.read, sum(file.records for file in self.inputs)),
            ("records read and their layouts", self.read, sum(self.layouts.values())),
            ("drops and ids of what was dropped", dict(self.dropped), {k: len(v) for k, v in self.dropped_ids.items()}),
            ("conversations kept and their models", self.kept, sum(self.kept_by_model.values())),
            (
                "records written and kept - split + parts",
                self.written,
                self.kept - self.split["conversations_split"] + self.split["parts"],
            ),
            ("records written and records by output", self.written, sum(self.outputs.values())),
        ):
            if left != right:
                raise RuntimeError(f"the report's sums do not match: {what}: {left} and {right}")

    def write(self, handle: IO[str]) -> None:
        r"""Write the report as JSON; a lone surrogate, which UTF-8 cannot hold, becomes an escape (`\udc80`)."""
        record = {**vars(self), "inputs": [vars(file) for file in self.inputs]}
        for piece in json.JSONEncoder(ensure_ascii=False, indent=1).iterencode(record):
            handle.write(piece.encode("utf-8", "backslashreplace").decode("utf-8"))
        handle.write("\n")


def format_report(report: CleaningReport) -> str:
    """Return the counts for the terminal."""
    lines = [f"{report.read:,} records read, {report.kept:,} kept ({report.turns_kept:,} turns)"]
    if report.split:
        lines[0] += f", {report.written:,} written after splitting"
    for title, counts in (
        ("layouts", report.layouts),
        ("found in the input", report.found),
        ("repaired", report.repaired),
        ("dropped", report.dropped),
        ("languages", report.languages),
        ("split", report.split),
        ("kept by model", report.kept_by_model),
        ("model names that are not known", report.unknown_models),
    ):
        lines += format_counts(title, counts)
    if report.model_conflicts:
        lines.append(f"{report.model_conflicts:,} records name another model than their file; theirs was kept")
    return "\n".join(lines)


def format_counts(title: str, counts: Mapping[str, int]) -> list[str]:
    """A title and a line for each count, the largest first; nothing without counts."""
    if not counts:
        return []
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return [f"{title}:", *(f"  {name:<36}{count:>9,}" for name, count in ordered)]


def format_damage(file: InputFile) -> str | None:
    """A warning about what was lost of a file, None when nothing was."""
    if not (file.cut_off or file.damaged_places):
        return None
    state = "CUT OFF: it ends in the middle of a record" if file.cut_off else "DAMAGED"
    if file.gzip_error:
        state = f"CUT OFF: its gzip data is cut or damaged ({file.gzip_error})"
    lost_bytes = sum(place["bytes"] for place in file.damaged_places)
    after = ", and whatever the file held after them," if file.cut_off else ""
    lines = [
        f"WARNING: {file.path} is {state}. {file.records:,} complete records were saved; {file.lost_characters:,} "
        f"characters ({lost_bytes:,} bytes) in {len(file.damaged_places):,} places{after} are lost."
    ]
    for place in file.damaged_places[:EXAMPLES]:
        lines.append(
            f"  line {place['line']:,}, byte {place['byte']:,}: {place['characters']:,} characters: {place['reason']}"
        )
    if len(file.damaged_places) > EXAMPLES:
        lines.append(f"  and {len(file.damaged_places) - EXAMPLES:,} more, in the report")
    return "\n".join(lines)
