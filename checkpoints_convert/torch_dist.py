"""Stream tensors into and out of a torch_dist checkpoint, one piece at a time, without a model or process group.

Built on torch.distributed.checkpoint's planners: a save plan whose pieces are computed only when they are written, and
a load plan for one region of one stored tensor. The files are those megatron-core writes.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex, StorageMeta, TensorProperties
from torch.distributed.checkpoint.planner import (
    LoadPlan,
    ReadItem,
    SavePlan,
    TensorWriteData,
    WriteItem,
    WriteItemType,
)
from torch.distributed.checkpoint.planner_helpers import create_read_items_for_chunk_list

from megatron_agent.model.checkpoint_folder import write_json
from megatron_agent.model.checkpoint_tensors import read_metadata

# What megatron-core's own save puts into metadata.json; importing it to write four words would take seconds.
FORMAT = {
    "sharded_backend": "torch_dist",
    "sharded_backend_version": 1,
    "common_backend": "torch",
    "common_backend_version": 1,
}


@dataclass(frozen=True)
class Piece:
    """One region of a stored tensor: where it lies, and how to compute it when its turn comes."""

    key: str
    global_shape: tuple[int, ...]
    offset: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: torch.dtype
    produce: Callable[[], torch.Tensor]


class _StreamingSavePlanner(DefaultSavePlanner):
    def __init__(self, pieces: Iterable[Piece], written: Callable[[], object]) -> None:
        super().__init__(flatten_state_dict=False)
        self.pieces = {(piece.key, torch.Size(piece.offset)): piece for piece in pieces}
        self.written = written

    def create_local_plan(self) -> SavePlan:
        return SavePlan(
            [
                WriteItem(
                    index=MetadataIndex(piece.key, piece.offset),
                    type=WriteItemType.SHARD,
                    tensor_data=TensorWriteData(
                        chunk=ChunkStorageMetadata(torch.Size(piece.offset), torch.Size(piece.shape)),
                        properties=TensorProperties(dtype=piece.dtype),
                        size=torch.Size(piece.global_shape),
                    ),
                )
                for piece in self.pieces.values()
            ]
        )

    def resolve_data(self, write_item: WriteItem) -> torch.Tensor:
        piece = self.pieces[write_item.index.fqn, write_item.index.offset]
        tensor = piece.produce().view(piece.shape)
        self.written()
        # A view of a larger storage would be written with the whole storage.
        return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()


class _Writer(dcp.FileSystemWriter):
    def storage_meta(self) -> StorageMeta:
        return StorageMeta()  # the default records the (temporary) path of the folder


def write_pieces(folder: Path, pieces: Iterable[Piece], written: Callable[[], object]) -> None:
    """Write a torch_dist checkpoint of `pieces` that together fill their tensors; `written` is called after each.

    Memory: one piece at a time. Raises ValueError when pieces overlap or leave gaps.
    """
    writer = _Writer(folder, single_file_per_rank=True, sync_files=True, thread_count=1)
    planner = _StreamingSavePlanner(pieces, written)
    # The steps of dcp.save for one process; dcp.save itself would turn an interrupt or a full disk into its own error.
    writer.reset()
    writer.set_up_storage_writer(is_coordinator=True)
    planner.set_up_planner({}, is_coordinator=True)
    plans, metadata = planner.create_global_plan([writer.prepare_local_plan(planner.create_local_plan())])
    (plan,) = writer.prepare_global_plan(plans)
    results = writer.write_data(planner.finish_plan(plan), planner).wait()
    writer.finish(metadata, [results])
    torch.save({}, folder / "common.pt")  # megatron-core expects the file; nothing of a bare model belongs in it
    write_json(folder / "metadata.json", FORMAT)


class _RegionLoadPlanner(DefaultLoadPlanner):
    def __init__(self, target: torch.Tensor) -> None:
        super().__init__()
        self.target = target

    def resolve_tensor(self, read_item: ReadItem) -> torch.Tensor:
        region = self.target
        for axis, (start, length) in enumerate(zip(read_item.dest_offsets, read_item.lengths, strict=True)):
            region = region.narrow(axis, start, length)
        return region


class TensorReader:
    """Read regions of the tensors of a torch_dist checkpoint of any layout."""

    def __init__(self, folder: Path) -> None:
        self._metadata = read_metadata(folder)
        self._reader = dcp.FileSystemReader(folder)
        self._reader.set_up_storage_reader(self._metadata, is_coordinator=True)
        stored = self._metadata.state_dict_metadata
        self._tensors: dict[str, Any] = {key: entry for key, entry in stored.items() if hasattr(entry, "chunks")}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Global shape of every stored tensor."""
        return {key: tuple(entry.size) for key, entry in self._tensors.items()}

    def dtype(self, key: str) -> torch.dtype:
        """Dtype of a stored tensor."""
        return self._tensors[key].properties.dtype

    def read(self, key: str, layer: int | None) -> torch.Tensor:
        """Read a whole tensor, or one layer of a stacked one (without the layer axis)."""
        entry = self._tensors[key]
        offset, size = [0] * len(entry.size), list(entry.size)
        if layer is not None:
            offset[0], size[0] = layer, 1
        target = torch.empty(size, dtype=entry.properties.dtype)
        chunk = ChunkStorageMetadata(torch.Size(offset), torch.Size(size))
        items = create_read_items_for_chunk_list(key, entry, [chunk])
        self._reader.read_data(LoadPlan(items), _RegionLoadPlanner(target)).wait()
        return target if layer is None else target[0]
