"""Clean ShareGPT dumps into conversation JSONL; every repair and every drop has a name and a count."""

import argparse
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data_prep.cleaning_rules import Dropped, Turns, apply_steps, turns_from_record
from data_prep.json_stream import CutOff, stream_json_records
from data_prep.language import load_detector
from megatron_agent.chat.conversation import Conversation, find_lone_surrogate, require_file, write_conversations
from megatron_agent.errors import UserError, run_command
from megatron_agent.files import atomic_write, check_writable, sha256_file

DESCRIPTION = """\
Read ShareGPT dumps (JSON arrays or JSONL of {"id", "conversations": [{"from", "value"}]}), map role names to
human and gpt, repair what named rules repair, drop what named rules drop, and write conversation JSONL whose
gpt turns are all trained. A file that was cut off is read up to its last complete record, with a warning. The
report holds the count of every rule and the ids of what was dropped."""

EPILOG = """\
example:
  python -m data_prep.clean_sharegpt --input sharegpt.json --keep-lang en \\
      --source sharegpt --output runs/sharegpt.jsonl --report runs/sharegpt_report.json"""


@dataclass
class InputFile:
    """One file read."""

    path: str
    sha256: str
    records: int = 0
    cut_off: bool = False
    lost_characters: int = 0


@dataclass
class CleaningReport:
    """Counts of a cleaning run; `read == kept + sum(dropped.values())`."""

    inputs: list[InputFile] = field(default_factory=list)
    read: int = 0
    kept: int = 0
    turns_kept: int = 0
    roles: Counter[str] = field(default_factory=Counter)
    """Messages by role name as it came."""
    repaired: Counter[str] = field(default_factory=Counter)
    """Conversations changed, by rule."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Conversations left out, by rule."""
    languages: Counter[str] = field(default_factory=Counter)
    """Conversations judged, by language, when --keep-lang is given."""
    dropped_ids: dict[str, list[str]] = field(default_factory=dict)
    """Ids of what was left out, by rule."""


def clean_sharegpt(
    inputs: Sequence[str | Path],
    output: str | Path,
    report_path: str | Path,
    source: str | None = None,
    keep_lang: str | None = None,
) -> CleaningReport:
    """Clean `inputs` into the JSONL file `output` and write the report as JSON.

    Raises `UserError` for a missing file, text that is not JSON (other than a file cut off at its end), an output
    that is also an input, and when nothing is left.
    """
    files = [require_file(path) for path in inputs]
    if Path(output).resolve() == Path(report_path).resolve():
        raise UserError(f"--output and --report are the same file ({output}); give two paths")
    for flag, written in (("--output", Path(output)), ("--report", Path(report_path))):
        check_writable(written, flag)
        if written.resolve() in {file.resolve() for file in files}:
            raise UserError(f"{written}: is an input file too; choose another --output and --report")
    report = CleaningReport()
    write_conversations(output, cleaned_conversations(files, report, source, keep_lang))
    with atomic_write(report_path) as handle:
        record = {**vars(report), "inputs": [vars(entry) for entry in report.inputs]}
        json.dump(record, handle, ensure_ascii=False, indent=1)
        handle.write("\n")
    return report


