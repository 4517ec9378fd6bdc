"""Import AgentInstruct (or data in its schema) as checked conversation JSONL, with counts per task."""

import argparse
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_prep.json_stream import stream_json_records
from megatron_agent.chat.conversation import (
    RECORD_KEYS,
    TURN_KEYS,
    Conversation,
    check_trainable,
    parse_conversation,
    write_conversations,
)
from megatron_agent.errors import UserError, run_command
from megatron_agent.files import check_writable

DESCRIPTION = """\
Read AgentInstruct, check every record against the schema, and write conversation JSONL.

A turn with "from": "gpt" is trained when its "loss" is true, null or missing, and context only when it is false
(acknowledgements such as "Ok.", demonstrations). The table printed at the end compares rows and trained turns
per task with the data set's card: copies with planted rows exist on the Hub."""

EPILOG = """\
examples:
  python -m data_prep.import_agentinstruct --input AgentInstruct/data --output runs/agentinstruct.jsonl
  python -m data_prep.import_agentinstruct --input hf:THUDM/AgentInstruct --output runs/agentinstruct.jsonl"""

# Rows and mean trained turns by split, from the card of THUDM/AgentInstruct.
CARD = {
    "os": (195, 3.85),
    "db": (538, 2.06),
    "alfworld": (336, 13.52),
    "webshop": (351, 3.68),
    "kg": (324, 6.04),
    "mind2web": (122, 1.00),
}


@dataclass
class ImportReport:
    """What an import found."""

    conversations: Counter[str] = field(default_factory=Counter)
    """By task."""
    trained_turns: Counter[str] = field(default_factory=Counter)
    """By task."""
    gpt_turns_without_loss_flag: int = 0
    """Trained all the same; AgentInstruct itself has none."""
    removed_keys: Counter[str] = field(default_factory=Counter)
    """Keys outside the schema, by name."""


def import_agentinstruct(source: str, output: str | Path) -> ImportReport:
    """Import `source` (a path or `hf:OWNER/NAME`) to the JSONL file `output`; nothing is written on an error.

    Raises `UserError` for the first record that is not the schema, cannot be trained on, or repeats an id.
    """
    check_writable(output, "--output")
    report = ImportReport()
    files = download_files(source) if source.startswith("hf:") else input_files(Path(source))
    if Path(output).resolve() in {file.resolve() for file in files}:
        raise UserError(f"{output}: is an input file too; choose another --output")
    write_conversations(output, imported_conversations(files, report))
    return report


def imported_conversations(files: list[Path], report: ImportReport) -> Iterator[Conversation]:
    """Yield the conversations of `files` and count them into `report`."""
    from tqdm import tqdm

    seen: dict[str, str] = {}
    records = (record for file in files for record in read_records(file))
    for where, record in tqdm(records, desc="importing", unit=" records"):
        conversation = parse_conversation(remove_extra_keys(record, report.removed_keys), where)
        check_trainable(conversation, where)
        if conversation.id in seen:
            raise UserError(
                f"{where}: id {conversation.id!r} was used before, at {seen[conversation.id]}; AgentInstruct's ids "
                "are unique, so this copy holds added or doubled rows: remove them or fetch another copy"
            )
        seen[conversation.id] = where
        task = task_of(conversation)
        report.conversations[task] += 1
        report.trained_turns[task] += sum(turn.trained for turn in conversation.turns)
        report.gpt_turns_without_loss_flag += sum(
            turn.speaker == "gpt" and turn.loss is None for turn in conversation.turns
        )
        yield conversation
    if not seen:
        raise UserError(f"{', '.join(map(str, files))}: no records; expected conversations in AgentInstruct's schema")


def task_of(conversation: Conversation) -> str:
    """The record's task, or the part of an id such as `db_42` before its number."""
    return conversation.task or conversation.id.rpartition("_")[0] or conversation.id


def remove_extra_keys(record: object, removed: Counter[str]) -> object:
    """Return a record without keys that the schema does not know, counting them."""
    if not isinstance(record, dict):
        return record
    clean = keep_keys(record, RECORD_KEYS, removed)
    turns = clean.get("conversations")
    if isinstance(turns, list):
        clean["conversations"] = [
            keep_keys(turn, TURN_KEYS, removed) if isinstance(turn, dict) else turn for turn in turns
        ]
    return clean


