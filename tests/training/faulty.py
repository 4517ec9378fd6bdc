"""Faults for tests: each function changes one rank of a run before it starts (see `launcher.py`)."""

import errno
import os
import resource
import time
from pathlib import Path
from typing import Any

import torch

BAD_STEP = 2


def nan_loss_in_step_2(rank: int) -> None:
    """The third micro-batch of step 2 has a loss that is NaN, on the last pipeline stage."""
    _spoil(BAD_STEP, BAD_STEP)


def nan_loss_from_step_2_on(rank: int) -> None:
    _spoil(BAD_STEP, 1000)


def _spoil(first: int, last: int) -> None:
    from megatron_agent.training import step as step_module

    micro_batches, forward_step = step_module.micro_batches, step_module.forward_step
    state: dict[str, Any] = {"step": 0}

    def counted(*args: Any, **kwargs: Any) -> Any:
        if torch.is_grad_enabled():  # not an evaluation
            state["step"] += 1
            state["micro_batch"] = 0
        return micro_batches(*args, **kwargs)

    def spoiled(*args: Any, **kwargs: Any) -> Any:
        output, loss_function = forward_step(*args, **kwargs)
        if torch.is_grad_enabled() and first <= state["step"] <= last:
            state["micro_batch"] += 1
            number = state["micro_batch"]

            def nan_loss(token_losses: torch.Tensor) -> Any:
                return loss_function(token_losses * float("nan") if number == 3 else token_losses)

            return output, nan_loss
        return output, loss_function

    step_module.micro_batches, step_module.forward_step = counted, spoiled


def nan_loss_from_step_1_on(rank: int) -> None:
    _spoil(1, 1000)


def infinite_gradient_in_step_2(rank: int) -> None:
    """Rank 1 alone has an infinite gradient; its loss is sound."""
    from megatron_agent.training import loop

    forward_backward = loop.forward_backward
    calls: list[None] = []

    def spoiled(trainer: Any, rows: Any) -> Any:
        result = forward_backward(trainer, rows)
        calls.append(None)
        if rank == 1 and len(calls) == BAD_STEP:
            for chunk in trainer.model_chunks:
                for buffer in chunk.buffers:
                    buffer.grad_data.fill_(float("inf"))
        return result

    loop.forward_backward = spoiled


def hang_in_step_3(rank: int) -> None:
    """Rank 1 sleeps in the data phase of step 3; rank 0 waits for it."""
    from megatron_agent.training import loop

    row_numbers = loop.row_numbers

    def sleeping(config: Any, step: int, num_microbatches: int) -> Any:
        if rank == 1 and step == 3:
            time.sleep(600)
        return row_numbers(config, step, num_microbatches)

    loop.row_numbers = sleeping


def slow_writes(rank: int) -> None:
    """The background write of a checkpoint takes a second longer."""
    from megatron_agent.model.checkpoint_writer import PlannedWrite

    write = PlannedWrite.write

    def slow(self: PlannedWrite) -> Any:
        time.sleep(1)
        return write(self)

    PlannedWrite.write = slow


def growing_writes(rank: int) -> None:
    """Rank 0's write of a checkpoint takes six seconds longer, while its files grow."""
    from megatron_agent.model.checkpoint_writer import PlannedWrite

    write = PlannedWrite.write

    def slow(self: PlannedWrite) -> Any:
        padding = self.folder / "padding"
        for size in range(1, 13):
            padding.write_bytes(bytes(size))
            time.sleep(0.5)
        padding.unlink()
        return write(self)

    if rank == 0:
        PlannedWrite.write = slow


def stalled_write(rank: int) -> None:
    """Rank 0's write of a checkpoint never writes anything."""
    from megatron_agent.model.checkpoint_writer import PlannedWrite

    if rank == 0:
        PlannedWrite.write = lambda self: time.sleep(600)


