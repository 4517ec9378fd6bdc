"""Where AgentInstruct comes from: files, folders and the Hugging Face Hub; and the records in them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data_prep.agentinstruct.card import CARD
from data_prep.json_stream import stream_json_records
from megatron_agent.errors import UserError

ENDINGS = (("parquet",), ("jsonl", "jsonl.gz"), ("json", "json.gz"))
SPLIT_FILE = re.compile(r"(?P<split>[a-z0-9]+)-[0-9]{5}-of-[0-9]{5}")


@dataclass(frozen=True)
class Source:
    """Files to read, and which commit of the Hub they are (None for local files)."""

    files: list[Path]
    repository: str | None = None
    revision: str | None = None
    commit: str | None = None


def open_source(source: str, revision: str | None = None) -> Source:
    """Return the files of a path or of `hf:OWNER/NAME`, downloading them; raises `UserError` when there are none."""
    if source.startswith("hf:"):
        return download(source, revision)
    if revision is not None:
        raise UserError(f"--revision {revision}: only for --input hf:OWNER/NAME, got {source}; leave it out")
    return Source(input_files(Path(source)))


def input_files(path: Path) -> list[Path]:
    """Return the data files at `path`: the file itself, or a folder's parquet, else JSONL, else JSON files."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder; check --input (or name a Hub data set: hf:OWNER/NAME)")
    for endings in ENDINGS:
        if files := sorted({file for ending in endings for file in path.rglob(f"*.{ending}") if file.is_file()}):
            return files
    raise UserError(f"{path}: the folder holds no .parquet, .jsonl or .json file (.jsonl.gz and .json.gz count too)")


def download(source: str, revision: str | None) -> Source:
    """Download the data set `hf:OWNER/NAME` at a branch, tag or commit (or find it in the Hub's cache)."""
    name = source.removeprefix("hf:")
    if name.count("/") != 1 or not all(name.split("/")):
        raise UserError(f"--input {source}: expected hf:OWNER/NAME, e.g. hf:THUDM/AgentInstruct")
    try:
        from huggingface_hub import errors, snapshot_download
    except ImportError as error:
        raise UserError(
            f"--input {source}: reading from the Hub needs huggingface_hub; pip install 'agentlm-megatron[hub]', "
            "or download the data set and give its folder as --input"
        ) from error
    try:
        folder = snapshot_download(
            name,
            repo_type="dataset",
            revision=revision,
            allow_patterns=["*.parquet", "*.jsonl", "*.json", "*.jsonl.gz", "*.json.gz"],
        )
    except errors.GatedRepoError as error:
        raise UserError(f"--input {source}: access is restricted; ask for it on the Hub and set HF_TOKEN") from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f"--input {source}: no such data set on the Hub, or it is private; check the name, and set HF_TOKEN for "
            "a private one"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise UserError(f"--input {source}: no revision {revision!r}; give a branch, tag or commit of it") from error
    except Exception as error:  # the Hub client raises a dozen kinds more: offline, time-outs, broken answers, ...
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"--input {source}: could not be downloaded ({type(error).__name__}: {reason}); check the name and the "
            "network, or download the data set elsewhere and give its folder as --input"
        ) from error
    # the client's cache keeps each commit in a folder of that name
    return Source(input_files(Path(folder)), name, revision or "main", Path(folder).name)


def split_of(file: Path) -> str | None:
    """Return the task in a name such as `db-00000-of-00001-9f1c.parquet` or `db.jsonl`; None when it names none."""
    match = SPLIT_FILE.match(file.name)
    name = match["split"] if match else file.name.split(".")[0]
    return name if name in CARD else None


def read_records(file: Path) -> Iterator[tuple[str, object]]:
    """Yield `(where, record)` from a parquet file, a JSON array or JSONL (both may be compressed with gzip)."""
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
    except (ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: not a readable parquet file ({error}); fetch it again") from error
