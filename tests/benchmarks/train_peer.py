"""One contestant of `train_speed`: transformers' Trainer on the conversations of our packed rows, in its own process.

    python -m tests.benchmarks.train_peer padded|padding_free --config C.yaml --model DIR --output J

Trainer's defaults but for what makes the work the same: learning rate, betas, weight decay, clipping; a constant
schedule; the conversations of a step. Nothing of our runtime is installed here.

* padded: micro-batches of about 8 conversations (Trainer's default), padded by `DataCollatorForSeq2Seq` to the longest.
* padding_free: the conversations of one of our rows a micro-batch, joined by `DataCollatorWithFlattening`. On a CPU
  there is no flash-attention package: transformers finds the borders in `position_ids` and gives
  `scaled_dot_product_attention` a block-diagonal mask (`masking_utils.find_packed_sequence_indices`).
"""

import argparse
import itertools
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    DataCollatorWithFlattening,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from megatron_agent.dataset.rows import PackedRow, PackedRows
from megatron_agent.training.config import TrainConfig, parse_config

IGNORED = -100
DEFAULT_BATCH = TrainingArguments.__dataclass_fields__["per_device_train_batch_size"].default

Conversation = dict[str, list[int]]


def conversations_of_row(row: PackedRow) -> list[Conversation]:
    """Return the conversations of a packed row; labels are ids where trained, else -100, not shifted."""
    trained = np.zeros(len(row.tokens), dtype=bool)
    trained[1:] = row.loss_mask[:-1] > 0  # our labels and masks stand one position earlier
    labels = np.where(trained, row.tokens, IGNORED)
    borders = row.cu_seqlens.tolist()
    return [
        {"input_ids": row.tokens[start:end].tolist(), "labels": labels[start:end].tolist()}
        for start, end, source in zip(borders, borders[1:], row.segment_sources, strict=False)
        if source >= 0
    ]


def micro_batches(rows: list[list[PackedRow]], padded: bool) -> list[list[list[Conversation]]]:
    """Return the micro-batches of every step, `rows` being its packed rows; each step has as many as any other."""
    steps = [[conversations_of_row(row) for row in step] for step in rows]
    if not padded:
        return steps
    joined = [[conversation for row in step for conversation in row] for step in steps]
    mean = sum(len(step) for step in joined) / len(joined)
    count = max(1, round(mean / DEFAULT_BATCH))
    return [[list(part) for part in _split(step, count)] for step in joined]


def _split(items: list[Conversation], count: int) -> list[list[Conversation]]:
    borders = [round(number * len(items) / count) for number in range(count + 1)]
    return [items[start:end] for start, end in itertools.pairwise(borders)]


def training_arguments(config: TrainConfig, accumulation: int, folder: Path) -> TrainingArguments:
    """Trainer's arguments; an item of the data set is a whole micro-batch, so that it draws no batches of its own."""
    optimizer = config.optimizer
    return TrainingArguments(
        output_dir=str(folder),
        use_cpu=not torch.cuda.is_available(),
        bf16=config.training.precision == "bf16",
        per_device_train_batch_size=1,
        gradient_accumulation_steps=accumulation,
        train_sampling_strategy="sequential",
        num_train_epochs=1,
        learning_rate=optimizer.lr,
        lr_scheduler_type="constant",
        weight_decay=optimizer.weight_decay,
        adam_beta1=optimizer.adam_beta1,
        adam_beta2=optimizer.adam_beta2,
        adam_epsilon=optimizer.adam_eps,
        max_grad_norm=optimizer.clip_grad,
        remove_unused_columns=False,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


class StepClock(TrainerCallback):
    """Notes the end of every optimizer step, the first one's beginning, and its loss."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.losses: list[float] = []

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.times.append(time.perf_counter())

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.times.append(time.perf_counter())

    def on_log(self, *args: Any, logs: dict[str, float], **kwargs: Any) -> None:
        if "loss" in logs:
            self.losses.append(float(logs["loss"]))


def run(contestant: str, config: TrainConfig, model_folder: Path, folder: Path) -> list[dict[str, Any]]:
    """Train; return step, loss, seconds, trained tokens and positions computed of every step."""
    per_step = config.training.global_batch_size
    rows = PackedRows(config.data, config.num_rows)
    by_step = [
        [rows.row(step * per_step + number) for number in range(per_step)]
        for step in range(config.training.train_iters)
    ]
    padded = contestant == "padded"
    steps = micro_batches(by_step, padded)
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    collate = DataCollatorForSeq2Seq(tokenizer) if padded else DataCollatorWithFlattening()
    positions: list[int] = []

    def collate_item(items: list[list[Conversation]]) -> Any:
        batch = collate(items[0])
        positions.append(batch["input_ids"].numel())
        return batch

    clock = StepClock()
    trainer = Trainer(
        model=AutoModelForCausalLM.from_pretrained(model_folder),
        args=training_arguments(config, len(steps[0]), folder),
        data_collator=collate_item,
        train_dataset=[micro_batch for step in steps for micro_batch in step],
        callbacks=[clock],
    )
    trainer.train()
    trained = [sum(int(row.loss_mask.sum()) for row in step) for step in by_step]
    accumulation = len(steps[0])
    return [
        {
            "step": step + 1,
            "loss": clock.losses[step],
            "seconds": clock.times[step + 1] - clock.times[step],
            "trained_tokens": trained[step],
            "positions": sum(positions[step * accumulation : (step + 1) * accumulation]),
        }
        for step in range(len(steps))
    ]


def main() -> None:
    """Command line of one contestant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("contestant", choices=("padded", "padding_free"))
    parser.add_argument("--config", required=True)
    parser.add_argument("--model", required=True, type=Path)
    parser.add_argument("--output", required=True, type=Path)
    arguments = parser.parse_args()
    config = parse_config(["--config", arguments.config])
    records = run(arguments.contestant, config, arguments.model, arguments.output.parent / "trainer")
    arguments.output.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


if __name__ == "__main__":
    main()
