"""The training run, from configuration to last checkpoint."""

import hashlib
import time
from pathlib import Path
from typing import Any

import torch

from megatron_agent.dataset.rows import PackedRow, PackedRows
from megatron_agent.dataset.sampler import rows_for_step
from megatron_agent.errors import UserError
from megatron_agent.files import sha256_file
from megatron_agent.model.checkpoint_folder import (
    HF_FOLDER,
    latest_checkpoint,
    remove_leftovers,
    resolve_checkpoint,
    verify_checkpoint,
)
from megatron_agent.model.config import LlamaConfig, check_layout, load_llama_config, padded_vocab_size
from megatron_agent.model.layer_specs import layer_spec_name
from megatron_agent.model.parallel import (
    destroy_model_parallel,
    initialize_model_parallel,
    seed_model_parallel,
)
from megatron_agent.training.checkpoint import (
    check_same_run,
    load_training_checkpoint,
    load_weights,
    save_training_checkpoint,
)
from megatron_agent.training.config import TrainConfig, world_size_from_environment
from megatron_agent.training.loss import named_losses
from megatron_agent.training.model_and_optimizer import Trainer, build_trainer, data_key
from megatron_agent.training.schedule import learning_rate, set_hyperparameters
from megatron_agent.training.step import StepResult, evaluate, train_step
from megatron_agent.training.telemetry import Telemetry, is_main_rank, print_derived


def train(config: TrainConfig) -> None:
    """Train to `train_iters`, resuming from the newest complete checkpoint in `output_dir`.

    Everything that can be refused is refused before the model is built; see docs/training.md for what a run writes.
    """
    own = latest_checkpoint(config.checkpoint_root)
    start = own or (resolve_checkpoint(config.model.checkpoint) if config.model.checkpoint else None)
    hf_folder = find_hf_folder(config, start)
    llama = load_llama_config(hf_folder or str(config.model.config))
    data_parallel_size = check_layout(llama, config.parallel, world_size_from_environment(), config.data.seq_length)
    num_microbatches = config.num_microbatches(data_parallel_size)
    rows = PackedRows(config.data, config.num_rows)
    check_tokenizer(rows, llama, hf_folder)
    if own is not None:
        check_same_run(own, config, data_key(rows))

    initialize_model_parallel(config.parallel, config.training.seed)
    if start is not None:
        verify_checkpoint(start, collective=True)
    if is_main_rank():
        remove_leftovers(config.checkpoint_root)
    trainer = build_trainer(config, llama, rows)
    start_step = 0
    if own is not None:
        start_step = load_training_checkpoint(trainer, own)
    elif start is not None:
        load_weights(trainer, start)
    parameters = parameters_per_rank(trainer)
    if is_main_rank():
        print_derived(derived_numbers(config, llama, rows, parameters, data_parallel_size, num_microbatches))
        if own is not None:
            print(f"resuming {own} after step {start_step}", flush=True)
    run_steps(trainer, config, rows, start_step, num_microbatches, hf_folder)
    destroy_model_parallel()


def find_hf_folder(config: TrainConfig, start: Path | None) -> Path | None:
    """Return the folder with config.json and tokenizer of the model; None for a preset, which has no files."""
    if start is not None:
        return start / HF_FOLDER
    folder = Path(str(config.model.config))
    return folder if folder.is_dir() else None


def check_tokenizer(rows: PackedRows, llama: LlamaConfig, hf_folder: Path | None) -> None:
    """Refuse data tokenized for another model: its ids would be read as other words, or fall outside the embedding.

    Vocabularies of equal size (Llama-2's and Mistral's have 32,000 pieces each) are told apart by the hash of the
    tokenizer file, where the checkpoint brings one along.
    """
    if rows.vocab_size > llama.vocab_size:
        raise UserError(
            f"the data was tokenized with a vocabulary of {rows.vocab_size:,} ids, the model has {llama.vocab_size:,}: "
            "build it again with data_prep.build_indexed_dataset --tokenizer of this model"
        )
    files = [hf_folder / name for name in ("tokenizer.model", "tokenizer.json")] if hf_folder else []
    hashes = {sha256_file(file): file for file in files if file.is_file()}
    if hashes and rows.tokenizer_sha256 not in hashes:
        raise UserError(
            f"the data was tokenized with another tokenizer (sha256 {rows.tokenizer_sha256[:12]}...) than the model's "
            f"({', '.join(f'{file} {digest[:12]}...' for digest, file in hashes.items())}): build it again with "
            "data_prep.build_indexed_dataset --tokenizer of this model"
        )


def run_steps(
    trainer: Trainer,
    config: TrainConfig,
    rows: PackedRows,
    start_step: int,
    num_microbatches: int,
    hf_folder: Path | None,
) -> None:
    """Run the steps after `start_step`, with evaluation and checkpoints at their intervals."""
    training = config.training
    telemetry = None
    if is_main_rank():
        output_dir = Path(training.output_dir)
        output_dir.mkdir(parents=True, exist_ok=True)
        telemetry = Telemetry(output_dir, start_step, training.train_iters, training.log_interval)
    validation = {name: rows.validation_rows(name) for name in rows.source_names} if training.eval_interval else {}
    if start_step == 0:
        validate(trainer, config, validation, 0, telemetry)

    for step in range(start_step + 1, training.train_iters + 1):
        started = time.perf_counter()
        batch = batch_of_step(config, rows, step, num_microbatches)
        # Dropout is a function of (seed, step): a resume restores no generator state.
        seed_model_parallel(seed_of_step(training.seed, step), vary_over_data_parallel=True)
        rate = learning_rate(step, training.train_iters, config.optimizer)
        set_hyperparameters(trainer.optimizer, rate, config.optimizer)
        result = train_step(trainer, batch, step)
        if telemetry is not None:
            telemetry.log_step(step_record(step, result, rate, rows, config, time.perf_counter() - started))
        if training.eval_interval and (step % training.eval_interval == 0 or step == training.train_iters):
            validate(trainer, config, validation, step, telemetry)
        if step % config.checkpoint.save_interval == 0 or step == training.train_iters:
            folder = save_training_checkpoint(trainer, config, step, hf_folder)
            if telemetry is not None:
                telemetry.message(f"step {step} saved to {folder}")
    if telemetry is not None:
        telemetry.close()


