"""Write the checkpoints of a run, in the background where that is wanted, and remove the ones no longer kept."""

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from megatron_agent.errors import UserError
from megatron_agent.model.checkpoint_folder import (
    HF_FILES,
    HF_FOLDER,
    FileEntries,
    begin_checkpoint,
    commit_checkpoint,
    complete_checkpoints,
    iteration_folder,
    read_run_file,
    remove_checkpoint,
    write_json,
    write_run_file,
)
from megatron_agent.model.checkpoint_writer import PlannedWrite, bytes_to_write, plan_write
from megatron_agent.model.collective import gather, on_rank_0
from megatron_agent.training.background import BackgroundCall, BackgroundCallError, describe
from megatron_agent.training.checkpoint import SHARDING, allocate_torch_state, model_state_of
from megatron_agent.training.config import TrainConfig, config_to_dict
from megatron_agent.training.model_and_optimizer import Trainer, gather_parameters
from megatron_agent.training.watchdog import beat_while_growing


@dataclass
class _Save:
    """A save that is planned on all ranks; its files are being written, or are about to be."""

    step: int
    temporary: Path
    plan: PlannedWrite
    size: int  # bytes of tensors, over all ranks
    call: BackgroundCall | None  # None: written by `finish`, in this process
    error: str | None = None  # of starting the background write on this rank


class CheckpointSaver:
    """The saves of a run: at most one is in flight. `save` and `finish` are collective.

    A folder appears under its name only when every file of every rank is complete, hashed and synced. `beat(step,
    phase)` is called whenever a part of a save is done, and while the files of a save in flight grow.
    """

    def __init__(
        self, trainer: Trainer, config: TrainConfig, hf_folder: Path | None, beat: Callable[[int, str], None]
    ) -> None:
        self.trainer, self.config, self.beat = trainer, config, beat
        # Read now: the folder may be in a checkpoint of this run, which will be removed one day.
        self.hf_files: dict[str, bytes] = read_hf_files(hf_folder) if hf_folder is not None else {}
        self._current: _Save | None = None

    def writing(self) -> bool:
        """True while this rank's background write runs."""
        return self._current is not None and self._current.call is not None and self._current.call.running()

    def failed(self) -> bool:
        """True when this rank's background write has failed: call `finish` on all ranks for the error."""
        save = self._current
        return save is not None and (save.error is not None or (save.call is not None and save.call.failed()))

    def save(self, step: int, validation_loss: float | None, *, background: bool) -> Path | None:
        """Write `checkpoints/iter_{step}` after the save before it is done; return that one's folder, if any.

        With `background`, the files are written by a forked child that sees the state of this moment: call `finish`
        on all ranks when `writing` is false on all. Without, call it at once. `validation_loss` is the mean held-out
        loss at this step, for keep_best. Raises :class:`UserError` on all ranks when the disk has no room for it.
        """
        finished = self.finish()
        self.beat(step, "checkpoint: gathering the state")
        save = self._plan(step)
        on_rank_0(lambda: self._write_small_files(save.temporary, step, validation_loss))
        self._current = save
        if background:
            try:
                save.call = BackgroundCall(save.plan.write)
            except OSError as error:  # no memory for another process: told on all ranks by `finish`
                save.error = describe(error)
            save.plan.drop_tensors()
        return finished

    def _plan(self, step: int) -> _Save:
        """Gather the state and plan its write. The gathered state itself ends here: the plan has its own copy."""
        gather_parameters(self.trainer)
        metadata = dict(SHARDING)  # Megatron-core adds process groups to it
        state = model_state_of(self.trainer, metadata, adapters=self.config.lora.r > 0)
        ensure_optimizer_state(self.trainer.optimizer)
        optimizer_state = self.trainer.optimizer.sharded_state_dict(state, metadata=metadata)
        if optimizer_state["param_state"] is None:  # gathered on another rank; None would count as a plain value
            del optimizer_state["param_state"]
        state["optimizer"] = optimizer_state
        root = self.config.checkpoint_root
        size = torch.tensor(bytes_to_write(state), dtype=torch.int64, device=self.trainer.device)
        torch.distributed.all_reduce(size)
        needed = int(size)
        on_rank_0(lambda: check_room(root, step, needed))
        temporary = begin_checkpoint(root, step)
        return _Save(step, temporary, plan_write(state, temporary), needed, call=None)

    def finish(self) -> Path | None:
        """Wait for the save in flight, put its folder in place and remove older ones; return it, None without one.

        Raises :class:`UserError` on all ranks when the write failed on any; what it left is removed.
        """
        if self._current is None:
            return None
        save, self._current = self._current, None
        with beat_while_growing(save.temporary, lambda: self.beat(save.step, "checkpoint: waiting for the write")):
            results, hashed, error = _written(save)
            outcomes: list[tuple[str | None, FileEntries]] = gather((error, hashed))
        self.beat(save.step, "checkpoint: putting it in place")
        root = self.config.checkpoint_root
        errors = {rank: text for rank, (text, _) in enumerate(outcomes) if text is not None}
        if errors:
            on_rank_0(lambda: shutil.rmtree(save.temporary, ignore_errors=True))
            raise UserError(write_failure(root, save.step, save.size, errors))
        save.plan.finish(results)
        entries = {name: entry for _, part in outcomes for name, entry in part.items()}
        folder = commit_checkpoint(save.temporary, root, save.step, entries)
        keep_last, keep_best = self.config.checkpoint.keep_last, self.config.checkpoint.keep_best
        on_rank_0(lambda: prune_checkpoints(root, keep_last, keep_best))
        return folder

    def abandon(self) -> None:
        """Give up the save in flight on this rank: the run ends with an error."""
        if self._current is not None and self._current.call is not None:
            self._current.call.kill()
        self._current = None

    def _write_small_files(self, temporary: Path, step: int, validation_loss: float | None) -> None:
        measured = validation_loss is not None and math.isfinite(validation_loss)
        record = {
            "kind": "training",
            "step": step,
            "validation_loss": validation_loss if measured else None,
            "data_key": self.trainer.data_key,
            "config": config_to_dict(self.config),
        }
        write_run_file(temporary, record | self.trainer.base_record)
        (temporary / HF_FOLDER).mkdir()
        for name, content in self.hf_files.items():
            (temporary / HF_FOLDER / name).write_bytes(content)
        if not self.hf_files:
            write_json(temporary / HF_FOLDER / "config.json", self.trainer.llama.to_hf())