def cleaned_conversations(
    files: Sequence[Path], report: CleaningReport, source: str | None, keep_lang: str | None
) -> Iterator[Conversation]:
    """Yield the conversations that are kept, counting into `report`; `UserError` at the end when none was."""
    from tqdm import tqdm

    detect = load_detector() if keep_lang else None
    seen_ids: set[str] = set()
    seen_texts: set[bytes] = set()
    records = (item for file in files for item in counted_records(file, report))
    for record in tqdm(records, desc="cleaning", unit=" records"):
        identifier = record_id(record)
        try:
            if identifier is None:
                raise Dropped("no_id")
            turns, roles = turns_from_record(record)
            report.roles.update(roles)
            turns, repairs = apply_steps(turns)
            if identifier in seen_ids:
                raise Dropped("duplicate_id")
            digest = text_digest(turns)
            if digest in seen_texts:
                raise Dropped("duplicate_conversation")
            if detect:
                language = detect(turns)
                report.languages[language] += 1
                if language != keep_lang:
                    raise Dropped("other_language")
        except Dropped as verdict:
            rule = str(verdict)
            report.dropped[rule] += 1
            report.dropped_ids.setdefault(rule, []).append(identifier or f"record {report.read}")
            continue
        seen_ids.add(identifier)
        seen_texts.add(digest)
        report.repaired.update(repairs)
        report.kept += 1
        report.turns_kept += len(turns)
        yield Conversation(identifier, tuple(turns), source=source, model=usable_text(record, "model"))
    if not report.kept:
        raise UserError(
            f"{', '.join(map(str, files))}: none of {report.read:,} records is left; dropped by rule: "
            f"{dict(report.dropped)}; expected ShareGPT records"
        )


def counted_records(file: Path, report: CleaningReport) -> Iterator[object]:
    """Yield the raw records of one file; warn loudly when it was cut off."""
    entry = InputFile(str(file), sha256_file(file))
    report.inputs.append(entry)
    cut_off = CutOff()
    for _, record in stream_json_records(file, cut_off):
        entry.records += 1
        report.read += 1
        yield record
    entry.cut_off, entry.lost_characters = cut_off.found, cut_off.lost_characters
    if cut_off.found:
        print(
            f"\nWARNING: {file} is CUT OFF: it ends in the middle of a record. {entry.records:,} complete records "
            f"were saved; the last {cut_off.lost_characters:,} characters, and whatever the file held after "
            "them, are lost.",
            file=sys.stderr,
        )


def record_id(record: object) -> str | None:
    """The record's id as a string (numbers are written out), None without a usable one."""
    identifier = record.get("id") if isinstance(record, dict) else None
    if isinstance(identifier, int) and not isinstance(identifier, bool):
        return str(identifier)
    return usable_text(record, "id")


def usable_text(record: object, key: str) -> str | None:
    """The non-empty Unicode text under `key`, None when there is none."""
    value = record.get(key) if isinstance(record, dict) else None
    return value if isinstance(value, str) and value and find_lone_surrogate(value) is None else None


def text_digest(turns: Turns) -> bytes:
    """A hash of who said what, equal for equal conversations."""
    digest = hashlib.sha256()
    for turn in turns:
        value = turn.value.encode("utf-8")
        digest.update(f"{turn.speaker} {len(value)} ".encode())
        digest.update(value)
    return digest.digest()


def format_report(report: CleaningReport) -> str:
    """Return the counts for the terminal."""
    lines = [f"{report.read:,} records read, {report.kept:,} kept ({report.turns_kept:,} turns)"]
    for title, counts in (
        ("repaired", report.repaired),
        ("dropped", report.dropped),
        ("languages", report.languages),
    ):
        if counts:
            lines.append(f"{title}:")
            lines += [f"  {name:<36}{count:>9,}" for name, count in counts.most_common()]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """Command line of the cleaner."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.clean_sharegpt",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--input", required=True, nargs="+", metavar="F", help="JSON array or JSONL files")
    parser.add_argument("--output", required=True, metavar="X.jsonl", help="conversation JSONL to write")
    parser.add_argument("--report", required=True, metavar="R.json", help="counts and dropped ids to write")
    parser.add_argument("--source", metavar="NAME", help='"source" to put into every record (default: none)')
    parser.add_argument(
        "--keep-lang",
        metavar="CODE",
        help="keep conversations in this language only, e.g. en (default: all; needs py3langid)",
    )
    arguments = parser.parse_args(argv)
    report = clean_sharegpt(arguments.input, arguments.output, arguments.report, arguments.source, arguments.keep_lang)
    print(format_report(report))
    print(f"wrote {arguments.output} and {arguments.report}")


if __name__ == "__main__":
    run_command(main)
