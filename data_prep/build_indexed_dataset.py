"""Build an indexed dataset (tokens and loss flags) from conversation JSONL, on all cores."""

import argparse
import contextlib
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from data_prep.build_shards import (
    BuildCounts,
    BuildSettings,
    InputShard,
    encode_shard,
    input_shards,
    load_shard,
    shard_file,
)
from megatron_agent.chat.conversation import require_file
from megatron_agent.chat.template import TEMPLATES, check_template_fits, get_template
from megatron_agent.chat.tokenizer import load_tokenizer
from megatron_agent.dataset.manifest import Manifest, dataset_file
from megatron_agent.dataset.writer import DocumentBatch, only_writer, write_indexed_dataset
from megatron_agent.errors import UserError, run_command
from megatron_agent.files import check_writable, sha256_file
from megatron_agent.processes import available_cores, check_workers, map_in_order

DESCRIPTION = """\
Turn conversation JSONL (gzip or not) into an indexed dataset: PREFIX.bin and PREFIX.idx (Megatron-core's
IndexedDataset; the loss flag of each span is its mode) and PREFIX.manifest.json (counts, drops by rule, hashes).

The input is cut into shards of some 4 MB, which worker processes encode. The files are the same for any number of
workers. A build that was stopped keeps its finished shards in a hidden folder beside the output: the same
command goes on from there."""

EPILOG = """\
example:
  python -m data_prep.build_indexed_dataset --input runs/agentinstruct.jsonl \\
      --tokenizer Llama-2-7b-chat-hf --template llama-2 --output-prefix runs/indexed/agentinstruct"""

POLICIES = ("split", "drop", "error")


def build_indexed_dataset(
    inputs: Sequence[str | Path],
    tokenizer_path: str | Path,
    template_name: str,
    output_prefix: str | Path,
    system_prompt: str | None = None,
    seq_length: int = 4096,
    over_length: str = "split",
    overwrite: bool = False,
    workers: int | None = None,
) -> Manifest:
    """Build `<output_prefix>.{bin,idx,manifest.json}` from conversation JSONL files and return the manifest.

    `system_prompt` replaces the template's (empty: none); a conversation's own system turn goes before both.
    `over_length` says what becomes of a conversation of more than `seq_length` tokens: `split` at exchange
    borders, `drop` it, or `error`. `workers` processes encode (default: the cores at hand); the files do not depend
    on their number. Raises `UserError`, with no file of the dataset written, for the first record that is malformed
    or cannot be trained on, a tokenizer without the template's control tokens, and outputs that exist unless
    `overwrite`. Finished shards are kept then, and used by the next call.
    """
    if over_length not in POLICIES:
        raise UserError(f"--over-length {over_length}: expected one of {', '.join(POLICIES)}")
    if seq_length < 2:
        raise UserError(f"--seq-length {seq_length}: expected at least 2 tokens")
    workers = available_cores() if workers is None else workers
    check_workers(workers)
    files = [require_file(path) for path in inputs]
    refuse_existing(output_prefix, overwrite)
    template = get_template(template_name)
    tokenizer = load_tokenizer(tokenizer_path)
    check_template_fits(template, tokenizer)
    settings = BuildSettings(
        tokenizer_path=str(tokenizer_path),
        tokenizer_sha256=tokenizer.sha256,
        template=template.name,
        system_prompt=(template.system_prompt if system_prompt is None else system_prompt).strip(),
        seq_length=seq_length,
        over_length=over_length,
    )
    with shard_folder(output_prefix) as folder:
        counts, keys = encode_input(files, settings, folder, workers)
        if not counts.conversations:
            raise UserError(f"{', '.join(map(str, files))}: no conversations; expected JSONL, one a line")
        manifest = write_indexed_dataset(
            output_prefix,
            finished_shards(keys, folder),
            vocab_size=tokenizer.vocab_size,
            tokenizer_name=tokenizer.name,
            tokenizer_sha256=tokenizer.sha256,
            template=template.name,
            system_prompt=settings.system_prompt,
            max_length=seq_length,
            dropped=counts.dropped,
            repaired=counts.repaired,
            source={str(file): sha256_file(file) for file in files},
        )
        shutil.rmtree(folder)
    return manifest


