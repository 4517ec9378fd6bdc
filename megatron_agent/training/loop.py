"""The training run, from configuration to last checkpoint."""

import hashlib
from pathlib import Path
from typing import Any

import torch

from megatron_agent.dataset.rows import PackedRows
from megatron_agent.dataset.sampler import rows_for_step
from megatron_agent.files import append_json_line
from megatron_agent.model.checkpoint_folder import latest_checkpoint, resolve_checkpoint, verify_checkpoint
from megatron_agent.model.collective import raised_on_all
from megatron_agent.model.config import load_llama_config
from megatron_agent.model.layout import check_layout
from megatron_agent.model.lora_config import num_adapter_parameters
from megatron_agent.model.parallel import destroy_model_parallel, initialize_model_parallel, seed_model_parallel
from megatron_agent.training.bad_steps import (
    SKIPPED_STEPS,
    SkippedSteps,
    SpikeDetector,
    describe_skipped,
    recent_losses,
    skipped_record,
)
from megatron_agent.training.checkpoint import check_same_run, load_training_checkpoint, load_weights
from megatron_agent.training.config import TrainConfig, rank_from_environment, world_size_from_environment
from megatron_agent.training.derived import derived_numbers, mfu_peak, parameters_per_rank, print_switches
from megatron_agent.training.lora_checkpoint import base_record, find_base
from megatron_agent.training.loss import named_losses
from megatron_agent.training.memory import peak_memory
from megatron_agent.training.model_and_optimizer import Trainer, build_trainer, data_key, resolve_switches
from megatron_agent.training.saves import CheckpointSaver
from megatron_agent.training.schedule import learning_rate, set_hyperparameters
from megatron_agent.training.setup import check_same_start, check_tokenizer, find_hf_folder, open_rows, prepare_output
from megatron_agent.training.signals import EXIT_REQUEUE, StopClock, agree, catch_stop_signals, describe_reason
from megatron_agent.training.step import StepResult, evaluate, forward_backward, update_weights
from megatron_agent.training.step_record import StepWork, flops_of_rows, step_record
from megatron_agent.training.telemetry import Telemetry, drop_lines_after, is_main_rank, print_derived
from megatron_agent.training.wandb_run import check_wandb
from megatron_agent.training.watchdog import Watchdog
from megatron_agent.training.weight_check import check_common_weights


def train(config: TrainConfig) -> bool:
    """Train to `train_iters`, resuming from the newest complete checkpoint in `output_dir`.

    Return whether the run is finished; False when a signal or the time budget ended it before, with a checkpoint.
    Everything that can be refused is refused before the model is built; see docs/training.md for what a run writes.
    """
    check_wandb(config.telemetry)
    clock = StopClock(config.reliability.exit_duration_in_mins, rank_from_environment())
    own = latest_checkpoint(config.checkpoint_root)
    start = own or (resolve_checkpoint(config.model.checkpoint) if config.model.checkpoint else None)
    hf_folder = find_hf_folder(config, start)
    llama = load_llama_config(hf_folder or str(config.model.config))
    data_parallel_size = check_layout(llama, config.parallel, world_size_from_environment(), config.data.seq_length)
    config.check_recompute(llama)
    num_microbatches = config.num_microbatches(data_parallel_size)
    resolve_switches(config, data_parallel_size)  # what this machine lacks is refused before ranks wait for one another

    initialize_model_parallel(config.parallel, config.training.seed)
    catch_stop_signals()  # not before: while ranks wait for one another to join, a signal should end them at once
    check_same_start(start)
    rows = open_rows(config)
    raised_on_all(lambda: check_tokenizer(rows, llama, hf_folder))
    if own is not None:
        raised_on_all(lambda: check_same_run(own, config, data_key(rows)))
    base = raised_on_all(lambda: find_base(config, own))
    prepare_output(config)
    weights = base or (start if own is None else None)
    for folder in (weights, own):
        if folder is not None:
            verify_checkpoint(folder, collective=True)
    trainer = build_trainer(config, llama, rows)
    trainer.base_record = base_record(config, base)
    start_step = 0
    if weights is not None:
        load_weights(trainer, weights)
    if own is not None:
        start_step = load_training_checkpoint(trainer, config, own)
    parameters = parameters_per_rank(trainer)
    if is_main_rank():
        print_derived(derived_numbers(config, llama, rows, parameters, data_parallel_size, num_microbatches))
        print_switches(trainer)
        if own is not None:
            print(f"resuming {own} after step {start_step}", flush=True)
    finished = run_steps(trainer, config, rows, start_step, num_microbatches, hf_folder, clock)
    destroy_model_parallel()
    return finished


