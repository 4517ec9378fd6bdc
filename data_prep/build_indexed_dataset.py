"""Build an indexed dataset (tokens and loss flags) from conversation JSONL."""

import argparse
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from data_prep.split_long import split_at_exchanges
from megatron_agent.chat.conversation import Conversation, check_trainable, read_located_conversations, require_file
from megatron_agent.chat.template import (
    TEMPLATES,
    Span,
    Template,
    check_template_fits,
    count_tokens,
    encode_conversations,
    encode_exchanges_as_first,
    flatten,
    get_template,
)
from megatron_agent.chat.tokenizer import Tokenizer, load_tokenizer
from megatron_agent.dataset.indexed import write_indexed_dataset
from megatron_agent.dataset.manifest import Manifest, dataset_file
from megatron_agent.errors import UserError, run_command
from megatron_agent.files import check_writable, sha256_file

DESCRIPTION = """\
Turn conversation JSONL into an indexed dataset: PREFIX.bin and PREFIX.idx (Megatron-core's IndexedDataset; the loss
flag of each span is its mode) and PREFIX.manifest.json (counts, drops by rule, hashes). The whole input is
checked before anything is written."""

EPILOG = """\
example:
  python -m data_prep.build_indexed_dataset --input runs/agentinstruct.jsonl \\
      --tokenizer Llama-2-7b-chat-hf --template llama-2 --output-prefix runs/indexed/agentinstruct"""

POLICIES = ("split", "drop", "error")
CHUNK = 512  # conversations encoded in one batch: some 4 MB of ShareGPT


@dataclass
class BuildCounts:
    """What a build did, beside what the manifest counts."""

    conversations: int = 0
    """Read from the input."""
    dropped: Counter[str] = field(default_factory=Counter)
    repaired: Counter[str] = field(default_factory=Counter)


def build_indexed_dataset(
    inputs: Sequence[str | Path],
    tokenizer_path: str | Path,
    template_name: str,
    output_prefix: str | Path,
    system_prompt: str | None = None,
    seq_length: int = 4096,
    over_length: str = "split",
    overwrite: bool = False,
) -> Manifest:
    """Build `<output_prefix>.{bin,idx,manifest.json}` from conversation JSONL files and return the manifest.

    `system_prompt` replaces the template's (empty: none); a conversation's own system turn goes before both.
    `over_length` says what becomes of a conversation of more than `seq_length` tokens: `split` at exchange
    borders, `drop` it, or `error`. Raises `UserError`, with nothing written, for the first record that is malformed
    or cannot be trained on, a tokenizer without the template's control tokens, and outputs that exist unless
    `overwrite`.
    """
    if over_length not in POLICIES:
        raise UserError(f"--over-length {over_length}: expected one of {', '.join(POLICIES)}")
    if seq_length < 2:
        raise UserError(f"--seq-length {seq_length}: expected at least 2 tokens")
    files = [require_file(path) for path in inputs]
    refuse_existing(output_prefix, overwrite)
    template = get_template(template_name)
    tokenizer = load_tokenizer(tokenizer_path)
    check_template_fits(template, tokenizer)
    counts = BuildCounts()
    for _, conversation in progress(trainable_conversations(files), "checking", None):
        counts.conversations += 1
        if missing := sum(turn.speaker == "gpt" and turn.loss is None for turn in conversation.turns):
            counts.repaired["gpt_turns_without_loss_flag_trained"] += missing
    if not counts.conversations:
        raise UserError(f"{', '.join(map(str, files))}: no conversations; expected JSONL, one a line")
    return write_indexed_dataset(
        output_prefix,
        documents(files, template, tokenizer, system_prompt, seq_length, over_length, counts),
        vocab_size=tokenizer.vocab_size,
        tokenizer_name=tokenizer.name,
        tokenizer_sha256=tokenizer.sha256,
        template=template.name,
        system_prompt=template.system_prompt if system_prompt is None else system_prompt.strip(),
        max_length=seq_length,
        dropped=counts.dropped,
        repaired=counts.repaired,
        source={str(file): sha256_file(file) for file in files},
    )


def refuse_existing(output_prefix: str | Path, overwrite: bool) -> None:
    """Raise `UserError` when files of a dataset are there already and must stay, or cannot be written."""
    paths = [dataset_file(output_prefix, end) for end in (".bin", ".idx", ".manifest.json")]
    for path in paths:
        check_writable(path, "--output-prefix")
    present = [path for path in paths if path.exists()]
    if present and not overwrite:
        raise UserError(f"{present[0]}: exists already; give --overwrite to replace it, or another --output-prefix")


def trainable_conversations(files: Sequence[Path]) -> Iterator[tuple[str, Conversation]]:
    """Yield `(where, conversation)` of all files; `UserError` for the first that cannot be trained on."""
    for file in files:
        for where, conversation in read_located_conversations(file):
            check_trainable(conversation, where)
            yield where, conversation