def refuse_existing(output_prefix: str | Path, overwrite: bool) -> None:
    """Raise `UserError` when files of a dataset are there already and must stay, or cannot be written."""
    paths = [dataset_file(output_prefix, end) for end in (".bin", ".idx", ".manifest.json")]
    for path in paths:
        check_writable(path, "--output-prefix")
    present = [path for path in paths if path.exists()]
    if present and not overwrite:
        raise UserError(f"{present[0]}: exists already; give --overwrite to replace it, or another --output-prefix")


@contextlib.contextmanager
def shard_folder(output_prefix: str | Path) -> Iterator[Path]:
    """Yield the locked folder for the shards of a build; without a finished shard it does not stay."""
    prefix = Path(output_prefix)
    made = [folder for folder in prefix.parents if not folder.exists()]
    folder = prefix.parent / f".{prefix.name}.shards"
    folder.mkdir(parents=True, exist_ok=True)
    with only_writer(folder / "lock", prefix):
        try:
            yield folder
        except BaseException:
            if finished := sum(1 for _ in folder.glob("*.npz")):
                print(f"{finished:,} finished shards are kept in {folder} for the next call", file=sys.stderr)
            else:
                shutil.rmtree(folder)
                with contextlib.suppress(OSError):  # others may have put something there
                    for parent in made:
                        parent.rmdir()
            raise


def encode_input(
    files: Sequence[Path], settings: BuildSettings, folder: Path, workers: int
) -> tuple[BuildCounts, list[str]]:
    """Encode every shard of the input that is not in `folder` yet; return the counts and the keys of all."""
    from tqdm import tqdm

    counts = BuildCounts()
    keys: list[str] = []
    resumed = tokens = 0
    started = time.perf_counter()

    def unfinished() -> Iterator[InputShard]:
        nonlocal resumed
        for shard in input_shards(files):
            keys.append(shard.key(settings))
            if finished := load_shard(shard_file(folder, shard.number), keys[-1]):
                counts.add(finished[1])
                resumed += 1
                bar.update(finished[1].conversations)
            else:
                yield shard

    with tqdm(desc="tokenizing", unit=" conversations", mininterval=0.5) as bar:
        for done, new_tokens in map_in_order(
            partial(encode_shard, settings=settings, folder=folder), unfinished(), workers
        ):
            counts.add(done)
            tokens += new_tokens
            bar.set_postfix_str(f"{tokens / (time.perf_counter() - started) / 1e6:.2f} M tokens/s", refresh=False)
            bar.update(done.conversations)
    if resumed:
        print(f"{resumed:,} shards were finished before and are used again")
    return counts, keys


def finished_shards(keys: Sequence[str], folder: Path) -> Iterator[DocumentBatch]:
    """Yield the encoded shards in input order; `UserError` for one that was altered meanwhile."""
    for number, key in enumerate(keys):
        finished = load_shard(shard_file(folder, number), key)
        if finished is None:
            raise UserError(f"{shard_file(folder, number)}: altered or removed while it was in use; run this again")
        yield finished[0]


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
    parser.add_argument("--workers", type=int, metavar="N", help="processes that encode (default: the cores at hand)")
    parser.add_argument("--overwrite", action="store_true", help="replace a dataset at this prefix")
    arguments = parser.parse_args(argv)
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
        workers=arguments.workers,
    )
    seconds = time.perf_counter() - started
    print(format_manifest(manifest))
    print(f"wrote {arguments.output_prefix}.bin, .idx and .manifest.json in {seconds:.1f} s")


if __name__ == "__main__":
    run_command(main)
