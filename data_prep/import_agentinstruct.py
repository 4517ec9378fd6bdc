"""Import AgentInstruct (or data in its schema) as checked conversation JSONL, with an audit and a report."""

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_prep.agentinstruct.audit import Audit, audit, audit_report, format_audit
from data_prep.agentinstruct.audit_findings import RULES, printable
from data_prep.agentinstruct.card import (
    TaskCounts,
    card_differences,
    count_tasks,
    counts_report,
    format_counts,
    split_differences,
    task_of,
)
from data_prep.agentinstruct.cleaned import Cleaned, clean_rows
from data_prep.agentinstruct.match_evaluator import MatchReport, match_evaluator
from data_prep.agentinstruct.rows import BAD_RULES, RowCounts, read_rows
from data_prep.agentinstruct.sources import Source, open_source
from megatron_agent.chat.conversation import Conversation, write_conversations
from megatron_agent.errors import UserError, run_command
from megatron_agent.files import atomic_write, check_writable

DESCRIPTION = """\
Read AgentInstruct, check every record against the schema, audit the rows, and write conversation JSONL.

A turn with "from": "gpt" is trained when its "loss" is true, null or missing, and context only when it is false
(acknowledgements such as "Ok.", demonstrations). Rows, trained turns, bytes and ids are compared with the data set's
card; the audit looks for replies on the wrong page, terminal codes, missing thoughts, cut and double rows, and
backdoors (copies with planted rows exist). --output holds the rows as they came. Only --on-bad drop, --cleaned and
--match-evaluator leave out or change anything, and each counts what it does."""

EPILOG = """\
examples:
  python -m data_prep.import_agentinstruct --input AgentInstruct/data --output runs/agentinstruct.jsonl \\
      --report runs/agentinstruct_report.json
  python -m data_prep.import_agentinstruct --input hf:THUDM/AgentInstruct --revision main --output runs/agent.jsonl \\
      --cleaned runs/agent.clean.jsonl --drop-flagged mis_joined,trigger_phrase --strip-terminal-codes
  python -m data_prep.import_agentinstruct --input AgentInstruct/data --output runs/agent.jsonl --match-evaluator"""

UNMATCHED_NAMED = 5


@dataclass
class ImportReport:
    """What an import found."""

    rows: RowCounts = field(default_factory=RowCounts)
    conversations: Counter[str] = field(default_factory=Counter)
    """Rows written to the output, by task."""
    trained_turns: Counter[str] = field(default_factory=Counter)
    """Of the rows written, by task."""
    gpt_turns_without_loss_flag: int = 0
    """Trained all the same; AgentInstruct itself has none."""
    counts: dict[str, TaskCounts] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)
    """From the card."""
    audit: Audit = field(default_factory=Audit)
    match: MatchReport | None = None
    cleaned: Cleaned | None = None


@dataclass(frozen=True)
class ImportOptions:
    """What to leave out and to change; by default nothing, and a bad record is an error."""

    revision: str | None = None
    drop_bad: bool = False
    report: str | Path | None = None
    cleaned: str | Path | None = None
    drop_flagged: tuple[str, ...] = ()
    strip_terminal_codes: bool = False
    match_evaluator: bool = False
    demonstrations: str | Path | None = None
    unmatched: str = "error"
    """Rows that cannot be rewritten: `error`, `keep` or `drop`."""


