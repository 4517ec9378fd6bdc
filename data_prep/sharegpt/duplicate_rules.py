"""The rules that compare a conversation with those kept before it: same id, same text, nearly the same text."""

from collections.abc import Callable
from typing import Any

from data_prep.sharegpt.cleaning_report import CleaningReport
from data_prep.sharegpt.near_duplicates import NearDuplicateIndex
from data_prep.sharegpt.record_cleaner import CleanedRecord


class DuplicateRules:
    """The rules that compare a conversation with those kept before it; the first in input order stays."""

    def __init__(self, rules: frozenset[str]) -> None:
        self.keys: dict[str, Callable[[CleanedRecord], object]] = {
            "duplicate_id": lambda record: record.identifier,
            "duplicate_conversation": lambda record: record.digest,
            "duplicate_first_exchange": lambda record: record.first_exchange_digest,
        }
        self.kept: dict[str, dict[object, str]] = {rule: {} for rule in self.keys if rule in rules}
        self.near = NearDuplicateIndex() if "near_duplicate" in rules else None
        self.near_ids: list[str] = []

    def drop(self, record: CleanedRecord, report: CleaningReport) -> bool:
        """Whether a rule drops the record; counted if so, remembered if not."""
        for rule, kept in self.kept.items():
            if (of := kept.get(self.keys[rule](record))) is not None:
                self.count(report, rule, record, of)
                return True
        if self.near is not None and record.signature is not None:
            if found := self.near.find(record.signature):
                self.count(report, "near_duplicate", record, self.near_ids[found[0]], similarity=round(found[1], 4))
                return True
            self.near.add(record.signature)
            self.near_ids.append(record.identifier)
        for rule, kept in self.kept.items():
            kept[self.keys[rule](record)] = record.identifier
        return False

    def count(self, report: CleaningReport, rule: str, record: CleanedRecord, of: str, **similarity: float) -> None:
        """Count a duplicate of the conversation `of`."""
        pair: dict[str, Any] = {"id": record.identifier, "of": of, **similarity}
        report.duplicates.setdefault(rule, []).append(pair)
        first = record.turns[0].value[:160] if record.turns else ""
        report.drop(rule, record.identifier, where=record.where, of=of, **similarity, text=first)