def keep_keys(record: dict[str, Any], known: tuple[str, ...], removed: Counter[str]) -> dict[str, Any]:
    """Return `record` with the `known` keys only; the others are counted into `removed`."""
    removed.update(key for key in record if key not in known)
    return {key: value for key, value in record.items() if key in known}


def input_files(path: Path) -> list[Path]:
    """Return the data files at `path`: the file itself, or a folder's parquet, else JSONL, else JSON files."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder; check --input (or name a Hub data set: hf:OWNER/NAME)")
    for ending in ("parquet", "jsonl", "json"):
        if files := sorted(path.rglob(f"*.{ending}")):
            return files
    raise UserError(f"{path}: the folder holds no .parquet, .jsonl or .json file")


def download_files(source: str) -> list[Path]:
    """Download the data set `hf:OWNER/NAME` from the Hugging Face Hub (or find it in the cache)."""
    name = source.removeprefix("hf:")
    if name.count("/") != 1 or not all(name.split("/")):
        raise UserError(f"--input {source}: expected hf:OWNER/NAME, e.g. hf:THUDM/AgentInstruct")
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise UserError(
            f"--input {source}: reading from the Hub needs huggingface_hub; pip install 'agentlm-megatron[hub]', "
            "or download the data set and give its folder as --input"
        ) from error
    try:
        folder = snapshot_download(name, repo_type="dataset", allow_patterns=["*.parquet", "*.jsonl", "*.json"])
    except Exception as error:  # the Hub client raises a dozen kinds, offline, missing, private, ...
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"--input {source}: could not be downloaded ({type(error).__name__}: {reason}); check the name and the "
            "network, or download the data set elsewhere and give its folder as --input"
        ) from error
    return input_files(Path(folder))


def read_records(file: Path) -> Iterator[tuple[str, object]]:
    """Yield `(where, record)` from a parquet file, a JSON array or JSONL."""
    if file.suffix != ".parquet":
        yield from stream_json_records(file)
        return
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise UserError(
            f"{file}: reading parquet needs pyarrow; pip install 'agentlm-megatron[hub]', or convert the file "
            "to JSONL elsewhere"
        ) from error
    try:
        number = 0
        for batch in ParquetFile(file).iter_batches():
            for record in batch.to_pylist():
                number += 1
                yield f"{file}: row {number} (id {record.get('id')!r})", record
    except (ArrowException, OSError) as error:
        raise UserError(f"{file}: not a readable parquet file ({error}); fetch it again") from error


def format_report(report: ImportReport) -> str:
    """Return the table of counts for the terminal."""
    lines = [f"{'task':<12}{'rows':>7}{'trained turns':>15}{'mean':>9}   card"]
    for task, rows in sorted(report.conversations.items()):
        trained = report.trained_turns[task]
        verdict = ""
        if task in CARD:
            card_rows, card_mean = CARD[task]
            same = rows == card_rows and abs(trained / rows - card_mean) < 0.0051
            verdict = "as in the card" if same else f"DIFFERS: the card has {card_rows} rows, mean {card_mean:.2f}"
        lines.append(f"{task:<12}{rows:>7,}{trained:>15,}{trained / rows:>9.4f}   {verdict}".rstrip())
    rows, trained = report.conversations.total(), report.trained_turns.total()
    lines.append(f"{'total':<12}{rows:>7,}{trained:>15,}{trained / rows:>9.4f}")
    lines.append(f"gpt turns without a loss flag (trained): {report.gpt_turns_without_loss_flag:,}")
    for key, count in sorted(report.removed_keys.items()):
        lines.append(f"removed key outside the schema: {key!r}, {count:,} times")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """Command line of the import."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.import_agentinstruct",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--input",
        required=True,
        metavar="PATH|hf:OWNER/NAME",
        help="a JSONL file, a JSON array, a parquet file (needs pyarrow), a folder of such files, or a data set on "
        "the Hugging Face Hub",
    )
    parser.add_argument("--output", required=True, metavar="X.jsonl", help="conversation JSONL to write")
    arguments = parser.parse_args(argv)
    report = import_agentinstruct(arguments.input, arguments.output)
    print(format_report(report))
    print(f"wrote {arguments.output}")


if __name__ == "__main__":
    run_command(main)