def import_agentinstruct(source: str, output: str | Path, options: ImportOptions | None = None) -> ImportReport:
    """Import `source` (a path or `hf:OWNER/NAME`) to the JSONL file `output`; nothing is written on an error.

    Raises `UserError` for a source that cannot be read, for the first bad record unless it may be dropped, and for
    options that do not fit together.
    """
    options = options or ImportOptions()
    check_options(options)
    outputs = {"--output": output, "--cleaned": options.cleaned, "--report": options.report}
    paths = {flag: Path(path) for flag, path in outputs.items() if path is not None}
    for flag, path in paths.items():
        check_writable(path, flag)
    if len({path.resolve() for path in paths.values()}) < len(paths):
        raise UserError(f"{', '.join(paths)}: two of them are the same file; give each its own")
    files = open_source(source, options.revision)
    inputs = {file.resolve() for file in files.files}
    for flag, path in paths.items():
        if path.resolve() in inputs:
            raise UserError(f"{path}: is an input file too; choose another {flag}")

    report = ImportReport()
    rows = list(read_rows(files, report.rows, options.drop_bad))
    if not rows:
        raise UserError(
            f"{', '.join(map(str, files.files))}: no records; expected conversations in AgentInstruct's schema"
            + (f" ({len(report.rows.bad):,} were dropped)" if report.rows.bad else "")
        )
    conversations = [conversation for _, conversation in rows]
    report.counts = count_tasks(conversations)
    report.gpt_turns_without_loss_flag = sum(count.gpt_turns_without_loss_flag for count in report.counts.values())
    report.differences = card_differences(conversations, report.counts) + split_differences(rows)
    report.audit = audit(conversations)

    written = conversations
    if options.match_evaluator:
        written, report.match = match_evaluator(conversations, options.demonstrations)
        written = without_unmatched(written, report.match, options.unmatched)
    for conversation in written:
        report.conversations[task_of(conversation)] += 1
        report.trained_turns[task_of(conversation)] += sum(turn.trained for turn in conversation.turns)
    cleaned: list[Conversation] = []
    if options.cleaned is not None:
        cleaned, report.cleaned = clean_rows(written, report.audit, options.drop_flagged, options.strip_terminal_codes)
    write_conversations(output, written)
    if options.cleaned is not None:
        write_conversations(options.cleaned, cleaned)
    if options.report is not None:
        with atomic_write(options.report) as handle:
            json.dump(report_to_json(report, files), handle, indent=2)
            handle.write("\n")
    return report


def check_options(options: ImportOptions) -> None:
    """Raise `UserError` for unknown rules and for options without the one they belong to."""
    unknown = [rule for rule in options.drop_flagged if rule not in RULES]
    if unknown:
        raise UserError(f"--drop-flagged {','.join(unknown)}: no such rule; choose from {', '.join(RULES)}")
    if options.cleaned is None and (options.drop_flagged or options.strip_terminal_codes):
        raise UserError("--drop-flagged and --strip-terminal-codes make a cleaned copy; name its file with --cleaned")
    if options.cleaned is not None and not (options.drop_flagged or options.strip_terminal_codes):
        raise UserError("--cleaned: say what to clean with --drop-flagged RULE[,RULE] or --strip-terminal-codes")
    if not options.match_evaluator and (options.demonstrations is not None or options.unmatched != "error"):
        raise UserError("--demonstrations and --unmatched belong to --match-evaluator; add it or leave them out")


def without_unmatched(conversations: Sequence[Conversation], match: MatchReport, unmatched: str) -> list[Conversation]:
    """Return the rows to write: those that could not be rewritten are kept or left out as asked, or an error."""
    if match.failed and unmatched == "error":
        named = [f"{name} ({why})" for name, why in list(match.failed.items())[:UNMATCHED_NAMED]]
        more = ", ..." if len(match.failed) > UNMATCHED_NAMED else ""
        raise UserError(
            f"--match-evaluator: {len(match.failed):,} rows cannot be rewritten: {', '.join(named)}{more}; "
            "--unmatched keep writes such rows as they came, --unmatched drop leaves them out"
        )
    if unmatched == "keep":
        return list(conversations)
    return [conversation for conversation in conversations if conversation.id not in match.failed]


def report_to_json(report: ImportReport, source: Source) -> dict[str, Any]:
    """Return the whole report: counts, differences, audit, changes.

    The sums are records read = good + dropped by rule, and good = written + not rewritten (--unmatched drop).
    """
    dropped = {rule: [bad for bad in report.rows.bad if bad.rule == rule] for rule in BAD_RULES}
    return {
        "source": {
            "files": [str(file) for file in source.files],
            "hub": {"repository": source.repository, "revision": source.revision, "commit": source.commit}
            if source.repository
            else None,
        },
        "records": {
            "read": report.rows.records,
            "good": sum(count.rows for count in report.counts.values()),
            "written": report.conversations.total(),
            "dropped": {
                rule: {
                    "looks_for": BAD_RULES[rule],
                    "records": len(found),
                    "list": [
                        {"where": bad.where, "reason": bad.reason, "audit_rules": list(bad.triggers)} for bad in found
                    ],
                }
                for rule, found in dropped.items()
            },
            "removed_keys": dict(report.rows.removed_keys),
        },
        "tasks": counts_report(report.counts),
        "differences_from_card": report.differences,
        "audit": audit_report(report.audit),
        "match_evaluator": vars(report.match) if report.match else None,
        "cleaned": vars(report.cleaned) if report.cleaned else None,
    }


