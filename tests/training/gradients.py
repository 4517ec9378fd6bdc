"""Worker: gradients of the first global batch at this micro-batch size and world size, written by rank 0.

torchrun ... tests/training/gradients.py --config C.yaml --output F.pt
"""

import argparse

import torch

from megatron_agent.dataset.rows import PackedRows
from megatron_agent.model.checkpoint_folder import HF_FOLDER, resolve_checkpoint
from megatron_agent.model.config import check_layout, load_llama_config
from megatron_agent.model.parallel import destroy_model_parallel, initialize_model_parallel
from megatron_agent.training.checkpoint import load_weights
from megatron_agent.training.config import parse_config, world_size_from_environment
from megatron_agent.training.loop import batch_of_step
from megatron_agent.training.model_and_optimizer import build_trainer
from megatron_agent.training.step import run_forward_backward


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", required=True)
    parser.add_argument("--output", required=True)
    arguments = parser.parse_args()
    config = parse_config(["--config", arguments.config])
    start = resolve_checkpoint(config.model.checkpoint)
    llama = load_llama_config(start / HF_FOLDER)
    data_parallel_size = check_layout(llama, config.parallel, world_size_from_environment())
    rows = PackedRows(config.data, config.num_rows)
    initialize_model_parallel(config.parallel, config.training.seed)
    trainer = build_trainer(config, llama, rows)
    load_weights(trainer, start)

    chunk = trainer.model_chunks[0]
    chunk.zero_grad_buffer()
    batch = batch_of_step(config, rows, 1, config.num_microbatches(data_parallel_size))
    report = run_forward_backward(trainer, batch, forward_only=False)
    # The distributed optimizer leaves each rank its reduced shard of every bucket: put the buckets together again.
    for buffer in chunk.buffers:
        for bucket in buffer.buckets:
            shards = bucket.grad_data.chunk(torch.distributed.get_world_size())
            gathered = [torch.empty_like(shard) for shard in shards]
            torch.distributed.all_gather(gathered, shards[torch.distributed.get_rank()].clone())
            bucket.grad_data.copy_(torch.cat(gathered))
    if torch.distributed.get_rank() == 0:
        gradients = {name: parameter.main_grad.clone() for name, parameter in chunk.named_parameters()}
        torch.save({"gradients": gradients, "report": report}, arguments.output)
    destroy_model_parallel()


if __name__ == "__main__":
    main()
