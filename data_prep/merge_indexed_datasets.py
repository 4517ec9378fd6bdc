"""Merge indexed datasets into one without encoding anything again."""

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from data_prep.build_indexed_dataset import format_manifest, refuse_existing
from megatron_agent.dataset.indexed import ConversationDataset
from megatron_agent.dataset.manifest import Manifest, dataset_file
from megatron_agent.dataset.writer import DocumentBatch, write_indexed_dataset
from megatron_agent.errors import UserError, run_command

DESCRIPTION = """\
Copy the conversations of several indexed datasets, in the order given, into one. The datasets must have been built
with the same tokenizer, template and system prompt; each is verified before it is read. To mix datasets with
weights, do not merge them: name each as a source of the training configuration."""

EPILOG = """\
example:
  python -m data_prep.merge_indexed_datasets --input runs/indexed/part1 runs/indexed/part2 \\
      --output-prefix runs/indexed/all"""

SAME = ("tokenizer_sha256", "vocab_size", "template", "system_prompt")
CHUNK = 4096  # conversations copied at a time


def merge_indexed_datasets(
    inputs: Sequence[str | Path], output_prefix: str | Path, overwrite: bool = False
) -> Manifest:
    """Merge the datasets at the prefixes `inputs` into `<output_prefix>.{bin,idx,manifest.json}`; return its manifest.

    Raises `UserError`, with nothing written, for a dataset that is missing or altered, one given twice, datasets
    that do not belong together, and an output that is an input or exists already unless `overwrite`.
    """
    bin_files = [dataset_file(prefix, ".bin").resolve() for prefix in inputs]
    for prefix, file in zip(inputs, bin_files, strict=True):
        if bin_files.count(file) > 1:
            raise UserError(f"--input {prefix}: given twice; its conversations would be doubled")
    if dataset_file(output_prefix, ".bin").resolve() in bin_files:
        raise UserError(f"--output-prefix {output_prefix}: is an input too; choose another one")
    refuse_existing(output_prefix, overwrite)
    datasets = [ConversationDataset(prefix) for prefix in inputs]
    first = datasets[0]
    for other in datasets[1:]:
        for field in SAME:
            ours, theirs = getattr(first.manifest, field), getattr(other.manifest, field)
            if ours != theirs:
                raise UserError(
                    f"{first.prefix} and {other.prefix} were built with different {field}: {ours!r} and {theirs!r}; "
                    "build both with the same --tokenizer, --template and --system-prompt"
                )
    dropped: Counter[str] = Counter()
    repaired: Counter[str] = Counter()
    source: dict[str, str] = {}
    for dataset in datasets:
        dropped.update(dataset.manifest.dropped)
        repaired.update(dataset.manifest.repaired)
        for path, digest in dataset.manifest.source.items():
            known = source.get(path, digest) == digest
            source[path if known else f"{path} (of {dataset.prefix})"] = digest
    return write_indexed_dataset(
        output_prefix,
        (batch for dataset in datasets for batch in batches(dataset)),
        vocab_size=first.manifest.vocab_size,
        tokenizer_name=first.manifest.tokenizer_name,
        tokenizer_sha256=first.manifest.tokenizer_sha256,
        template=first.manifest.template,
        system_prompt=first.manifest.system_prompt,
        max_length=max(dataset.manifest.max_length for dataset in datasets),
        dropped=dropped,
        repaired=repaired,
        source=source,
    )


def batches(dataset: ConversationDataset) -> Iterator[DocumentBatch]:
    """Yield the conversations of a dataset as they are on disk."""
    for start in range(0, len(dataset), CHUNK):
        end = min(start + CHUNK, len(dataset))
        spans = slice(dataset.span_borders[start], dataset.span_borders[end])
        yield DocumentBatch(
            ids=dataset.tokens[dataset.borders[start] : dataset.borders[end]],
            span_lengths=dataset.span_lengths[spans],
            modes=dataset.modes[spans],
            document_spans=dataset.span_borders[start + 1 : end + 1] - dataset.span_borders[start:end],
        )


def main(argv: list[str] | None = None) -> None:
    """Command line of the merge."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.merge_indexed_datasets",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--input", required=True, nargs="+", metavar="P", help="prefixes of the datasets, in order")
    parser.add_argument(
        "--output-prefix", required=True, metavar="P", help="path of the new dataset, without an ending"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a dataset at this prefix")
    arguments = parser.parse_args(argv)
    manifest = merge_indexed_datasets(arguments.input, arguments.output_prefix, arguments.overwrite)
    print(format_manifest(manifest))
    print(f"wrote {arguments.output_prefix}.bin, .idx and .manifest.json")


if __name__ == "__main__":
    run_command(main)