def run_steps(
    trainer: Trainer,
    config: TrainConfig,
    rows: PackedRows,
    start_step: int,
    num_microbatches: int,
    hf_folder: Path | None,
    clock: StopClock,
) -> bool:
    """Run the steps after `start_step`; return False when told to stop before the last one."""
    run = Run(trainer, config, rows, start_step, num_microbatches, hf_folder, clock)
    try:
        return run.run()
    finally:
        run.close()


class Run:
    """The steps of a run, with evaluation and checkpoints at their intervals, and everything that watches over them."""

    def __init__(
        self,
        trainer: Trainer,
        config: TrainConfig,
        rows: PackedRows,
        start_step: int,
        num_microbatches: int,
        hf_folder: Path | None,
        clock: StopClock,
    ) -> None:
        training, reliability = config.training, config.reliability
        output_dir = Path(training.output_dir)
        self.trainer, self.config, self.rows = trainer, config, rows
        self.start_step, self.num_microbatches, self.clock = start_step, num_microbatches, clock
        self.watchdog = Watchdog(reliability.hang_timeout_in_mins, output_dir, torch.distributed.get_rank())
        self.saver = CheckpointSaver(trainer, config, hf_folder, self.watchdog.beat)
        self.skipped_steps = SkippedSteps(output_dir, reliability.max_skipped_steps)
        self.telemetry = None
        losses = []
        if is_main_rank():
            drop_lines_after(output_dir / SKIPPED_STEPS, start_step)
            self.telemetry = Telemetry(config, start_step)
            losses = recent_losses(self.telemetry.metrics_path)
        self.spikes = SpikeDetector(reliability.loss_spike_factor, losses)
        self.peak_tflops, _ = mfu_peak(config)
        self.adapter_weights = num_adapter_parameters(trainer.llama, config.lora) if config.lora.r else None
        self.memory: dict[str, int] = {}
        names = rows.source_names if training.eval_interval else []
        self.validation = {name: rows.validation_rows(name) for name in names}

    def close(self) -> None:
        """Stop what runs beside the steps; a save in flight after an error is given up."""
        self.watchdog.stop()
        self.saver.abandon()
        if self.telemetry is not None:
            self.telemetry.close()

    def run(self) -> bool:
        """Run the steps; see `run_steps`."""
        last = self.config.training.train_iters
        if self.start_step < last and (reason := self._reason_to_stop()):
            return self._leave(self.start_step, reason)  # it came while the model was loaded: nothing is new
        if self.start_step == 0:
            self._validate(0)
        for step in range(self.start_step + 1, last + 1):
            result = self._step(step)
            reason, writing, failed = result.flags
            if failed or not writing:
                self._finish_save()
            validation_loss = None
            interval = self.config.training.eval_interval
            if interval and (step % interval == 0 or step == last):
                validation_loss = self._validate(step)
                reason = reason or self._reason_to_stop()
            ends = step == last or reason
            interval = self.config.checkpoint.save_interval
            if interval and (ends or step % interval == 0):
                self._save(step, validation_loss, background=self.config.checkpoint.async_save and not ends)
            if reason and step < last:
                return self._leave(step, reason)
        return True

    def _step(self, step: int) -> StepResult:
        """Run one optimizer step and record it."""
        config, training, timers = self.config, self.config.training, self.trainer.timers
        timers.start_step()
        self.watchdog.beat(step, "data")
        with timers.measure("data"):
            numbers = row_numbers(config, step, self.num_microbatches)
            batch = [[self.rows.row(number) for number in micro_batch] for micro_batch in numbers]
        # Dropout is a function of (seed, step): a resume restores no generator state.
        seed_model_parallel(seed_of_step(training.seed, step), vary_over_data_parallel=True)
        rate = learning_rate(step, training.train_iters, config.optimizer)
        set_hyperparameters(self.trainer.optimizer, rate, config.optimizer)

        self.watchdog.beat(step, "forward and backward")
        reports, report = forward_backward(self.trainer, batch)

        interval = config.reliability.check_weight_hash_across_dp_replicas_interval
        if interval and step % interval == 0:
            self.watchdog.beat(step, "weight check")
            check_common_weights(self.trainer, step)

        self.watchdog.beat(step, "optimizer")
        flags = [self.clock.reason(), int(self.saver.writing()), int(self.saver.failed())]
        with timers.measure("optimizer"):
            result = update_weights(self.trainer, reports, report, flags, step)
        seconds, parts = timers.end_step()
        with timers.measure("logging"):
            if not self.memory or step % config.telemetry.log_interval == 0:
                self.memory = peak_memory(self.trainer.device)
            record = self._record(step, result, rate, seconds, parts) if self.telemetry is not None else {}
            first_row = (step - 1) * training.global_batch_size
            if not result.applied:
                self._skip(step, result, record, first_row, numbers)
                return result
            self.skipped_steps.finished()
            if self.telemetry is not None:
                self.telemetry.log_step(record)
                if warning := self.spikes.warning(step, result.loss, first_row, training.global_batch_size):
                    self.telemetry.message(warning)
        return result

    def _record(
        self, step: int, result: StepResult, rate: float, seconds: float, parts: dict[str, float]
    ) -> dict[str, Any]:
        rows_per_step = self.config.training.global_batch_size
        first, last = (step - 1) * rows_per_step, step * rows_per_step
        trained_tokens = int(result.report[:, 1].sum())
        work = StepWork(
            tokens=rows_per_step * self.config.data.seq_length,
            flops=flops_of_rows(self.rows, first, last, self.trainer.llama, trained_tokens, self.adapter_weights),
            world_size=torch.distributed.get_world_size(),
            peak_tflops=self.peak_tflops,
        )
        return step_record(step, result, rate, self.rows.source_names, work, seconds, parts, self.memory)

    def _skip(
        self, step: int, result: StepResult, record: dict[str, Any], first_row: int, numbers: list[list[int]]
    ) -> None:
        """Record a step that was not applied; stop the run after too many of them."""
        suspects: list[list[int]] = [[] for _ in range(torch.distributed.get_world_size())]
        mine = [number for index in result.micro_batches_not_finite for number in numbers[index]]
        torch.distributed.all_gather_object(suspects, mine)
        rows_not_finite = sorted({number for part in suspects for number in part})
        self.skipped_steps.skipped()
        if self.telemetry is not None:
            line = skipped_record(record, first_row, self.config.training.global_batch_size, rows_not_finite)
            for path in (self.skipped_steps.path, self.telemetry.metrics_path):
                append_json_line(path, line)
            self.telemetry.message(describe_skipped(line))
        if self.skipped_steps.exceeded():
            self._finish_save()  # a checkpoint from before them is welcome
            self.skipped_steps.stop()

    def _reason_to_stop(self) -> int:
        """Return a reason to stop that any rank has, 0 for none. Collective."""
        return int(agree(torch.tensor([self.clock.reason()], device=self.trainer.device))[0])

    def _leave(self, step: int, reason: int) -> bool:
        """Say why the run ends before its last step."""
        if self.telemetry is not None:
            what = "saved" if self.config.checkpoint.save_interval else "not saved (--checkpoint.save_interval 0)"
            where = f"after step {step}, which is {what}" if step else "before the first step"
            self.telemetry.message(
                f"stopped {where}: {describe_reason(reason)}. Ending with status {EXIT_REQUEUE}; the same command "
                "goes on from the newest checkpoint"
            )
        return False

    def _save(self, step: int, validation_loss: float | None, *, background: bool) -> None:
        with self.trainer.timers.measure("checkpoint"):
            self._saved(self.saver.save(step, validation_loss, background=background))
            if not background:
                self._saved(self.saver.finish())

    def _finish_save(self) -> None:
        """Put the save in flight, if any, in place."""
        with self.trainer.timers.measure("checkpoint"):
            self._saved(self.saver.finish())

    def _saved(self, folder: Path | None) -> None:
        if folder is not None and self.telemetry is not None:
            self.telemetry.message(f"saved {folder}")

    def _validate(self, step: int) -> float | None:
        """Measure the loss per trained token of each source on its held-out conversations; return their mean."""
        losses: dict[str, Any] = {}
        with self.trainer.timers.measure("evaluation"):
            for index, (name, held_out) in enumerate(self.validation.items()):
                self.watchdog.beat(step, f"evaluation of {name}")
                if held_out:
                    report = evaluate(self.trainer, held_out, self.config.training.micro_batch_size)
                    losses |= named_losses(report[index : index + 1], [name])
        if self.telemetry is not None and losses:
            self.telemetry.log_validation(step, losses)
        return sum(losses.values()) / len(losses) if losses else None


def seed_of_step(seed: int, step: int) -> int:
    """Return a seed far from those of other steps: ranks and pipeline stages add small numbers to it."""
    digest = hashlib.blake2b(f"{seed} {step}".encode(), digest_size=6).digest()
    return int.from_bytes(digest, "big")


def row_numbers(config: TrainConfig, step: int, num_microbatches: int) -> list[list[int]]:
    """Return the numbers of the packed rows of this data-parallel rank in optimizer step `step`, per micro-batch."""
    from megatron.core import parallel_state

    return rows_for_step(
        consumed_rows=(step - 1) * config.training.global_batch_size,
        micro_batch_size=config.training.micro_batch_size,
        dp_rank=parallel_state.get_data_parallel_rank(),
        dp_size=parallel_state.get_data_parallel_world_size(),
        num_microbatches=num_microbatches,
    )
