"""Clean ShareGPT dumps into conversation JSONL; every repair and every drop has a name and a count."""

import argparse
import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_prep.sharegpt.cleaning_report import CleaningReport, format_report
from data_prep.sharegpt.cleaning_rules import DEFAULT, PRESETS, format_rules, select_rules
from data_prep.sharegpt.kept_records import UNLABELLED, LabelledFile, count_kept, kept_records, split_records
from data_prep.sharegpt.layouts import MODEL_FAMILIES, model_family
from data_prep.sharegpt.near_duplicates import BANDS, PERMUTATIONS, SEED, SHINGLE_WORDS, THRESHOLD
from data_prep.sharegpt.record_cleaner import CleaningSettings
from data_prep.split_long import SplitSettings
from megatron_agent.chat.conversation import conversation_to_record, refuse_lone_surrogates, require_file
from megatron_agent.chat.template import TEMPLATES
from megatron_agent.errors import UserError, run_command
from megatron_agent.files import atomic_write, check_writable
from megatron_agent.processes import available_cores, check_workers

DESCRIPTION = """\
Read ShareGPT dumps, repair what named rules repair, drop what named rules drop (--list-rules), and write conversation
JSONL whose gpt turns are all trained. Layouts, found record by record: ShareGPT V3 {"id", "conversations": [{"from",
"value"}]}, the raw dump whose answers are HTML, and OpenChat's labelled {"model", "items": [...]}; JSON arrays or
JSONL, gzip or not. A file that is cut off or damaged is read on at the next record, with a warning. The report holds
the count of every rule, five examples of each, and the ids of what was dropped."""

EPILOG = """\
examples:
  python -m data_prep.clean_sharegpt --input sharegpt.json --keep-lang en \\
      --source sharegpt --output runs/sharegpt.jsonl --report runs/sharegpt_report.json
  # one file that has a model field, into runs/general.gpt-4.jsonl, .gpt-3.5.jsonl and .unlabelled.jsonl
  python -m data_prep.clean_sharegpt --input sharegpt_clean.json --split-by-model \\
      --output runs/general.jsonl --report runs/general_report.json
  # a file per model; conversations within 4,096 tokens
  python -m data_prep.clean_sharegpt --input-of gpt-4 a.json --input-of gpt-3.5 b.json --split-by-model \\
      --max-length 4096 --tokenizer Llama-2-7b-chat-hf --template llama-2 \\
      --output runs/general.jsonl --report runs/general_report.json"""

MOST_WORKERS = 8  # this process feeds no more than that


def clean_sharegpt(
    inputs: Sequence[str | Path | LabelledFile],
    output: str | Path,
    report_path: str | Path,
    source: str | None = None,
    keep_lang: str | None = None,
    rules: frozenset[str] | None = None,
    split: SplitSettings | None = None,
    split_by_model: bool = False,
    workers: int = 1,
) -> CleaningReport:
    """Clean `inputs` into the JSONL file `output` and write the report as JSON.

    `rules` are names (`select_rules`; default: the default preset). With `split_by_model` there is a file for each
    model beside `output`, which is not written itself. Nothing depends on the number of `workers`, processes.

    Raises `UserError` for a missing file, one without a single record, an output that is also an input, settings that
    do not fit together, and when nothing is left. Then, and when a disk is full, nothing is written.
    """
    refuse_lone_surrogates(source or "", "--source")
    files = [file if isinstance(file, LabelledFile) else LabelledFile(Path(file)) for file in inputs]
    outputs = output_files(Path(output), split_by_model)
    check_paths([require_file(file.path) for file in files], [*outputs.values()], Path(report_path))
    for file in files:
        if file.model is not None and model_family(file.model) is None:
            raise UserError(
                f"--input-of {file.model}: expected a model's name, one of {', '.join(known_model_names())}"
            )
    check_workers(workers)
    settings = CleaningSettings(select_rules() if rules is None else rules, keep_lang)
    report = CleaningReport(settings=describe_settings(settings, source, split, split_by_model))
    cleaned = kept_records(files, report, settings, workers)
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.closing(cleaned))  # ends the bar and the workers before an error is printed
        handles = {model: stack.enter_context(atomic_write(path)) for model, path in outputs.items()}
        report_handle = stack.enter_context(atomic_write(report_path))
        report.outputs = {str(path): 0 for path in outputs.values()}
        for record, conversation, parts in split_records(cleaned, report, source, split):
            count_kept(report, record, conversation, parts)
            model = (conversation.model or "") if split_by_model else ""
            model = model if model in outputs else UNLABELLED
            report.outputs[str(outputs[model])] += len(parts)
            for part in parts:
                handles[model].write(json.dumps(conversation_to_record(part), ensure_ascii=False) + "\n")
        if not report.kept:
            raise UserError(
                f"{', '.join(str(file.path) for file in files)}: none of {report.read:,} records is left; dropped by "
                f"rule: {dict(report.dropped)}; expected ShareGPT records"
            )
        report.check_sums()
        report.write(report_handle)
    return report