def gathered_state(rank: int) -> None:
    """Print how many of the gathered optimizer tensors are alive when the background write starts."""
    import weakref

    from megatron.core.dist_checkpointing.dict_utils import nested_values

    from megatron_agent.training import saves

    plan_write, call = saves.plan_write, saves.BackgroundCall
    gathered: list[Any] = []

    def watched(state: Any, folder: Path) -> Any:
        states = nested_values(state["optimizer"].get("param_state", {}))
        gathered[:] = [weakref.ref(value.data.untyped_storage()) for value in states]
        return plan_write(state, folder)

    def counting(function: Any) -> Any:
        alive = sum(reference() is not None for reference in gathered)
        print(f"rank {rank}: {alive} of {len(gathered)} gathered tensors alive", flush=True)
        return call(function)

    saves.plan_write, saves.BackgroundCall = watched, counting


def killed_writer(rank: int) -> None:
    """Rank 1's background write is killed."""
    import signal

    from megatron_agent.model.checkpoint_writer import PlannedWrite

    if rank == 1:
        PlannedWrite.write = lambda self: os.kill(os.getpid(), signal.SIGKILL)


def drifted_norm(rank: int) -> None:
    """After step 2, rank 1's copy of a norm differs from rank 0's in one bit."""
    from megatron_agent.training import loop

    update_weights = loop.update_weights

    def drifting(trainer: Any, reports: Any, report: Any, flags: Any, step: int) -> Any:
        result = update_weights(trainer, reports, report, flags, step)
        if rank == 1 and step == BAD_STEP:
            weight = trainer.gpt_models[0].decoder.final_layernorm.weight
            with torch.no_grad():
                weight[3] = torch.nextafter(weight[3], torch.tensor(10.0))
        return result

    loop.update_weights = drifting


def flipped_after_update(rank: int) -> None:
    """After step 2, rank 1's replica of one weight differs from rank 0's."""
    from megatron_agent.training import loop

    loop.update_weights = _flipping(rank, loop.update_weights)


def flipped_after_backward(rank: int) -> None:
    """The same in step 2, before its update."""
    from megatron_agent.training import loop

    loop.forward_backward = _flipping(rank, loop.forward_backward)


def _flipping(rank: int, function: Any) -> Any:
    calls: list[None] = []

    def flipping(trainer: Any, *args: Any) -> Any:
        result = function(trainer, *args)
        calls.append(None)
        if rank == 1 and len(calls) == BAD_STEP:
            trainer.model_chunks[0].buffers[0].param_data[5] += 1.0
        return result

    return flipping


def disk_full_at_second_save(rank: int) -> None:
    """From the second save on no file may grow beyond 100 kB: what a full disk looks like to a writer."""
    from megatron_agent.training.saves import CheckpointSaver

    save = CheckpointSaver.save
    calls: list[int] = []

    def limited(self: CheckpointSaver, step: int, *args: Any, **kwargs: Any) -> Any:
        calls.append(step)
        if len(calls) == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        return save(self, step, *args, **kwargs)

    CheckpointSaver.save = limited


def missing_file_on_rank_1(rank: int) -> None:
    """A file of the checkpoint is not there for rank 1."""
    is_file = Path.is_file
    if rank == 1:
        Path.is_file = lambda self: self.name != "__0_0.distcp" and is_file(self)


def unreadable_file_on_rank_1(rank: int) -> None:
    """Hashing a file of the checkpoint fails on rank 1."""
    if rank == 1:
        _unreadable("sha256_file", "__0_0.distcp", "common.pt")  # one of them falls to rank 1


def unreadable_manifest_on_rank_0(rank: int) -> None:
    if rank == 0:
        _unreadable("read_json", "manifest.json")


def _unreadable(reader: str, *names: str) -> None:
    from megatron_agent.model import checkpoint_folder

    read = getattr(checkpoint_folder, reader)

    def fail(path: Path) -> Any:
        if path.name in names:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return read(path)

    setattr(checkpoint_folder, reader, fail)