def documents(
    files: Sequence[Path],
    template: Template,
    tokenizer: Tokenizer,
    system_prompt: str | None,
    seq_length: int,
    over_length: str,
    counts: BuildCounts,
) -> Iterator[list[Span]]:
    """Yield the documents of the dataset in input order; drops and splits are counted into `counts`."""
    located = progress(trainable_conversations(files), "tokenizing", counts.conversations)
    while chunk := list(islice(located, CHUNK)):
        encoded = encode_conversations((item for _, item in chunk), template, tokenizer, system_prompt)
        for (where, conversation), exchanges in zip(chunk, encoded, strict=True):
            spans = flatten(exchanges)
            length = count_tokens(spans)
            if length <= seq_length:
                yield spans
            elif over_length == "error":
                raise UserError(
                    f"{where}: {length:,} tokens, longer than --seq-length {seq_length}; raise it, or choose "
                    "--over-length split or drop"
                )
            elif over_length == "drop":
                counts.dropped["conversation_over_length"] += 1
            else:
                as_first = encode_exchanges_as_first(conversation, template, tokenizer, system_prompt)
                parts, dropped = split_at_exchanges(exchanges, as_first, seq_length)
                counts.dropped.update(dropped)
                if parts:
                    counts.repaired["over_length_conversations_split"] += 1
                    counts.repaired["parts_of_split_conversations"] += len(parts)
                else:
                    counts.dropped["over_length_conversation_without_usable_part"] += 1
                yield from parts


def progress(
    items: Iterator[tuple[str, Conversation]], what: str, total: int | None
) -> Iterator[tuple[str, Conversation]]:
    """Show a progress bar on the standard error stream while `items` pass."""
    from tqdm import tqdm

    return iter(tqdm(items, desc=what, total=total, unit=" conversations", mininterval=0.5))


def format_manifest(manifest: Manifest) -> str:
    """Return the manifest's main figures for the terminal."""
    share = manifest.num_trained_tokens / manifest.num_tokens
    lines = [
        f"{manifest.num_documents:,} conversations, {manifest.num_tokens:,} tokens, "
        f"{manifest.num_trained_tokens:,} trained ({share:.1%})",
        f"template {manifest.template}, system prompt {manifest.system_prompt!r}",
        f"tokenizer {manifest.tokenizer_name}, {manifest.vocab_size:,} ids, sha256 {manifest.tokenizer_sha256[:16]}...",
        f"no conversation longer than {manifest.max_length:,} tokens",
    ]
    lines += [f"source {path}, sha256 {digest[:16]}..." for path, digest in manifest.source.items()]
    lines += [f"repaired: {rule}: {count:,}" for rule, count in sorted(manifest.repaired.items())]
    lines += [f"dropped: {rule}: {count:,}" for rule, count in sorted(manifest.dropped.items())]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """Command line of the build."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.build_indexed_dataset",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--input", required=True, nargs="+", metavar="X.jsonl", help="conversation JSONL files")
    parser.add_argument(
        "--tokenizer",
        required=True,
        metavar="T",
        help="folder with tokenizer.model (preferred) or tokenizer.json, or one of these files",
    )
    parser.add_argument("--template", required=True, choices=sorted(TEMPLATES), help="chat template")
    parser.add_argument("--output-prefix", required=True, metavar="P", help="path of the dataset, without an ending")
    parser.add_argument(
        "--system-prompt",
        metavar="S",
        help="replaces the template's system prompt; an empty one means none (default: the template's). "
        "A conversation's own system turn goes before both",
    )
    parser.add_argument(
        "--seq-length", type=int, default=4096, metavar="N", help="longest conversation, tokens (default: 4096)"
    )
    parser.add_argument(
        "--over-length",
        choices=POLICIES,
        default="split",
        help="longer conversations: split at exchange borders, drop, or stop with an error (default: split)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a dataset at this prefix")
    arguments = parser.parse_args(argv)
    # Megatron-core says so four times on import, and a data command needs neither
    warnings.filterwarnings("ignore", message="Transformer Engine and Apex are not installed")
    started = time.perf_counter()
    manifest = build_indexed_dataset(
        arguments.input,
        arguments.tokenizer,
        arguments.template,
        arguments.output_prefix,
        system_prompt=arguments.system_prompt,
        seq_length=arguments.seq_length,
        over_length=arguments.over_length,
        overwrite=arguments.overwrite,
    )
    seconds = time.perf_counter() - started
    print(format_manifest(manifest))
    print(f"wrote {arguments.output_prefix}.bin, .idx and .manifest.json in {seconds:.1f} s")


if __name__ == "__main__":
    run_command(main)
