"""Can this machine write where a run writes, how much room is there, and are the files a run reads intact?"""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from megatron_agent.dataset.config import DataConfig
from megatron_agent.dataset.manifest import dataset_file, read_manifest
from megatron_agent.errors import FILE_ERRORS, describe_file_error
from megatron_agent.files import atomic_write, sha256_file
from megatron_agent.model.checkpoint_folder import MANIFEST, recorded_files

GIB = 2**30


@dataclass(frozen=True)
class ExpectedFile:
    """A file and what its manifest says of it."""

    path: str
    size: int
    sha256: str


def existing_parent(folder: str | Path) -> Path:
    """Return `folder`, or the nearest folder above it that exists."""
    path = Path(folder).absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def write_problem(folder: str | Path) -> str | None:
    """Write a small file in a folder that exists, read it again and remove it; return what went wrong, and the mend."""
    probe = Path(folder) / f".probe.{os.uname().nodename}.{os.getpid()}"
    content = os.urandom(16).hex()
    try:
        with atomic_write(probe) as handle:
            handle.write(content)
        found = probe.read_text(encoding="utf-8")
        probe.unlink()
    except OSError as error:
        if error.errno in FILE_ERRORS:
            return describe_file_error(error).replace(str(probe), str(folder))
        return f"{folder}: {error.strerror}"
    return None if found == content else f"{folder}: a file reads other than it was written; the disk is broken"


def free_bytes(folder: str | Path) -> int:
    """Return the free space of the disk that holds `folder`, which need not exist yet."""
    return shutil.disk_usage(existing_parent(folder)).free


def data_files(config: DataConfig) -> list[ExpectedFile]:
    """Return the data files of a run; :class:`UserError` when a manifest is missing or altered."""
    files = []
    for source in config.sources():
        manifest = read_manifest(source.prefix)
        for ending, size, sha256 in (
            (".bin", manifest.bin_bytes, manifest.bin_sha256),
            (".idx", manifest.idx_bytes, manifest.idx_sha256),
        ):
            files.append(ExpectedFile(str(dataset_file(source.prefix, ending)), size, sha256))
    return files


def checkpoint_files(folder: Path) -> list[ExpectedFile]:
    """Return the files of a checkpoint, its manifest excepted; :class:`UserError` when that is missing or broken."""
    entries = recorded_files(folder)
    return [ExpectedFile(str(folder / name), entry["size"], entry["sha256"]) for name, entry in entries.items()]


def manifest_hash(folder: Path) -> str:
    """Return the hash of a checkpoint's manifest, which holds the hashes of all its files."""
    return sha256_file(folder / MANIFEST)


def size_problems(files: Sequence[ExpectedFile]) -> list[str]:
    """Return a line for each file that is missing or has another size than its manifest says."""
    problems = []
    for file in files:
        try:
            size = os.stat(file.path).st_size
        except OSError as error:
            problems.append(f"{file.path}: {error.strerror}; {FILE_ERRORS.get(error.errno or 0, 'restore the file')}")
            continue
        if size != file.size:
            problems.append(f"{file.path}: expected {file.size:,} bytes, got {size:,} (cut short?); restore the file")
    return problems


def hash_problems(files: Sequence[ExpectedFile], progress: Callable[[], None]) -> list[str]:
    """Return a line for each file whose content is not what its manifest says; `progress` is called on the way."""
    problems = []
    for file in files:
        try:
            altered = sha256_file(file.path, progress) != file.sha256
        except OSError as error:
            problems.append(f"{file.path}: {error.strerror}; the disk or its network failed")
            continue
        if altered:
            problems.append(f"{file.path}: altered (its SHA-256 is not its manifest's); restore the file, or remake it")
    return problems


def share(files: Sequence[ExpectedFile], rank: int, world_size: int) -> list[ExpectedFile]:
    """Return the files that `rank` is to hash: every file has one rank, and the ranks have bytes alike."""
    load = [0] * world_size
    mine = []
    for file in sorted(files, key=lambda file: (-file.size, file.path)):
        lightest = load.index(min(load))
        load[lightest] += file.size
        if lightest == rank:
            mine.append(file)
    return mine
