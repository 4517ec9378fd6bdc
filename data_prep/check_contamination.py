"""Find out how much of a test set stands in the training data: AgentTuning's contamination analysis."""

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_prep.contamination.evidence import candidate_records, find_evidence
from data_prep.contamination.index import IntArray, WindowIndex, build_index, check_definition, covered_tokens
from data_prep.contamination.report import (
    ContaminationReport,
    ItemEvidence,
    ItemResult,
    format_report,
    sum_up,
    sum_up_tasks,
    verdict,
)
from data_prep.contamination.search import search_training
from data_prep.contamination.texts import (
    TRAIN_PARTS,
    Numbering,
    TestItem,
    TrainingInputs,
    open_training_inputs,
    read_test_items,
    read_training_texts,
    split_specification,
)
from megatron_agent.errors import UserError, run_command
from megatron_agent.files import atomic_write, check_writable, sha256_file
from megatron_agent.processes import available_cores

DESCRIPTION = """\
Find out how much of a test set stands in the training data, as AgentTuning did (appendix B): a token of a test
item is contaminated when it lies in 10 consecutive tokens of which at most 4 differ from 10 consecutive tokens of
a training turn, position by position. An item is dirty when more than 80 % of its tokens are, clean when less than
20 % are. The search is exact. Tokens are words and punctuation marks in lower case, or, with --tokenizer, the
model's. Instructions that every item of a task repeats are contaminated by design: let the items be the task
descriptions alone (--text-field), as in the paper."""

EPILOG = """\
examples:
  python -m data_prep.check_contamination --train runs/agentinstruct.jsonl --test runs/tasks.jsonl
  python -m data_prep.check_contamination --train runs/agentinstruct.jsonl runs/sharegpt.jsonl \\
      --test db=data/dbbench/dev.jsonl kg=data/knowledgegraph/dev.json --tokenizer Llama-2-7b-chat-hf \\
      --report runs/contamination.json"""


def check_contamination(
    train: Sequence[str | Path],
    test: Sequence[str],
    *,
    train_prefixes: Sequence[str | Path] = (),
    tokenizer_path: str | None = None,
    report_path: str | Path | None = None,
    ngram: int = 10,
    mismatches: int = 4,
    dirty: float = 0.8,
    clean: float = 0.2,
    text_fields: Sequence[str] = (),
    train_part: str = "all",
    evidence: int = 20,
    workers: int | None = None,
) -> ContaminationReport:
    """Compare test items (`test`: paths, or `TASK=PATH`) with training conversations; write the report if asked to.

    A window of `ngram` tokens of an item matches a window of a training turn when they differ in at most
    `mismatches` positions; all its tokens are then contaminated. For the `evidence` most contaminated items the
    report names training conversations. `workers` processes search (default: the cores at hand).

    Raises `UserError` for malformed or empty inputs and settings that make no sense, with nothing written.
    """
    check_definition(ngram, mismatches)
    if not 0 <= clean <= dirty <= 1:
        raise UserError(f"--clean {clean} --dirty {dirty}: expected 0 <= clean <= dirty <= 1")
    workers = available_cores() if workers is None else workers
    for flag, number, least in (("--evidence", evidence, 0), ("--workers", workers, 1)):
        if number < least:
            raise UserError(f"{flag} {number}: expected at least {least}")
    inputs = open_training_inputs(train, train_prefixes, train_part, tokenizer_path)
    if report_path is not None:
        check_writable(report_path, "--report")
    items = read_test_items(test, text_fields)
    numbering = Numbering(tokenizer_path)
    numbered = numbering.learn([text for item in items for text in item.texts])
    index = build_index(numbered, ngram, mismatches)
    search = search_training(index, numbering, read_training_texts(inputs), workers)

    lengths = iter([len(text) for text in numbered])
    text_lengths = [[next(lengths) for _ in item.texts] for item in items]
    contaminated = covered_tokens(index, search.record >= 0)
    results = judge_items(items, text_lengths, contaminated, ngram, dirty, clean)
    test_paths = [split_specification(specification)[1] for specification in test]
    report = ContaminationReport(
        settings={
            "ngram": ngram,
            "mismatches": mismatches,
            "dirty": dirty,
            "clean": clean,
            "tokens": tokenizer_path or "words and punctuation marks, lower case",
            "train_part": train_part,
            "text_fields": list(text_fields),
        },
        test_files={str(path): sha256_file(path) for path in test_paths},
        training_files=training_hashes(inputs),
        training_conversations=search.conversations,
        training_turns=search.turns,
        training_tokens=search.tokens,
        total=sum_up("all", results),
        tasks=sum_up_tasks(results),
        items=results,
        evidence=most_contaminated(items, results, index, search.record, inputs, numbering, evidence),
    )
    if report_path is not None:
        with atomic_write(report_path) as handle:
            json.dump(dataclasses.asdict(report), handle, ensure_ascii=False, indent=1)
            handle.write("\n")
    return report


