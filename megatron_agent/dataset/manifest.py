"""The manifest beside an indexed dataset: what the two files hold, and the hashes that prove it."""

import dataclasses
import hashlib
import json
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from megatron_agent.errors import UserError
from megatron_agent.files import atomic_write, read_json_object

FORMAT_VERSION = 2
REBUILD = "build it again with `python -m data_prep.build_indexed_dataset`"


@dataclass(frozen=True)
class Manifest:
    """What `<prefix>.bin` and `<prefix>.idx` hold; written last, so that it stands for a complete set."""

    num_documents: int
    """Conversations."""
    num_spans: int
    """Sequences in Megatron's sense: maximal runs of tokens with one loss flag."""
    num_tokens: int
    num_trained_tokens: int
    vocab_size: int
    """Token ids lie in [0, vocab_size)."""
    tokenizer_name: str
    tokenizer_sha256: str
    template: str
    system_prompt: str
    max_length: int
    """No conversation is longer than this many tokens."""
    bin_bytes: int
    idx_bytes: int
    bin_sha256: str
    idx_sha256: str
    dropped: dict[str, int] = field(default_factory=dict)
    """What was left out, by the name of the rule: conversations, exchanges or parts of split conversations, as the
    rule's name says (docs/data.md)."""
    repaired: dict[str, int] = field(default_factory=dict)
    """What was changed or counted on the way, by the name of the rule: conversations, parts or turns, as its name
    says."""
    source: dict[str, str] = field(default_factory=dict)
    """Input files and their sha256."""
    format_version: int = FORMAT_VERSION


def dataset_file(prefix: str | Path, ending: str) -> Path:
    """Return the path of the file with `ending` (`.bin`, `.idx`, `.manifest.json`) of the dataset at `prefix`.

    Raises :class:`UserError` for a prefix that ends in a slash or is empty: no file name could follow.
    """
    if not str(prefix) or str(prefix).endswith(("/", "/.", "/..")) or str(prefix) in (".", ".."):
        raise UserError(
            f"dataset prefix {str(prefix)!r}: expected a path that ends in a name, without a slash after it: the files "
            f"are PREFIX.bin, PREFIX.idx and PREFIX.manifest.json; for a folder give e.g. {Path(prefix) / 'agent'}"
        )
    return Path(f"{prefix}{ending}")


def manifest_path(prefix: str | Path) -> Path:
    """Return the path of the manifest that belongs to the dataset at `prefix`."""
    return dataset_file(prefix, ".manifest.json")


def _digest(record: dict[str, Any]) -> str:
    """Hash every field, so that an edit to any of them is noticed."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def write_manifest(prefix: str | Path, manifest: Manifest) -> None:
    """Write the manifest of the dataset at `prefix`, whole or not at all."""
    record = dataclasses.asdict(manifest)
    with atomic_write(manifest_path(prefix)) as handle:
        json.dump({**record, "manifest_sha256": _digest(record)}, handle, indent=1, sort_keys=True)
        handle.write("\n")


def read_manifest(prefix: str | Path) -> Manifest:
    """Read and check the manifest of the dataset at `prefix`.

    Raises :class:`UserError` when it is missing, is not ours, has another version, or was altered.
    """
    path = manifest_path(prefix)
    try:
        record = read_json_object(path, REBUILD)
    except FileNotFoundError:
        raise UserError(_missing_message(prefix)) from None
    if "format_version" not in record:
        raise UserError(f"{path}: not the manifest of an indexed dataset (no format_version); {REBUILD}")
    version = record["format_version"]
    if version != FORMAT_VERSION:
        raise UserError(f"{path}: expected format_version {FORMAT_VERSION}, got {version!r}; {REBUILD}")
    stated = record.pop("manifest_sha256", None)
    if stated != _digest(record):
        raise UserError(f"{path}: altered, it does not match its own manifest_sha256; {REBUILD}")
    if set(record) != {item.name for item in dataclasses.fields(Manifest)}:
        difference = set(record) ^ {item.name for item in dataclasses.fields(Manifest)}
        raise UserError(f"{path}: unknown or missing fields {sorted(difference)}; {REBUILD}")
    for name, kind in typing.get_type_hints(Manifest).items():
        if not isinstance(record[name], typing.get_origin(kind) or kind):
            raise UserError(f"{path}: {name} must be {kind.__name__}, got {record[name]!r}; {REBUILD}")
    return Manifest(**record)


def _missing_message(prefix: str | Path) -> str:
    present = [f"{prefix}{end}" for end in (".bin", ".idx") if dataset_file(prefix, end).exists()]
    if present:
        return (
            f"{manifest_path(prefix)}: missing beside {' and '.join(present)}: the writer was stopped before "
            f"the set was complete, or another program wrote it; {REBUILD}"
        )
    return (
        f"no indexed dataset at {prefix}: expected {prefix}.bin, .idx and .manifest.json; check the path "
        "(a prefix has no ending), or make the set with `python -m data_prep.build_indexed_dataset`"
    )
