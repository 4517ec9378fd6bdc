"""The part of the cleaning that looks at one record at a time, in this process or in a pool of worker processes.

What needs the records before it (duplicates) is left to `data_prep.clean_sharegpt`; what it needs for that comes along
with each record: digests and the MinHash signature.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from data_prep.sharegpt.cleaning_rules import apply_steps
from data_prep.sharegpt.defects import count_defects
from data_prep.sharegpt.language import load_detector
from data_prep.sharegpt.layouts import ROLES, RawRecord, UnknownLayoutError, read_raw_record
from data_prep.sharegpt.near_duplicates import load_signer
from data_prep.sharegpt.repairs import Dropped, Turns
from megatron_agent.chat.conversation import Turn, find_lone_surrogate
from megatron_agent.processes import map_in_order

CHUNK = 64  # records that travel to a worker together: about half a megabyte
EXCERPT_CHARACTERS = 160
NO_LAYOUT = "unknown"


@dataclass(frozen=True)
class CleaningSettings:
    """What the cleaning of one record depends on."""

    rules: frozenset[str]
    keep_lang: str | None = None


@dataclass(frozen=True)
class LocatedRecord:
    """A decoded record and where it stands."""

    made_id: str
    """For a record without an id."""
    where: str
    value: object


@dataclass
class CleanedRecord:
    """What became of one record."""

    where: str
    identifier: str
    """Its own, or the one made for it."""
    raw_id: str | None = None
    raw_digest: bytes | None = None
    """Of roles and texts as they came."""
    layout: str = NO_LAYOUT
    model: str | None = None
    """The record's own label, as it came."""
    dropped: str | None = None
    """The rule that drops it."""
    excerpt: str = ""
    language: str | None = None
    repairs: list[tuple[str, str, str]] = field(default_factory=list)
    """(rule, excerpt before, excerpt after)."""
    turns: Turns = field(default_factory=list)
    digest: bytes = b""
    """Of the cleaned turns."""
    first_exchange_digest: bytes = b""
    signature: np.ndarray | None = None


@dataclass
class CleanedChunk:
    """Some records in input order, and the counts over them."""

    records: list[CleanedRecord] = field(default_factory=list)
    roles: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)


class RecordCleaner:
    """Applies the rules for single records; loads the language and MinHash libraries once."""

    def __init__(self, settings: CleaningSettings) -> None:
        self.rules = settings.rules
        self.keep_lang = settings.keep_lang
        self.detect = load_detector(settings.keep_lang) if settings.keep_lang is not None else None
        self.sign = load_signer() if "near_duplicate" in settings.rules else None

    def clean_chunk(self, records: Sequence[LocatedRecord]) -> CleanedChunk:
        """Clean some records."""
        chunk = CleanedChunk()
        for record in records:
            chunk.records.append(self.clean(record, chunk))
        return chunk

    def clean(self, record: LocatedRecord, chunk: CleanedChunk) -> CleanedRecord:
        """Clean one record, counting what it was like into `chunk`."""
        try:
            raw = read_raw_record(record.value)
        except UnknownLayoutError as error:
            text = json.dumps(record.value)[:EXCERPT_CHARACTERS]
            return CleanedRecord(record.where, record.made_id, dropped="wrong_schema", excerpt=f"{error}: {text}")
        chunk.roles.update(role for role, _ in raw.messages)
        chunk.found.update(count_defects(raw.messages))
        cleaned = CleanedRecord(
            record.where,
            raw.identifier or record.made_id,
            raw_id=raw.identifier,
            raw_digest=digest(raw.messages)[:8],
            layout=raw.layout,
            model=raw.model,
        )
        try:
            self.clean_turns(raw, cleaned)
        except Dropped as verdict:
            cleaned.dropped = str(verdict)
            cleaned.turns = []
            cleaned.excerpt = " | ".join(excerpt(f"{role}: {text}", 0) for role, text in raw.messages[:2])
        return cleaned

    def clean_turns(self, raw: RawRecord, cleaned: CleanedRecord) -> None:
        """Fill in the turns and what is derived from them. Raises `Dropped`."""
        if raw.identifier is None:
            if "missing_id_made" not in self.rules:
                raise Dropped("no_id")
            cleaned.repairs.append(("missing_id_made", "", cleaned.identifier))
        if raw.has_plugins and "plugin_conversation" in self.rules:
            raise Dropped("plugin_conversation")
        turns = self.map_roles(raw, cleaned)
        cleaned.turns, repairs = apply_steps(turns, self.rules)
        cleaned.repairs += [(rule, *excerpts(before, after)) for rule, before, after in repairs]
        if self.detect:
            cleaned.language = self.detect(cleaned.turns)
            if cleaned.language != self.keep_lang:
                raise Dropped("other_language")
        messages = [(turn.speaker, turn.value) for turn in cleaned.turns]
        cleaned.digest = digest(messages)
        dialogue = messages[1:] if messages[0][0] == "system" else messages
        cleaned.first_exchange_digest = digest(dialogue[:2])
        if self.sign:
            cleaned.signature = self.sign("\n".join(text for _, text in messages))

    def map_roles(self, raw: RawRecord, cleaned: CleanedRecord) -> Turns:
        """The messages as turns with the project's role names, every answer trained. Raises `Dropped`."""
        turns: Turns = []
        for role, text in raw.messages:
            speaker = ROLES.get(role.lower())
            if speaker is None or (role != speaker and "role_names_mapped" not in self.rules):
                raise Dropped("unknown_role")
            if find_lone_surrogate(text) is not None:
                raise Dropped("lone_surrogate")
            turns.append(Turn(speaker, text, loss=True if speaker == "gpt" else None))
        mapped = [
            (role, turn.speaker) for (role, _), turn in zip(raw.messages, turns, strict=True) if role != turn.speaker
        ]
        if mapped:
            cleaned.repairs.append(("role_names_mapped", *mapped[0]))
        return turns


