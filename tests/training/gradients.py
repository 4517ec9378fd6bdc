"""Worker: gradients of the first global batch at this micro-batch size and world size, written by rank 0.

torchrun ... tests/training/gradients.py --config C.yaml --output F.pt [--mean-of-means]
--mean-of-means: what a loop would train on that averages the means of the micro-batches.
"""

import argparse

import torch

from megatron_agent.dataset.rows import PackedRow, PackedRows
from megatron_agent.model.checkpoint_folder import HF_FOLDER, resolve_checkpoint
from megatron_agent.model.config import load_llama_config
from megatron_agent.model.layout import check_layout
from megatron_agent.model.parallel import destroy_model_parallel, initialize_model_parallel
from megatron_agent.training.checkpoint import load_weights
from megatron_agent.training.config import parse_config, world_size_from_environment
from megatron_agent.training.loop import row_numbers
from megatron_agent.training.loss import mean_loss
from megatron_agent.training.model_and_optimizer import Trainer, build_trainer
from megatron_agent.training.step import forward_backward


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--mean-of-means", action="store_true")
    arguments = parser.parse_args()
    config = parse_config(["--config", arguments.config])
    start = resolve_checkpoint(config.model.checkpoint)
    llama = load_llama_config(start / HF_FOLDER)
    data_parallel_size = check_layout(llama, config.parallel, world_size_from_environment())
    rows = PackedRows(config.data, config.num_rows)
    initialize_model_parallel(config.parallel, config.training.seed)
    trainer = build_trainer(config, llama, rows)
    load_weights(trainer, start)

    numbers = row_numbers(config, 1, config.num_microbatches(data_parallel_size))
    batch = [[rows.row(number) for number in micro_batch] for micro_batch in numbers]
    parts = [[micro_batch] for micro_batch in batch] if arguments.mean_of_means else [batch]
    results = [gradients_of(trainer, part) for part in parts]
    gradients = {name: sum(r[0][name] for r in results) / len(results) for name in results[0][0]}
    loss = sum(mean_loss(report) for _, report in results) / len(results)
    if torch.distributed.get_rank() == 0:
        report = torch.stack([report for _, report in results]).sum(dim=0)
        torch.save({"gradients": gradients, "report": report, "loss": loss}, arguments.output)
    destroy_model_parallel()


def gradients_of(trainer: Trainer, batch: list[list[PackedRow]]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Gradients by parameter name and the report of one batch."""
    chunk = trainer.model_chunks[0]
    _, report = forward_backward(trainer, batch)
    # The distributed optimizer leaves each rank its reduced shard of every bucket: put the buckets together again.
    for buffer in chunk.buffers:
        for bucket in buffer.buckets:
            shards = bucket.grad_data.chunk(torch.distributed.get_world_size())
            gathered = [torch.empty_like(shard) for shard in shards]
            torch.distributed.all_gather(gathered, shards[torch.distributed.get_rank()].clone())
            bucket.grad_data.copy_(torch.cat(gathered))
    return {name: parameter.main_grad.clone() for name, parameter in chunk.named_parameters()}, report


if __name__ == "__main__":
    main()