def _written(save: _Save) -> tuple[list[Any], FileEntries, str | None]:
    """Write this rank's files, or wait until they are written; return what `PlannedWrite.write` does, and the error."""
    if save.error is not None:
        return [], {}, save.error
    try:
        return (*(save.plan.write() if save.call is None else save.call.result()), None)
    except BackgroundCallError as failure:
        return [], {}, str(failure)
    except (OSError, RuntimeError) as failure:  # torch's own writer turns a full disk into a RuntimeError
        return [], {}, describe(failure)


def ensure_optimizer_state(optimizer: Any) -> None:
    """Give an optimizer that has applied no step yet its (zero) state: Megatron-core 0.16.1 cannot save without.

    torch's AdamW has none before its first step, nor have the fused optimizers. For the latter a step of zero
    gradients makes it, with rate and decay 0, which changes no weight; it is not counted.
    """
    (distributed,) = optimizer.chained_optimizers
    inner = distributed.optimizer
    if inner.state:
        return
    if isinstance(inner, torch.optim.AdamW):
        allocate_torch_state(optimizer)
        return
    kept = [{name: group[name] for name in ("lr", "weight_decay")} for group in inner.param_groups]
    for group in inner.param_groups:
        group.update(lr=0.0, weight_decay=0.0)
    distributed._init_optimizer_states_with_dummy_values()
    for group, values in zip(inner.param_groups, kept, strict=True):
        group.update(values, step=0)


def read_hf_files(folder: Path) -> dict[str, bytes]:
    """Return configuration and tokenizer files of a Hugging Face folder by name."""
    return {name: (folder / name).read_bytes() for name in HF_FILES if (folder / name).is_file()}


def prune_checkpoints(root: Path, keep_last: int, keep_best: int) -> None:
    """Remove complete checkpoints but the newest `keep_last` (0: all stay) and the `keep_best` of lowest held-out loss.

    The loss is in each checkpoint's run.json, so a resumed run knows it. The newest is never removed.
    """
    if not keep_last:
        return
    checkpoints = complete_checkpoints(root)
    losses = {folder: read_run_file(folder)["validation_loss"] for folder in checkpoints}
    measured = {folder: float(loss) for folder, loss in losses.items() if loss is not None}
    best = sorted(measured, key=measured.__getitem__)[:keep_best]
    for folder in checkpoints[:-keep_last]:
        if folder not in best:
            remove_checkpoint(folder)


def check_room(root: Path, step: int, needed: int) -> None:
    """Raise :class:`UserError` when the disk of `root` has fewer free bytes than a checkpoint needs."""
    root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(root).free
    if free < needed:
        raise UserError(
            f"no room for {root / iteration_folder(step)}: it needs {needed:,} bytes, the disk has {free:,} free; "
            f"free some space and start again: {_goes_on_from(root)}"
        )


def write_failure(root: Path, step: int, needed: int, errors: dict[int, str]) -> str:
    """Return the message of a save that failed on the ranks `errors`."""
    reasons = "; ".join(f"rank {rank}: {text}" for rank, text in list(errors.items())[:4])
    more = f" and {len(errors) - 4} ranks more" if len(errors) > 4 else ""
    return (
        f"{root / iteration_folder(step)} could not be written ({reasons}{more}); it needs {needed:,} bytes, the disk "
        f"has {shutil.disk_usage(root).free:,} free. Mend this and start again: {_goes_on_from(root)}"
    )


def _goes_on_from(root: Path) -> str:
    complete: Sequence[Path] = complete_checkpoints(root)
    return f"the run goes on from {complete[-1]}, which is intact" if complete else "no checkpoint is complete yet"
