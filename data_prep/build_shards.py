"""Shards of a build: pieces of the input that worker processes encode, kept on disk until the dataset is whole.

Where a shard begins depends on the input alone, so any number of workers makes the same dataset, and a stopped build
goes on with the shards that are finished.
"""

import dataclasses
import gc
import hashlib
import json
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from data_prep.split_long import split_at_exchanges
from megatron_agent.chat.conversation import (
    Conversation,
    check_trainable,
    decode_lines,
    decompressed_lines,
    parse_conversation,
)
from megatron_agent.chat.template import (
    Span,
    count_tokens,
    encode_conversations,
    encode_exchanges_as_first,
    flatten,
    get_template,
)
from megatron_agent.chat.tokenizer import Tokenizer, load_tokenizer
from megatron_agent.dataset.writer import DocumentBatch, lay_out
from megatron_agent.errors import UserError
from megatron_agent.files import atomic_write, open_decompressed

SHARD_BYTES = 4 << 20  # of JSONL: some million tokens, a second of work
CHUNK = 512  # conversations encoded in one batch
SHARD_VERSION = 1  # part of a shard's key: raise it when the same input could come out differently


@dataclass(frozen=True)
class BuildSettings:
    """What the tokens of a dataset depend on, beside its input."""

    tokenizer_path: str
    tokenizer_sha256: str
    template: str
    system_prompt: str
    seq_length: int
    over_length: str


@dataclass(frozen=True)
class InputShard:
    """Some lines of an input file."""

    number: int
    path: Path
    first_line: int
    lines: list[bytes]
    sha256: str
    """Of the lines."""

    def key(self, settings: BuildSettings) -> str:
        """Hash everything that the encoded shard depends on."""
        record = {**dataclasses.asdict(settings), "tokenizer_path": "", "version": SHARD_VERSION, "lines": self.sha256}
        return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


@dataclass
class BuildCounts:
    """What a build did, beside what the manifest counts."""

    conversations: int = 0
    """Read from the input."""
    dropped: Counter[str] = field(default_factory=Counter)
    repaired: Counter[str] = field(default_factory=Counter)

    def add(self, other: "BuildCounts") -> None:
        """Add the counts of a shard."""
        self.conversations += other.conversations
        self.dropped.update(other.dropped)
        self.repaired.update(other.repaired)


def input_shards(files: Sequence[Path], shard_bytes: int = SHARD_BYTES) -> Iterator[InputShard]:
    """Cut JSONL files (gzip or not) into shards of at least `shard_bytes`; a shard never spans two files."""
    number = 0
    for path in files:
        first, lines, size, digest = 1, list[bytes](), 0, hashlib.sha256()
        with open_decompressed(path) as handle:
            for line in decompressed_lines(handle, path):
                lines.append(line)
                digest.update(line)
                size += len(line)
                if size >= shard_bytes:
                    yield InputShard(number, path, first, lines, digest.hexdigest())
                    number, first, lines, size, digest = number + 1, first + len(lines), [], 0, hashlib.sha256()
        if lines:
            yield InputShard(number, path, first, lines, digest.hexdigest())
            number += 1


def encode_shard(shard: InputShard, settings: BuildSettings, folder: Path) -> tuple[BuildCounts, int]:
    """Encode a shard into `folder`; return its counts and number of tokens. What worker processes run.

    Raises `UserError` for the first record that is malformed or cannot be trained on.
    """
    gc.disable()  # a million turns and arrays, none in a cycle: an eighth of the time
    try:
        return _encode_shard(shard, settings, folder)
    finally:
        gc.enable()


def _encode_shard(shard: InputShard, settings: BuildSettings, folder: Path) -> tuple[BuildCounts, int]:
    tokenizer = _tokenizer(settings.tokenizer_path)
    counts = BuildCounts()
    documents: list[list[Span]] = []
    located: list[tuple[str, Conversation]] = []
    for where, record in decode_lines(shard.lines, shard.path, shard.first_line):
        conversation = parse_conversation(record, where)
        check_trainable(conversation, where)
        counts.conversations += 1
        if missing := sum(turn.speaker == "gpt" and turn.loss is None for turn in conversation.turns):
            counts.repaired["gpt_turns_without_loss_flag_trained"] += missing
        located.append((where, conversation))
        if len(located) == CHUNK:
            documents += encode_chunk(located, tokenizer, settings, counts)
            located = []
    documents += encode_chunk(located, tokenizer, settings, counts)
    batch = lay_out(documents, tokenizer.vocab_size, settings.seq_length)
    save_shard(shard_file(folder, shard.number), shard.key(settings), batch, counts)
    return counts, len(batch.ids)


@lru_cache(maxsize=1)
def _tokenizer(path: str) -> Tokenizer:
    return load_tokenizer(path)


def encode_chunk(
    located: list[tuple[str, Conversation]], tokenizer: Tokenizer, settings: BuildSettings, counts: BuildCounts
) -> Iterator[list[Span]]:
    """Yield the documents that conversations become; drops and splits are counted into `counts`."""
    template = get_template(settings.template)
    prompt, limit = settings.system_prompt, settings.seq_length
    encoded = encode_conversations((conversation for _, conversation in located), template, tokenizer, prompt)
    for (where, conversation), exchanges in zip(located, encoded, strict=True):
        spans = flatten(exchanges)
        length = count_tokens(spans)
        if length <= limit:
            yield spans
        elif settings.over_length == "error":
            raise UserError(
                f"{where}: {length:,} tokens, longer than --seq-length {limit}; raise it, or choose "
                "--over-length split or drop"
            )
        elif settings.over_length == "drop":
            counts.dropped["conversation_over_length"] += 1
        else:
            as_first = encode_exchanges_as_first(conversation, template, tokenizer, prompt)
            parts, dropped = split_at_exchanges(exchanges, as_first, limit)
            counts.dropped.update(dropped)
            if parts:
                counts.repaired["over_length_conversations_split"] += 1
                counts.repaired["parts_of_split_conversations"] += len(parts)
            else:
                counts.dropped["over_length_conversation_without_usable_part"] += 1
            yield from parts


def shard_file(folder: Path, number: int) -> Path:
    """The file of shard `number`."""
    return folder / f"{number:06d}.npz"


def save_shard(path: Path, key: str, batch: DocumentBatch, counts: BuildCounts) -> None:
    """Write an encoded shard whole or not at all, with its key and a hash of its content."""
    record = json.dumps(vars(counts), sort_keys=True)
    digest = _digest(key, batch, record)
    with atomic_write(path, "wb") as handle:
        np.savez(handle, digest=np.array(digest), counts=np.array(record), **vars(batch))


def load_shard(path: Path, key: str) -> tuple[DocumentBatch, BuildCounts] | None:
    """Read the encoded shard made for `key`; None when there is none, or another one, or a damaged one."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            batch = DocumentBatch(*(archive[item.name] for item in dataclasses.fields(DocumentBatch)))
            record, digest = str(archive["counts"]), str(archive["digest"])
    except (OSError, ValueError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error):
        return None  # NotImplementedError: a damaged header that asks for an unknown compression
    if digest != _digest(key, batch, record):
        return None
    counts = json.loads(record)
    return batch, BuildCounts(counts["conversations"], Counter(counts["dropped"]), Counter(counts["repaired"]))


def _digest(key: str, batch: DocumentBatch, record: str) -> str:
    digest = hashlib.sha256(f"{key} {record}".encode())
    for array in vars(batch).values():
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
