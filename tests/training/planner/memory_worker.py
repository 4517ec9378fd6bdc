"""Measure by how much building a trainer and two steps raise the peak of this process's resident memory.

Run by `test_memory.py` as `memory_worker.py WARM_UP.yaml CONFIG.yaml ...`, with glibc told to give freed memory back
at once. Every rank prints `{"config": ..., "rank": ..., "growth_bytes": ...}` for each configuration. Linux only.
"""

import gc
import json
import os
import re
import sys
from pathlib import Path

import torch

from megatron_agent.dataset.rows import PackedRows
from megatron_agent.model.config import load_llama_config
from megatron_agent.model.layout import check_layout
from megatron_agent.model.parallel import initialize_model_parallel
from megatron_agent.training.config import parse_config, world_size_from_environment
from megatron_agent.training.loop import row_numbers
from megatron_agent.training.model_and_optimizer import build_trainer
from megatron_agent.training.step import forward_backward, update_weights


def resident_bytes(field: str) -> int:
    """VmRSS (now) or VmHWM (peak since the last reset)."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found.group(1)) * 1024


def initialize_and_run(config_file: str) -> None:
    """Build a trainer and run two steps: from the second on the optimizer's state is there."""
    config = parse_config(["--config", config_file])
    llama = load_llama_config(str(config.model.config))
    data_parallel_size = check_layout(llama, config.parallel, world_size_from_environment(), config.data.seq_length)
    num_microbatches = config.num_microbatches(data_parallel_size)
    rows = PackedRows(config.data, config.num_rows)
    initialize_model_parallel(config.parallel, config.training.seed)
    trainer = build_trainer(config, llama, rows)
    for step in (1, 2):
        batch = [[rows.row(number) for number in numbers] for numbers in row_numbers(config, step, num_microbatches)]
        update_weights(trainer, *forward_backward(trainer, batch), flags=[], step=step)


def main() -> None:
    torch.set_num_threads(1)
    initialize_and_run(sys.argv[1])
    for file in sys.argv[2:]:
        gc.collect()
        before = resident_bytes("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        initialize_and_run(file)
        growth = resident_bytes("VmHWM") - before
        line = json.dumps({"config": Path(file).stem, "rank": int(os.environ.get("RANK", "0")), "growth_bytes": growth})
        print(line + "\n", end="", flush=True)  # one write: ranks share the output, and print writes its newline apart


if __name__ == "__main__":
    main()
