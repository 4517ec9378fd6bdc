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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from megatron_agent.errors import UserError
from megatron_agent.files import atomic_write, fsync_directory, read_json_object, sha256_file

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
    if _rank() == 0:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    _barrier()
    return temporary


def commit_checkpoint(temporary: Path, root: str | Path, iteration: int) -> Path:
    """Hash and sync every file, write the manifest, rename the folder and replace the tracker; return the folder.

    Collective under torch.distributed: the ranks divide the hashing. A folder of the same iteration is replaced.
    """
    root = Path(root)
    final = root / iteration_folder(iteration)
    _barrier()  # every rank has finished writing
    entries = _hash_divided(temporary, list(_files(temporary)))
    if _rank() == 0:
        write_json(temporary / MANIFEST, {**_versions(), "iteration": iteration, "files": entries})
        for folder in {path.parent for path in temporary.rglob("*")}:
            fsync_directory(folder)
        replaced = root / f".{iteration_folder(iteration)}.replaced.tmp"
        if final.exists():
            shutil.rmtree(replaced, ignore_errors=True)
            os.rename(final, replaced)
        os.rename(temporary, final)
        fsync_directory(root)
        shutil.rmtree(replaced, ignore_errors=True)
        with atomic_write(root / TRACKER) as handle:
            handle.write(str(iteration))
    _barrier()
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
    """Remove a checkpoint; out of sight first, so that an interrupted removal leaves nothing that looks complete."""
    hidden = folder.with_name(f".{folder.name}.removed.tmp")
    folder.rename(hidden)
    shutil.rmtree(hidden)


def remove_leftovers(root: str | Path) -> None:
    """Remove what interrupted saves and removals left below `root`. Only while nobody else writes there."""
    for path in Path(root).glob(".iter_*.tmp"):
        shutil.rmtree(path)


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
    manifest = read_json(path / MANIFEST)
    if manifest.get("format_version") != FORMAT_VERSION or not isinstance(manifest.get("files"), dict):
        raise UserError(
            f"{path / MANIFEST}: expected checkpoint format {FORMAT_VERSION}, got {manifest.get('format_version')!r}"
        )
    recorded: dict[str, dict[str, Any]] = manifest["files"]
    problems = []
    for name, entry in recorded.items():
        file = path / name
        if not file.is_file():
            problems.append(f"{name}: missing")
        elif file.stat().st_size != entry["size"]:
            problems.append(f"{name}: expected {entry['size']} bytes, got {file.stat().st_size} (cut short?)")
    if not problems:
        hashes = _hash_divided(path, sorted(recorded), collective=collective)
        problems = [f"{name}: altered (SHA-256 differs)" for name in recorded if hashes[name] != recorded[name]]
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


def _hash_divided(folder: Path, names: list[str], *, collective: bool = True) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of `names`, each synced to disk; with `collective` the work is divided over the ranks."""
    rank, world_size = (_rank(), _world_size()) if collective else (0, 1)
    mine = {}
    for name in names[rank::world_size]:
        descriptor = os.open(folder / name, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
        mine[name] = {"size": (folder / name).stat().st_size, "sha256": sha256_file(folder / name)}
    if world_size == 1:
        return mine
    import torch.distributed

    gathered: list[dict[str, Any]] = [{} for _ in range(world_size)]
    torch.distributed.all_gather_object(gathered, mine)
    return {name: entry for part in gathered for name, entry in part.items()}


def _versions() -> dict[str, Any]:
    from importlib.metadata import version

    return {
        "format_version": FORMAT_VERSION,
        "layout": "torch_dist, decoder layers stacked along the first axis",
        "megatron_core": version("megatron-core"),
        "torch": version("torch"),
    }


def _distributed(function: Callable[[Any], Any], otherwise: Any) -> Any:
    import torch.distributed

    return function(torch.distributed) if torch.distributed.is_initialized() else otherwise


def _rank() -> int:
    return _distributed(lambda dist: dist.get_rank(), 0)


def _world_size() -> int:
    return _distributed(lambda dist: dist.get_world_size(), 1)


def _barrier() -> None:
    _distributed(lambda dist: dist.barrier(), None)