def digest(messages: Iterable[tuple[str, str]]) -> bytes:
    """16 bytes of SHA-256 over who said what, equal for equal conversations."""
    sha256 = hashlib.sha256()
    for role, text in messages:
        for part in (role, text):
            encoded = part.encode("utf-8", "surrogatepass")
            sha256.update(len(encoded).to_bytes(8, "little"))
            sha256.update(encoded)
    return sha256.digest()[:16]


def excerpts(before: Turns, after: Turns) -> tuple[str, str]:
    """Short pieces of two lists of turns around their first difference."""
    for old, new in zip(before, after, strict=False):
        if old != new:
            if old.speaker != new.speaker:
                break
            at = next(
                (i for i, (a, b) in enumerate(zip(old.value, new.value, strict=False)) if a != b),
                min(len(old.value), len(new.value)),
            )
            start = max(0, at - EXCERPT_CHARACTERS // 4)
            return tuple(f"{turn.speaker}: {excerpt(turn.value, start)}" for turn in (old, new))  # type: ignore[return-value]
    same = next(
        (i for i, (old, new) in enumerate(zip(before, after, strict=False)) if old != new), min(len(before), len(after))
    )
    return describe_turns(before[same:]), describe_turns(after[same:])


def describe_turns(turns: Turns) -> str:
    """The first turn and the number of turns from there on."""
    if not turns:
        return "(no turn)"
    return f"{len(turns)} turns from {turns[0].speaker}: {excerpt(turns[0].value, 0)}"


def excerpt(text: str, start: int) -> str:
    """At most `EXCERPT_CHARACTERS` of a text, marked where it is cut."""
    piece = text[start : start + EXCERPT_CHARACTERS]
    return f"{'...' if start else ''}{piece}{'...' if start + EXCERPT_CHARACTERS < len(text) else ''}"


def clean_records(records: Iterator[LocatedRecord], settings: CleaningSettings, workers: int) -> Iterator[CleanedChunk]:
    """Clean records chunk by chunk, in input order whatever `workers` is; a few chunks a worker are held at once."""
    chunks = iter(lambda: list(islice(records, CHUNK)), [])
    yield from map_in_order(clean_in_worker, chunks, workers, start_worker, (settings,))


_worker: list[RecordCleaner] = []


def start_worker(settings: CleaningSettings) -> None:
    """Load what every chunk needs, once in this process."""
    _worker[:] = [RecordCleaner(settings)]


def clean_in_worker(chunk: list[LocatedRecord]) -> CleanedChunk:
    """Clean a chunk with this process's cleaner."""
    return _worker[0].clean_chunk(chunk)