def output_files(output: Path, split_by_model: bool) -> dict[str, Path]:
    """The files to write, by model; without `split_by_model` the one file, under `UNLABELLED`."""
    if not split_by_model:
        return {UNLABELLED: output}
    stem, suffix = (
        (output.with_suffix(""), output.suffix) if output.suffix in (".jsonl", ".json") else (output, ".jsonl")
    )
    return {model: stem.with_name(f"{stem.name}.{model}{suffix}") for model in (*MODEL_FAMILIES, UNLABELLED)}


def check_paths(inputs: Sequence[Path], outputs: Sequence[Path], report: Path) -> None:
    """Raise `UserError` for outputs that cannot be written, are each other, or are inputs."""
    if report.resolve() in {path.resolve() for path in outputs}:
        raise UserError(f"--output and --report are the same file ({report}); give two paths")
    for flag, written in (*(("--output", path) for path in outputs), ("--report", report)):
        check_writable(written, flag)
        if written.resolve() in {path.resolve() for path in inputs}:
            raise UserError(f"{written}: is an input file too; choose another --output and --report")


def describe_settings(
    settings: CleaningSettings, source: str | None, split: SplitSettings | None, split_by_model: bool
) -> dict[str, Any]:
    """What the report says about how it was made."""
    near = {
        "threshold": THRESHOLD,
        "shingle_words": SHINGLE_WORDS,
        "permutations": PERMUTATIONS,
        "bands": BANDS,
        "seed": SEED,
    }
    return {
        "rules": sorted(settings.rules),
        "near_duplicate": near if "near_duplicate" in settings.rules else None,
        "keep_lang": settings.keep_lang,
        "source": source,
        "split_by_model": split_by_model,
        "split": {**vars(split), "tokenizer": str(split.tokenizer)} if split else None,
    }


def known_model_names() -> list[str]:
    """Every name in the table of models."""
    return [name for names in MODEL_FAMILIES.values() for name in names]


class OrderedInputs(argparse.Action):
    """Collect the files of --input and --input-of in the order of the command line."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Append to `namespace.inputs`."""
        inputs = list(getattr(namespace, self.dest, None) or [])
        if option_string == "--input-of":
            inputs.append(LabelledFile(Path(values[1]), values[0]))
        else:
            inputs += [LabelledFile(Path(value)) for value in values]
        setattr(namespace, self.dest, inputs)


class ListRules(argparse.Action):
    """Print the rules and end."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Print and exit."""
        print(format_rules())
        parser.exit()


