"""The checkpoint folder on disk, shared by training and the converters.

    ROOT/latest_checkpointed_iteration.txt     newest iteration, replaced last
    ROOT/iter_0000123/  .metadata *.distcp common.pt metadata.json      torch_dist, written by megatron-core
                        run.json               configuration and origin
                        hf/                    config.json, generation_config.json and tokenizer files
                        manifest.json          size and SHA-256 of every other file; its presence means "complete"

A checkpoint is written under `.iter_0000123.tmp`, hashed, synced and renamed: a folder called `iter_*` is whole.
"""

import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from megatron_agent.errors import UserError
from megatron_agent.files import atomic_write, fsync_directory, read_json_object, sha256_file
from megatron_agent.model.collective import barrier, gather, on_rank_0, raised_on_all, rank, world_size

FileEntries = dict[str, dict[str, Any]]  # by file name: size and sha256

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
RUN_FILE = "run.json"
TRACKER = "latest_checkpointed_iteration.txt"
HF_FOLDER = "hf"
HF_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)


def iteration_folder(iteration: int) -> str:
    """Folder name of an iteration: `iter_0000123`."""
    return f"iter_{iteration:07d}"


def begin_checkpoint(root: str | Path, iteration: int) -> Path:
    """Return an empty temporary folder for this iteration; remains of an interrupted save are removed.

    Collective under torch.distributed. Only its own iteration's remains are touched.
    """
    root = Path(root)
    temporary = root / f".{iteration_folder(iteration)}.tmp"

    def begin() -> None:
        if temporary.exists():
            _remove_hidden(_hide(temporary))
        temporary.mkdir(parents=True)

    on_rank_0(begin)
    return temporary


def commit_checkpoint(temporary: Path, root: str | Path, iteration: int, hashed: FileEntries | None = None) -> Path:
    """Hash and sync every file, write the manifest, rename the folder and replace the tracker; return the folder.

    Collective under torch.distributed: the ranks divide the hashing of what is not in `hashed`, the entries of
    files already hashed and synced by whoever wrote them. A folder of the same iteration is replaced.
    """
    root = Path(root)
    final = root / iteration_folder(iteration)
    barrier()  # every rank has finished writing
    entries = dict(hashed or {})
    names = on_rank_0(lambda: list(_files(temporary)))  # over a network, ranks may not see the same list yet
    entries |= _hash_divided(temporary, [name for name in names if name not in entries])

    def commit() -> None:
        write_json(temporary / MANIFEST, {**_versions(), "iteration": iteration, "files": entries})
        for folder in {path.parent for path in temporary.rglob("*")}:
            fsync_directory(folder)
        replaced = _hide(final) if final.exists() else None
        os.rename(temporary, final)
        fsync_directory(root)
        if replaced is not None:
            _remove_hidden(replaced)
        with atomic_write(root / TRACKER) as handle:
            handle.write(str(iteration))

    on_rank_0(commit)
    return final


def latest_checkpoint(root: str | Path) -> Path | None:
    """Return the folder of the highest iteration with a manifest, or None.

    Folders are looked at rather than the tracker, which may lag by one after a kill; interrupted saves (temporary
    names, no manifest) are passed over. Damage inside a complete checkpoint is `verify_checkpoint`'s to report.
    """
    found = complete_checkpoints(root)
    return found[-1] if found else None


def complete_checkpoints(root: str | Path) -> list[Path]:
    """Return the complete checkpoint folders of `root` in order of their iteration; other names are not ours."""
    root = Path(root)
    if not root.is_dir():
        return []
    found = [path for path in root.iterdir() if re.fullmatch(r"iter_\d{7,}", path.name) and (path / MANIFEST).is_file()]
    return sorted(found, key=lambda path: int(path.name.removeprefix("iter_")))


def remove_checkpoint(folder: Path) -> None:
    """Remove a checkpoint; out of sight first, so that an interrupted removal leaves nothing that looks complete.

    What cannot be removed is told in a line on stderr and stays: it costs room, nothing else.
    """
    try:
        hidden = _hide(folder)
    except OSError as error:
        _warn_not_removed(folder, error)
    else:
        _remove_hidden(hidden)


def remove_leftovers(root: str | Path) -> None:
    """Remove what interrupted saves and removals left below `root`. Only while nobody else writes there.

    What cannot be removed is told in a line on stderr and stays.
    """
    for path in Path(root).glob(".iter_*.tmp"):
        _remove_hidden(path)


def _hide(folder: Path) -> Path:
    """Rename a folder to a name that no checkpoint has, and that nothing left from before has either."""
    hidden = tempfile.mkdtemp(prefix=f".{folder.name.removeprefix('.')}.", suffix=".tmp", dir=folder.parent)
    os.rename(folder, hidden)  # onto an empty folder
    return Path(hidden)


def _remove_hidden(folder: Path) -> None:
    """Remove a folder; what stays of it (on NFS, files that a process has open) is no reason to stop a run."""
    try:
        shutil.rmtree(folder)
    except OSError as error:
        _warn_not_removed(folder, error)


