"""Read the tensors of a checkpoint: megatron-core's torch_dist format, without unrestricted pickle.

Two readings of torch's checkpoint code would run any pickle: `.metadata` (plain `pickle.load`) and objects saved beside
tensors (`torch.load(weights_only=False)`). Here `.metadata` is first read by an unpickler that knows only torch's
metadata classes, and the environment variable `TORCH_FORCE_WEIGHTS_ONLY_LOAD` holds for everything else.
"""

import contextlib
import enum
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from megatron_agent.errors import UserError
from megatron_agent.model.lora_config import is_adapter_key

# Everything torch's metadata pickles refer to.
_METADATA_CLASSES = {
    "torch.distributed.checkpoint.metadata": (
        "BytesStorageMetadata",
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    ),
    "torch.distributed.checkpoint.filesystem": ("_StorageInfo",),
    "torch.distributed.checkpoint.planner": ("SavePlan", "TensorWriteData", "WriteItem", "WriteItemType"),
    "torch.serialization": ("_get_layout",),
    "torch": ("Size",),
}


def load_tensors(sharded_state_dict: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Load what `sharded_state_dict` asks for from a checkpoint of any layout, and return the state dict. Collective.

    Raises `UserError` when a tensor is missing or has another shape. Verify the checkpoint before
    (`checkpoint_folder.verify_checkpoint`): this function trusts the bytes.
    """
    from megatron.core import dist_checkpointing
    from megatron.core.dist_checkpointing.core import CheckpointingException
    from torch.distributed.checkpoint import CheckpointException

    _check_fit(sharded_state_dict, folder)
    with _weights_only():
        try:
            return dist_checkpointing.load(sharded_state_dict, str(folder))
        except (CheckpointingException, CheckpointException) as error:
            raise UserError(f"checkpoint {folder} does not fit this model or layout: {error}") from error


def model_sharded_state_dict(model: Any, metadata: dict[str, Any] | None = None) -> dict[str, Any]:
    """Sharded state dict of an unwrapped GPTModel, without `_extra_state` (fp8 scales of Transformer Engine).

    Without them every checkpoint has the same keys: from either layer spec, from training or from a converter.
    """
    state = model.sharded_state_dict(metadata=metadata)
    return {key: value for key, value in state.items() if not key.endswith("_extra_state")}


def load_model_weights(model: Any, folder: Path) -> None:
    """Load the weights of a checkpoint of any layout into an unwrapped GPTModel, in the model's own dtype. Collective.

    Build the optimizer afterwards (or call its `reload_model_params()`): it copies the weights when it is built.
    """
    set_model_state(model, load_tensors({"model": model_sharded_state_dict(model)}, folder)["model"])


def set_model_state(model: Any, state: dict[str, Any]) -> None:
    """Put a loaded state (what `load_tensors` returned for `model_sharded_state_dict`) into the model.

    A state of LoRA adapters alone, or of everything but them, is whole too; the rest of the model stays as it is.
    """
    missing, unexpected = model.load_state_dict(state, strict=False)
    parts = {is_adapter_key(key) for key in state}
    missing = [key for key in missing if is_adapter_key(key) in parts and not key.endswith("_extra_state")]
    if missing or unexpected:
        raise UserError(f"the checkpoint does not fit the model: missing {missing}, unexpected {unexpected}")


def read_metadata(folder: str | Path) -> Any:
    """Read `.metadata` (torch `Metadata`: shapes, chunks, files) with an unpickler restricted to its own classes."""
    file = Path(folder) / ".metadata"
    try:
        with open(file, "rb") as handle:
            return _MetadataUnpickler(handle, file).load()
    except FileNotFoundError:
        raise UserError(f"expected the file {file}, found none; the checkpoint is incomplete") from None
    except (pickle.UnpicklingError, EOFError, AttributeError, IndexError, KeyError, ValueError) as error:
        raise UserError(f"{file} is damaged ({error}); restore the checkpoint from a copy") from None


class _MetadataUnpickler(pickle.Unpickler):
    def __init__(self, handle: IO[bytes], file: Path) -> None:
        super().__init__(handle)
        self.file = file

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("builtins", "getattr"):
            return _member
        if name in _METADATA_CLASSES.get(module, ()) or _is_dtype(module, name):
            return super().find_class(module, name)
        raise UserError(f"{self.file} names {module}.{name}, which no checkpoint needs; do not trust this file")


def _member(kind: Any, name: str) -> enum.Enum:
    """The member of an enum. Python 3.11.0 to 3.11.3 (Debian 12's) pickle it as `getattr(kind, name)`."""
    if not (isinstance(kind, enum.EnumMeta) and name in kind.__members__):
        raise pickle.UnpicklingError(f"it asks for the attribute {name} of {kind}")
    return kind.__members__[name]


def _is_dtype(module: str, name: str) -> bool:
    import torch

    return module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)


def _check_fit(sharded_state_dict: dict[str, Any], folder: Path) -> None:
    """Name missing tensors and other shapes before anything is read (megatron-core zero-fills odd vocabularies)."""
    from megatron.core.dist_checkpointing.dict_utils import nested_values
    from megatron.core.dist_checkpointing.mapping import ShardedTensor, ShardedTensorFactory

    stored = read_metadata(folder).state_dict_metadata
    problems = []
    for value in nested_values(sharded_state_dict):
        if not isinstance(value, ShardedTensor | ShardedTensorFactory):
            continue
        if value.key not in stored:
            problems.append(f"{value.key}: missing")
        elif isinstance(value, ShardedTensor) and not value.key.startswith("optimizer"):
            got, wanted = tuple(stored[value.key].size), tuple(value.global_shape)
            if got != wanted:
                problems.append(f"{value.key}: expected shape {wanted}, got {got}")
    if problems:
        shown = list(dict.fromkeys(problems))[:8]
        raise UserError(f"checkpoint {folder} does not fit this model:\n  " + "\n  ".join(shown))


@contextlib.contextmanager
def _weights_only() -> Iterator[None]:
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
