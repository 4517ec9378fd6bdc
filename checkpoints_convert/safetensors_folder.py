"""Hugging Face model folders: safetensors read by name without loading them, and written in shards."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megatron_agent.errors import UserError
from megatron_agent.files import read_json_object
from megatron_agent.model.checkpoint_folder import write_json

if TYPE_CHECKING:
    import torch

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
MAX_SHARD_BYTES = 5 * 10**9  # Hugging Face's "5GB"
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


class SafetensorsFolder:
    """The tensors of a Hugging Face folder, one file or an index of shards; read through memory maps."""

    def __init__(self, folder: str | Path) -> None:
        from safetensors import SafetensorError, safe_open

        self.folder = Path(folder)
        self._files: dict[str, Any] = {}
        self._file_of: dict[str, str] = {}
        for file in _weight_files(self.folder):
            try:
                handle = safe_open(self.folder / file, framework="pt")
            except (SafetensorError, OSError) as error:
                raise UserError(
                    f"{self.folder / file} is not a whole safetensors file ({error}); copy or download it again"
                ) from None
            self._files[file] = handle
            self._file_of.update(dict.fromkeys(handle.keys(), file))

    def names(self) -> set[str]:
        """Names of all tensors in the files."""
        return set(self._file_of)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, from the file's header."""
        return tuple(self._files[self._file_of[name]].get_slice(name).get_shape())

    def dtype(self, name: str) -> "torch.dtype":
        """Dtype of a tensor, from the file's header; `UserError` for what a Llama checkpoint does not hold."""
        import torch

        written = self._files[self._file_of[name]].get_slice(name).get_dtype()
        if written not in DTYPES:
            raise UserError(
                f"{self.folder / self._file_of[name]}: tensor {name} has dtype {written}; "
                f"expected one of {', '.join(DTYPES)}: save the model unquantised"
            )
        return getattr(torch, DTYPES[written])

    def tensor(self, name: str) -> "torch.Tensor":
        """The tensor itself (its pages are read from disk when touched)."""
        return self._files[self._file_of[name]].get_tensor(name)


def _weight_files(folder: Path) -> list[str]:
    if (folder / INDEX_FILE).is_file():
        weight_map = read_json_object(folder / INDEX_FILE, "download it again").get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise UserError(f'{folder / INDEX_FILE}: expected a "weight_map" of tensor names to files')
        files = sorted(set(weight_map.values()))
        absent = [file for file in files if not (folder / file).is_file()]
        if absent:
            raise UserError(f"{folder}: the index names {len(absent)} files that are missing: {', '.join(absent[:5])}")
        return files
    if (folder / SINGLE_FILE).is_file():
        return [SINGLE_FILE]
    pickled = sorted(path.name for path in folder.glob("*.bin")) if folder.is_dir() else []
    hint = (
        f"it holds {pickled[0]} (a pickle, never read here): convert it with save_pretrained(safe_serialization=True)"
        if pickled
        else "give a model folder written by save_pretrained"
    )
    raise UserError(f"expected {SINGLE_FILE} or {INDEX_FILE} in {folder}, found neither; {hint}")


def write_safetensors(
    folder: Path,
    sizes: dict[str, int],
    units: list[list[str]],
    produce: Callable[[int], dict[str, "torch.Tensor"]],
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> list[str]:
    """Write tensors in shards of at most `max_shard_bytes` (one larger tensor makes its own shard); return the files.

    `sizes` gives the bytes of every tensor; `units[i]` names the tensors that `produce(i)` returns together. Units are
    produced once, in order, and a shard is written as soon as it is full: one shard is in memory at a time.
    """
    from safetensors.torch import save_file

    shards = plan_shards([name for unit in units for name in unit], sizes, max_shard_bytes)
    shard_of = {name: number for number, shard in enumerate(shards) for name in shard}
    files = [
        SINGLE_FILE if len(shards) == 1 else f"model-{number + 1:05d}-of-{len(shards):05d}.safetensors"
        for number in range(len(shards))
    ]
    waiting: dict[int, dict[str, Any]] = {}
    for number in range(len(units)):
        for name, tensor in produce(number).items():
            shard = shard_of[name]
            waiting.setdefault(shard, {})[name] = tensor
            if len(waiting[shard]) == len(shards[shard]):
                save_file(waiting.pop(shard), folder / files[shard], metadata={"format": "pt"})
    if len(shards) > 1:
        index = {
            "metadata": {"total_size": sum(sizes[name] for name in shard_of)},
            "weight_map": {name: files[shard_of[name]] for name in sorted(shard_of)},
        }
        write_json(folder / INDEX_FILE, index)
    return files


def plan_shards(names: list[str], sizes: dict[str, int], max_shard_bytes: int) -> list[list[str]]:
    """Divide tensors, in order, into shards no larger than `max_shard_bytes`, as Hugging Face does."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name in names:
        if shards[-1] and filled + sizes[name] > max_shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += sizes[name]
    return shards


def set_config_dtype(config_file: Path, dtype: str) -> None:
    """Make `config.json` name the dtype of the weights; a file that already does, or names none, stays as it is."""
    text = config_file.read_text(encoding="utf-8")
    record = json.loads(text)
    changed = [key for key in ("dtype", "torch_dtype") if record.get(key, dtype) != dtype]
    for key in changed:
        text = re.sub(rf'("{key}"\s*:\s*)"[^"]*"', rf'\g<1>"{dtype}"', text)
    if changed:
        config_file.write_text(text, encoding="utf-8")