def build_parser() -> argparse.ArgumentParser:
    """The command line's options."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.clean_sharegpt",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    files = parser.add_argument_group("files")
    files.add_argument(
        "--input",
        dest="inputs",
        action=OrderedInputs,
        nargs="+",
        metavar="F",
        help="JSON array or JSONL files, gzip or not",
    )
    files.add_argument(
        "--input-of",
        dest="inputs",
        action=OrderedInputs,
        nargs=2,
        metavar=("MODEL", "F"),
        help="a file whose conversations are all of one model, e.g. gpt-4; may be repeated. A record's own label wins, "
        "and such conflicts are counted",
    )
    files.add_argument("--output", required=True, metavar="X.jsonl", help="conversation JSONL to write")
    files.add_argument("--report", required=True, metavar="R.json", help="counts, examples and dropped ids to write")
    files.add_argument(
        "--split-by-model",
        action="store_true",
        help="write X.gpt-4.jsonl, X.gpt-3.5.jsonl and X.unlabelled.jsonl in place of X.jsonl",
    )
    files.add_argument("--source", metavar="NAME", help='"source" to put into every record (default: none)')
    rules = parser.add_argument_group("rules")
    rules.add_argument("--list-rules", action=ListRules, nargs=0, help="print every rule with what it does, and end")
    rules.add_argument(
        "--rules",
        choices=sorted(PRESETS),
        default=DEFAULT,
        help="the set of rules to begin with (default: %(default)s). "
        + "; ".join(f"{k}: {v}" for k, v in PRESETS.items()),
    )
    rules.add_argument("--skip-rule", action="append", default=[], metavar="NAME", help="switch a rule off; repeatable")
    rules.add_argument("--add-rule", action="append", default=[], metavar="NAME", help="switch a rule on; repeatable")
    rules.add_argument(
        "--keep-lang",
        metavar="CODE",
        help="keep conversations in this language only, e.g. en (default: all; needs py3langid)",
    )
    split = parser.add_argument_group("splitting of over-long conversations (off without --max-length)")
    split.add_argument("--max-length", type=int, metavar="N", help="longest conversation to write, tokens, e.g. 4096")
    split.add_argument("--tokenizer", metavar="T", help="as for build_indexed_dataset")
    split.add_argument("--template", choices=sorted(TEMPLATES), help="as for build_indexed_dataset")
    split.add_argument("--system-prompt", metavar="S", help="as for build_indexed_dataset (default: the template's)")
    parser.add_argument(
        "--workers",
        type=int,
        default=min(available_cores(), MOST_WORKERS),
        metavar="N",
        help=f"processes; the output does not depend on it (default: the available cores, at most {MOST_WORKERS})",
    )
    return parser


def split_settings(arguments: argparse.Namespace) -> SplitSettings | None:
    """The settings of --max-length and what belongs to it. Raises `UserError` when they are not given together."""
    together = {
        "--max-length": arguments.max_length,
        "--tokenizer": arguments.tokenizer,
        "--template": arguments.template,
    }
    missing = [flag for flag, value in together.items() if value is None]
    if len(missing) == len(together) and arguments.system_prompt is None:
        return None
    if missing:
        raise UserError(f"{', '.join(missing)} missing: splitting needs {', '.join(together)} together")
    return SplitSettings(arguments.max_length, arguments.tokenizer, arguments.template, arguments.system_prompt)


def main(argv: list[str] | None = None) -> None:
    """Command line of the cleaner."""
    arguments = build_parser().parse_args(argv)
    if not arguments.inputs:
        raise UserError("no input; give --input F or --input-of MODEL F")
    report = clean_sharegpt(
        arguments.inputs,
        arguments.output,
        arguments.report,
        arguments.source,
        arguments.keep_lang,
        rules=select_rules(arguments.rules, arguments.skip_rule, arguments.add_rule),
        split=split_settings(arguments),
        split_by_model=arguments.split_by_model,
        workers=arguments.workers,
    )
    print(format_report(report))
    print(
        "wrote "
        + ", ".join(f"{path} ({count:,})" for path, count in report.outputs.items())
        + f" and {arguments.report}"
    )


if __name__ == "__main__":
    run_command(main)