def seed_of_step(seed: int, step: int) -> int:
    """Return a seed far from those of other steps: ranks and pipeline stages add small numbers to it."""
    digest = hashlib.blake2b(f"{seed} {step}".encode(), digest_size=6).digest()
    return int.from_bytes(digest, "big")


def batch_of_step(config: TrainConfig, rows: PackedRows, step: int, num_microbatches: int) -> list[list[PackedRow]]:
    """Return the packed rows of this data-parallel rank in optimizer step `step`, per micro-batch."""
    from megatron.core import parallel_state

    numbers = rows_for_step(
        consumed_rows=(step - 1) * config.training.global_batch_size,
        micro_batch_size=config.training.micro_batch_size,
        dp_rank=parallel_state.get_data_parallel_rank(),
        dp_size=parallel_state.get_data_parallel_world_size(),
        num_microbatches=num_microbatches,
    )
    return [[rows.row(number) for number in micro_batch] for micro_batch in numbers]


def validate(
    trainer: Trainer,
    config: TrainConfig,
    validation: dict[str, list[PackedRow]],
    step: int,
    telemetry: Telemetry | None,
) -> None:
    """Measure the loss per trained token of each source on its held-out conversations."""
    losses: dict[str, Any] = {}
    for index, (name, held_out) in enumerate(validation.items()):
        if held_out:
            report = evaluate(trainer, held_out, config.training.micro_batch_size)
            losses |= named_losses(report[index : index + 1], [name])
    if telemetry is not None and losses:
        telemetry.log_validation(step, losses)


def step_record(
    step: int, result: StepResult, rate: float, rows: PackedRows, config: TrainConfig, seconds: float
) -> dict[str, Any]:
    """Return the line of metrics.jsonl: see docs/training.md for the fields."""
    tokens = config.training.global_batch_size * config.data.seq_length
    return {
        "step": step,
        "loss": result.loss,
        "grad_norm": result.grad_norm,
        "lr": rate,
        "trained_tokens": int(result.report[:, 1].sum()),
        "tokens": tokens,
        "seconds": seconds,
        "tokens_per_second": tokens / seconds,
        "source_loss": named_losses(result.report, rows.source_names),
    }


def parameters_per_rank(trainer: Trainer) -> list[int]:
    """Return the number of parameters each rank holds, vocabulary padding included."""
    counts = [0] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(counts, sum(weight.numel() for weight in trainer.gpt_model.parameters()))
    return counts


def derived_numbers(
    config: TrainConfig,
    llama: LlamaConfig,
    rows: PackedRows,
    parameters: list[int],
    data_parallel_size: int,
    num_microbatches: int,
) -> list[tuple[str, str]]:
    """Return what the configuration implies, as (name, value) lines."""
    training, parallel = config.training, config.parallel
    per_step = training.global_batch_size * config.data.seq_length
    distinct = " or ".join(f"{count:,}" for count in sorted(set(parameters)))
    warmup = round(training.train_iters * config.optimizer.lr_warmup_fraction)
    decay = round(training.train_iters * config.optimizer.lr_decay_fraction)
    pipeline = parallel.pipeline_model_parallel_size
    pairs = [
        ("device", torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU (gloo)"),
        ("layer spec", layer_spec_name(torch.bfloat16 if training.precision == "bf16" else torch.float32)),
        ("layout", f"TP {parallel.tensor_model_parallel_size} x PP {pipeline} x DP {data_parallel_size}"),
        ("parameters", f"{llama.num_parameters():,}; {distinct} a rank"),
        ("vocabulary", f"{llama.vocab_size:,}, padded to {padded_vocab_size(llama.vocab_size):,}"),
        ("precision", training.precision),
        (
            "steps",
            f"{training.train_iters:,} (warm-up {warmup:,}, cosine until {decay:,}, then {config.optimizer.min_lr:g})",
        ),
        (
            "rows per step",
            f"{training.global_batch_size} = micro-batch {training.micro_batch_size} x accumulation "
            f"{num_microbatches} x DP {data_parallel_size}",
        ),
        ("tokens per step", f"{per_step:,} ({config.data.seq_length:,} a row)"),
        ("tokens in all", f"{per_step * training.train_iters:,}"),
        ("pipeline bubble", f"{(pipeline - 1) / num_microbatches:.1%}"),
    ]
    summary = rows.summary()
    pairs.append(("data", f"eta {summary['eta']}, rows filled to {summary['fill']:.1%}"))
    for name, source in summary["sources"].items():
        pairs.append(
            (
                f"  {name}",
                f"{source['conversations']:,} conversations ({source['conversation_share']:.1%}), "
                f"{source['passes']:.2f} epochs, {source['trained_tokens']:,} trained tokens",
            )
        )
    return pairs