def _warn_not_removed(folder: Path, error: OSError) -> None:
    print(f"warning: {folder} could not be removed ({error}); remove it by hand", file=sys.stderr, flush=True)


def resolve_checkpoint(path: str | Path) -> Path:
    """Return the checkpoint folder meant by `path`: itself, or the newest below a root. `UserError` when none."""
    path = Path(path)
    if (path / MANIFEST).is_file():
        return path
    found = latest_checkpoint(path)
    if found is None:
        raise UserError(
            f"expected a checkpoint folder (iter_0000000 with {MANIFEST}) or a folder of them at {path}, found none; "
            "make one with `python -m checkpoints_convert.hf_to_megatron` or a training run"
        )
    return found


def verify_checkpoint(path: str | Path, *, collective: bool = False) -> None:
    """Compare every file of a checkpoint with its manifest; `UserError` naming missing, cut or altered files.

    With `collective=True` the ranks divide the hashing and all raise the same error; every rank must call.
    """
    path = Path(path)
    if collective:
        recorded = on_rank_0(lambda: recorded_files(path))
        raised_on_all(lambda: _check_sizes(path, recorded))  # before the hashing, which all ranks enter or none
        hashes = _hash_divided(path, sorted(recorded))
    else:
        recorded = recorded_files(path)
        _check_sizes(path, recorded)
        hashes = hash_files(path, recorded)
    altered = [f"{name}: altered (SHA-256 differs)" for name in recorded if hashes[name] != recorded[name]]
    _raise_if_damaged(path, altered)


def recorded_files(path: Path) -> FileEntries:
    """Return what a checkpoint's manifest says of its files; `UserError` when it is missing or not ours."""
    manifest = read_json(path / MANIFEST)
    if manifest.get("format_version") != FORMAT_VERSION or not isinstance(manifest.get("files"), dict):
        raise UserError(
            f"{path / MANIFEST}: expected checkpoint format {FORMAT_VERSION}, got {manifest.get('format_version')!r}"
        )
    recorded: FileEntries = manifest["files"]
    return recorded


def _check_sizes(path: Path, recorded: FileEntries) -> None:
    problems = []
    for name, entry in recorded.items():
        file = path / name
        if not file.is_file():
            problems.append(f"{name}: missing")
        elif file.stat().st_size != entry["size"]:
            problems.append(f"{name}: expected {entry['size']} bytes, got {file.stat().st_size} (cut short?)")
    _raise_if_damaged(path, problems)


def _raise_if_damaged(path: Path, problems: list[str]) -> None:
    if problems:
        raise UserError(
            f"checkpoint {path} is damaged:\n  " + "\n  ".join(problems) + "\n"
            "restore it from a copy, or delete the folder to go on from the checkpoint before it"
        )


def write_run_file(folder: Path, record: dict[str, Any]) -> None:
    """Write `run.json`: where the checkpoint comes from and with which configuration (rank 0 calls it)."""
    write_json(folder / RUN_FILE, record)


def read_run_file(folder: Path) -> dict[str, Any]:
    """Read `run.json` of a checkpoint; `UserError` when missing or not JSON."""
    return read_json(folder / RUN_FILE)


def copy_hf_files(source: str | Path, destination: str | Path) -> list[str]:
    """Copy configuration and tokenizer files of a Hugging Face folder; return their names."""
    source, destination = Path(source), Path(destination)
    destination.mkdir(parents=True, exist_ok=True)
    names = [name for name in HF_FILES if (source / name).is_file()]
    for name in names:
        shutil.copyfile(source / name, destination / name)
    return names


def write_json(path: Path, record: dict[str, Any]) -> None:
    """Write a JSON object atomically, indented, in UTF-8."""
    with atomic_write(path) as handle:
        json.dump(record, handle, indent=2, ensure_ascii=False)
        handle.write("\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; `UserError` naming the file when it is missing or is no JSON object."""
    try:
        return read_json_object(path, "the checkpoint is damaged, restore it from a copy")
    except FileNotFoundError:
        raise UserError(f"expected the file {path}, found none; the checkpoint is incomplete") from None


def _files(folder: Path) -> Iterator[str]:
    """Names of all files below `folder`, relative, sorted, without the manifest."""
    names = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file())
    return (name for name in names if name != MANIFEST)


def hash_files(folder: Path, names: Iterable[str]) -> FileEntries:
    """Sync files of `folder` to disk and return their size and SHA-256 by name."""
    entries = {}
    for name in names:
        descriptor = os.open(folder / name, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
        entries[name] = {"size": (folder / name).stat().st_size, "sha256": sha256_file(folder / name)}
    return entries


def _hash_divided(folder: Path, names: list[str]) -> FileEntries:
    """`hash_files`, the work divided over the ranks; an error on one is raised on all. Collective."""
    mine = raised_on_all(lambda: hash_files(folder, names[rank() :: world_size()]))
    return {name: entry for part in gather(mine) for name, entry in part.items()}


def _versions() -> dict[str, Any]:
    from importlib.metadata import version

    return {
        "format_version": FORMAT_VERSION,
        "layout": "torch_dist, decoder layers stacked along the first axis",
        "megatron_core": version("megatron-core"),
        "torch": version("torch"),
    }