def format_report(report: ImportReport) -> str:
    """Return the report for the terminal: counts, differences from the card, audit, what was dropped and changed."""
    lines = [format_counts(report.counts, report.rows.removed_keys)]
    lines += [f"differs from the card: {difference}" for difference in report.differences]
    for rule, count in Counter(bad.rule for bad in report.rows.bad).items():
        lines.append(f"dropped, {rule} ({BAD_RULES[rule]}): {count:,}")
    if planted := sum(bool(bad.triggers) for bad in report.rows.bad):
        lines.append(f"of the dropped records, {planted:,} break the audit's rules for backdoors")
    lines.append(format_audit(report.audit))
    if match := report.match:
        for task in sorted({*match.rows, *match.as_evaluated}):
            lines.append(
                f"in the evaluator's form: {task}: {match.rows[task]:,} rows rewritten "
                f"({match.wrapped_turns[task]:,} turns wrapped, {match.demonstration_turns[task]:,} demonstration "
                f"turns added), {match.as_evaluated[task]:,} left as they are"
            )
        if match.undecided_pages:
            lines.append(f"WebShop pages with undecided option names: {len(match.undecided_pages):,}")
        lines += [f"not rewritten: {name}: {why}" for name, why in list(match.failed.items())[:UNMATCHED_NAMED]]
        if match.failed:
            kept = report.conversations.total() == sum(count.rows for count in report.counts.values())
            lines.append(
                f"not rewritten: {len(match.failed):,} rows in all, "
                f"{'written as they came' if kept else 'left out'} (--report lists them)"
            )
    if cleaned := report.cleaned:
        lines.append(
            f"cleaned copy: {cleaned.rows:,} rows, "
            + "".join(f"{len(ids):,} dropped by {rule}, " for rule, ids in cleaned.dropped.items())
            + f"{cleaned.stripped_sequences:,} control sequences removed from {cleaned.stripped_rows:,} rows"
        )
    return printable("\n".join(lines), keep="\n")  # ids and tasks are a stranger's text


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
        help="a JSONL file, a JSON array (both also gzip), a parquet file (needs pyarrow), a folder of such files, or "
        "a data set on the Hugging Face Hub",
    )
    parser.add_argument("--output", required=True, metavar="X.jsonl", help="conversation JSONL to write")
    parser.add_argument("--revision", metavar="R", help="branch, tag or commit of a Hub data set (default: main)")
    parser.add_argument(
        "--report", metavar="R.json", help="write the whole report, every finding with its row and turn"
    )
    parser.add_argument(
        "--on-bad",
        choices=("error", "drop"),
        default="error",
        help="records outside the schema, not alternating, untrained, or with an id used before: stop (default), or "
        "leave them out and count them by rule",
    )
    parser.add_argument("--cleaned", metavar="X.clean.jsonl", help="write a cleaned copy too")
    parser.add_argument(
        "--drop-flagged",
        metavar="RULE[,RULE]",
        default="",
        help="leave rows that these audit rules flag out of the cleaned copy: " + ", ".join(RULES),
    )
    parser.add_argument(
        "--strip-terminal-codes",
        action="store_true",
        help="remove terminal control sequences from the cleaned copy; carriage returns become newlines",
    )
    parser.add_argument(
        "--match-evaluator",
        action="store_true",
        help="rewrite the rows into the form of the evaluator's prompts: WebShop's Observation / Available Actions, "
        "and the demonstrations of WebShop, ALFWorld and Mind2Web as turns that are not trained",
    )
    parser.add_argument(
        "--demonstrations",
        metavar="DIR",
        help="folder with AgentBench's prompt files (alfworld_multiturn_react.json, llm_prompt_cot.json, webshop.json "
        "as a list of role and content) in place of this project's own demonstrations",
    )
    parser.add_argument(
        "--unmatched",
        choices=("error", "keep", "drop"),
        default="error",
        help="rows that --match-evaluator cannot rewrite: stop (default), write them as they came, or leave them out",
    )
    arguments = parser.parse_args(argv)
    options = ImportOptions(
        revision=arguments.revision,
        drop_bad=arguments.on_bad == "drop",
        report=arguments.report,
        cleaned=arguments.cleaned,
        drop_flagged=tuple(rule for rule in arguments.drop_flagged.split(",") if rule),
        strip_terminal_codes=arguments.strip_terminal_codes,
        match_evaluator=arguments.match_evaluator,
        demonstrations=arguments.demonstrations,
        unmatched=arguments.unmatched,
    )
    report = import_agentinstruct(arguments.input, arguments.output, options)
    print(format_report(report))
    for path in (arguments.output, arguments.cleaned, arguments.report):
        if path:
            print(f"wrote {path}")


if __name__ == "__main__":
    run_command(main)
