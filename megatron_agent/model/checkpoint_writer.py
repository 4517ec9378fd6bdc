"""Write tensors in three parts, so that the slow one can run beside training.

`plan_write` (all ranks) decides who writes what and copies device tensors to host memory; `PlannedWrite.write` (each
rank for itself, here or in a forked child) writes this rank's file and hashes it; `PlannedWrite.finish` (all ranks)
writes `.metadata`. Megatron-core's own background save starts a manager process and a process per file, which
outlive a killed rank, and hashes nothing.
"""

import queue
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_agent.model.checkpoint_folder import FileEntries, hash_files


@dataclass
class PlannedWrite:
    """One rank's share of a save. Tensors on the CPU are not copied: write before they change, or in a fork."""

    folder: Path
    buckets: list[Any]  # megatron-core's (path, file name, (bytes, tensors)): one for the file of this rank, or none
    transforms: list[Any]
    planned_buckets: list[Any]  # core's own list of the same; it keeps the tensors alive
    results_queue: Any
    finalize_fns: list[Callable[[], None]]

    def write(self) -> tuple[list[Any], FileEntries]:
        """Write, sync and hash this rank's file; return core's write results and the manifest entries. Local."""
        from megatron.core.dist_checkpointing.strategies.filesystem_async import FileSystemWriterAsync

        results: list[Any] = []
        names = []
        for bucket in self.buckets:
            written: queue.Queue[Any] = queue.Queue()
            counted: queue.Queue[int] = queue.Queue()
            counted.put(0)
            FileSystemWriterAsync.write_preloaded_data(self.transforms, 0, bucket, written, counted, True)
            _, outcome = written.get()
            if isinstance(outcome, Exception):
                raise outcome
            results += outcome
            names.append(Path(bucket[0]).relative_to(self.folder).as_posix())
        return results, hash_files(self.folder, names)

    def drop_tensors(self) -> None:
        """Free the host copies: a forked child has its own."""
        self.buckets = []
        self.planned_buckets[:] = [None] * len(self.planned_buckets)  # core checks their number

    def finish(self, results: list[Any]) -> None:
        """Write `.metadata` and `metadata.json` from what all ranks wrote. Collective."""
        if self.results_queue is not None:
            self.results_queue.put({0: results})
        for finalize in self.finalize_fns:
            finalize()


def plan_write(sharded_state_dict: dict[str, Any], folder: Path) -> PlannedWrite:
    """Plan the save of a (nested) sharded state dict; plain values in it go to `common.pt` at once. Collective."""
    from megatron.core import dist_checkpointing
    from megatron.core.dist_checkpointing.strategies import filesystem_async
    from megatron.core.dist_checkpointing.strategies.torch import TorchDistSaveShardedStrategy

    if filesystem_async._results_queue is None:
        # The default starts a manager process (seconds, and it re-imports the main module).
        filesystem_async._results_queue = queue.Queue()
    strategy = TorchDistSaveShardedStrategy("torch_dist", 1, thread_count=1)
    request = dist_checkpointing.save(sharded_state_dict, str(folder), strategy, async_sharded_save=True)
    if request.async_fn is None:  # nothing to write on this rank
        return PlannedWrite(folder, [], [], [], None, request.finalize_fns)
    (transforms, _), (_, planned_buckets, results_queue) = request.async_fn.args, request.async_fn_args
    return PlannedWrite(folder, request.preload_fn(), transforms, planned_buckets, results_queue, request.finalize_fns)


def bytes_to_write(sharded_state_dict: dict[str, Any]) -> int:
    """Return the bytes of tensors this rank will write for a sharded state dict (replicas are written once)."""
    from megatron.core.dist_checkpointing.dict_utils import nested_values
    from megatron.core.dist_checkpointing.mapping import ShardedTensor, ShardedTensorFactory, is_main_replica

    return sum(
        value.data.numel() * value.data.element_size()
        for value in nested_values(sharded_state_dict)
        if isinstance(value, ShardedTensor | ShardedTensorFactory)
        and value.data is not None
        and is_main_replica(value.replica_id)
    )