def judge_items(
    items: Sequence[TestItem],
    text_lengths: Sequence[Sequence[int]],
    contaminated: npt.NDArray[np.bool_],
    ngram: int,
    dirty: float,
    clean: float,
) -> list[ItemResult]:
    """Count each item's tokens. `text_lengths` has the tokens of each of its texts, `contaminated` `[all tokens]`."""
    results = []
    rest = contaminated
    for item, lengths in zip(items, text_lengths, strict=True):
        flags, rest = rest[: sum(lengths)], rest[sum(lengths) :]
        share = float(flags.mean()) if len(flags) else 0.0
        changes = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]])))
        results.append(
            ItemResult(
                id=item.id,
                task=item.task,
                where=item.where,
                tokens=len(flags),
                contaminated_tokens=int(flags.sum()),
                share=share,
                verdict=verdict(share, dirty, clean),
                too_short=max(lengths) < ngram,
                spans=changes.reshape(-1, 2).tolist(),
            )
        )
    return results


def training_hashes(inputs: TrainingInputs) -> dict[str, str]:
    """sha256 of the training files, by path."""
    files = {str(file): sha256_file(file) for file in inputs.files}
    return files | {f"{dataset.prefix}.bin": dataset.manifest.bin_sha256 for dataset in inputs.datasets}


def most_contaminated(
    items: Sequence[TestItem],
    results: Sequence[ItemResult],
    index: WindowIndex,
    record: IntArray,
    inputs: TrainingInputs,
    numbering: Numbering,
    count: int,
) -> list[ItemEvidence]:
    """Return the evidence for the `count` most contaminated items, the most contaminated first.

    `record` `[windows]` is a training conversation that holds the window, -1 for none.
    """
    borders = np.concatenate([[0], np.cumsum([result.tokens for result in results])])
    ranked = sorted(range(len(items)), key=lambda number: (-results[number].share, number))
    chosen = [number for number in ranked if results[number].contaminated_tokens][:count]
    candidates = {}
    for number in chosen:
        inside = slice(*np.searchsorted(index.occurrences, borders[number : number + 2]))
        candidates[number] = candidate_records(index.occurrence_window[inside], record)
    found = find_evidence(
        {number: items[number] for number in chosen},
        candidates,
        read_training_texts(inputs),
        numbering,
        index.ngram,
        index.mismatches,
    )
    return [ItemEvidence(results[number], found[number]) for number in chosen]


def main(argv: list[str] | None = None) -> None:
    """Command line of the check."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.check_contamination",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--train", nargs="+", default=[], metavar="X.jsonl", help="conversation JSONL files")
    parser.add_argument(
        "--train-prefix", nargs="+", default=[], metavar="P", help="indexed datasets (with their --tokenizer)"
    )
    parser.add_argument(
        "--test",
        required=True,
        nargs="+",
        metavar="Y.jsonl",
        help="test items: JSONL or a JSON array of conversations, objects with a text, or strings; TASK=PATH names "
        "the task, otherwise the items' \"task\", the id without its number, or the file's name does",
    )
    parser.add_argument(
        "--tokenizer",
        metavar="T",
        help="compare a model's tokens: folder or file of its tokenizer (default: words and punctuation marks)",
    )
    parser.add_argument(
        "--text-field",
        nargs="+",
        default=[],
        metavar="KEY",
        help="keys of a test item that hold its text (default: conversations, else the first of question, "
        "description, prompt, instruction, intent, turns, text)",
    )
    parser.add_argument("--train-part", choices=TRAIN_PARTS, default="all", help="turns to compare with (default: all)")
    parser.add_argument("--ngram", type=int, default=10, metavar="N", help="tokens of a match (default: 10)")
    parser.add_argument(
        "--mismatches", type=int, default=4, metavar="N", help="tokens of a match that may differ (default: 4)"
    )
    parser.add_argument(
        "--dirty", type=float, default=0.8, metavar="S", help="share above which an item is dirty (default: 0.8)"
    )
    parser.add_argument(
        "--clean", type=float, default=0.2, metavar="S", help="share below which it is clean (default: 0.2)"
    )
    parser.add_argument("--report", metavar="R.json", help="everything, item by item, as JSON")
    parser.add_argument(
        "--evidence",
        type=int,
        default=20,
        metavar="N",
        help="most contaminated items to name training conversations for (default: 20)",
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes that search (default: the cores at hand)")
    arguments = parser.parse_args(argv)
    report = check_contamination(
        arguments.train,
        arguments.test,
        train_prefixes=arguments.train_prefix,
        tokenizer_path=arguments.tokenizer,
        report_path=arguments.report,
        ngram=arguments.ngram,
        mismatches=arguments.mismatches,
        dirty=arguments.dirty,
        clean=arguments.clean,
        text_fields=arguments.text_field,
        train_part=arguments.train_part,
        evidence=arguments.evidence,
        workers=arguments.workers,
    )
    print(format_report(report))
    if arguments.report:
        print(f"wrote {arguments.report}")


if __name__ == "__main__":
    run_command(main)
