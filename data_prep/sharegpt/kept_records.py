"""From input files to the conversations to write: read, cleaned, compared with those before, split, and counted."""

import os
import sys
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from data_prep.json_stream import Damage, stream_json_records
from data_prep.sharegpt.cleaning_report import CleaningReport, InputFile, format_damage
from data_prep.sharegpt.duplicate_rules import DuplicateRules
from data_prep.sharegpt.layouts import MODEL_FAMILIES, model_family
from data_prep.sharegpt.record_cleaner import CleanedRecord, CleaningSettings, LocatedRecord, clean_records
from data_prep.split_long import SplitSettings, split_over_long
from megatron_agent.chat.conversation import Conversation
from megatron_agent.files import sha256_file

UNLABELLED = "unlabelled"


@dataclass(frozen=True)
class LabelledFile:
    """An input file whose conversations are all of one model, when `model` is given."""

    path: Path
    model: str | None = None


def kept_records(
    files: Sequence[LabelledFile], report: CleaningReport, settings: CleaningSettings, workers: int
) -> Generator[tuple[CleanedRecord, str | None], None, None]:
    """Yield the records that no rule drops, with the model to write, counting into `report`."""
    from tqdm import tqdm

    duplicates = DuplicateRules(settings.rules)
    raw_ids: set[str] = set()
    raw_digests: set[bytes] = set()
    same_name: Counter[str] = Counter()
    with tqdm(desc="cleaning", unit=" records", mininterval=0.5) as bar:
        for file in files:
            name = os.fsencode(file.path.name).decode("utf-8", "backslashreplace")
            same_name[name] += 1
            if same_name[name] > 1:  # or the ids made for the records of both files would be the same
                name += f"({same_name[name]})"
            entry = InputFile(str(file.path), sha256_file(file.path), file.model)
            report.inputs.append(entry)
            damage = Damage()
            for chunk in clean_records(located_records(file.path, name, damage), settings, workers):
                bar.update(len(chunk.records))
                report.roles.update(chunk.roles)
                report.found.update(chunk.found)
                for record in chunk.records:
                    entry.records += 1
                    report.read += 1
                    report.layouts[record.layout] += 1
                    if record.raw_id is not None:
                        report.found["repeated_id"] += record.raw_id in raw_ids
                        raw_ids.add(record.raw_id)
                    if record.raw_digest is not None:
                        report.found["exact_duplicate"] += record.raw_digest in raw_digests
                        raw_digests.add(record.raw_digest)
                    if record.language:
                        report.languages[record.language] += 1
                    model = choose_model(record, file, report)
                    if record.dropped:
                        drop_record(report, record)
                    elif not duplicates.drop(record, report):
                        yield record, model
            entry.take_damage(damage)
            if warning := format_damage(entry):
                tqdm.write(warning, file=sys.stderr)


def located_records(path: Path, name: str, damage: Damage) -> Iterator[LocatedRecord]:
    """The decoded records of one file, which made ids call `name`; `damage` is filled in."""
    for number, (where, value) in enumerate(stream_json_records(path, damage), start=1):
        yield LocatedRecord(f"{name}#{number}", where, value)


def choose_model(record: CleanedRecord, file: LabelledFile, report: CleaningReport) -> str | None:
    """The model to write: the family of the record's own label, that label when it has none, else the file's family."""
    report.models[record.model or "(none)"] += 1
    given = model_family(file.model) if file.model else None
    own = model_family(record.model) if record.model else None
    if record.model and own is None:
        report.unknown_models[record.model] += 1
    if given and record.model and given != own:
        report.model_conflicts += 1
        report.show("model_conflict", id=record.identifier, where=record.where, own=record.model, file=file.model)
    return own or record.model or given


def drop_record(report: CleaningReport, record: CleanedRecord) -> None:
    """Count a record that one of the rules for single records dropped."""
    rule = record.dropped or ""
    if rule == "other_language" and record.language:
        report.other_language_ids.setdefault(record.language, []).append(record.identifier)
        report.drop(rule, record.identifier, where=record.where, language=record.language, text=record.excerpt)
    else:
        report.drop(rule, record.identifier, where=record.where, text=record.excerpt)


def split_records(
    cleaned: Iterator[tuple[CleanedRecord, str | None]],
    report: CleaningReport,
    source: str | None,
    split: SplitSettings | None,
) -> Iterator[tuple[CleanedRecord, Conversation, list[Conversation]]]:
    """Yield each record that is kept, its conversation, and the conversations to write for it."""
    converted = (
        (record, Conversation(record.identifier, tuple(record.turns), source=source, model=model))
        for record, model in cleaned
    )
    if split is None:
        yield from ((record, conversation, [conversation]) for record, conversation in converted)
        return
    written_ids: set[str] = set()
    for record, conversation, result in split_over_long(converted, split):
        report.split["exchanges_over_length"] += result.exchanges_over_length
        if not result.parts:
            text = conversation.turns[0].value[:160]
            report.drop("no_part_fits", record.identifier, where=record.where, tokens=result.tokens, text=text)
            continue
        if result.tokens > split.max_length:
            report.split["conversations_split"] += 1
            report.split["parts"] += len(result.parts)
        yield record, conversation, [with_free_id(part, written_ids, report) for part in result.parts]


def with_free_id(part: Conversation, written_ids: set[str], report: CleaningReport) -> Conversation:
    """The conversation, with `~2` (or 3, ...) after its id where a record's own id is that of a part, or vice versa."""
    identifier, number = part.id, 1
    while identifier in written_ids:
        number += 1
        identifier = f"{part.id}~{number}"
    written_ids.add(identifier)
    if number == 1:
        return part
    report.split["ids_renamed"] += 1
    report.show("ids_renamed", before=part.id, after=identifier)
    return replace(part, id=identifier)


def count_kept(
    report: CleaningReport, record: CleanedRecord, conversation: Conversation, parts: Sequence[Conversation]
) -> None:
    """Count a conversation that is kept, and the repairs made to it."""
    report.kept += 1
    report.written += len(parts)
    report.turns_kept += sum(len(part.turns) for part in parts)
    report.kept_by_model[conversation.model if conversation.model in MODEL_FAMILIES else UNLABELLED] += 1
    for rule in dict.fromkeys(rule for rule, _, _ in record.repairs):
        report.repaired[rule] += 1
    for rule, before, after in record.repairs:
        report.show(rule, id=record.identifier, where=record.where, before=before, after=after)
