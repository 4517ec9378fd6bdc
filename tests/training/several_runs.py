"""Worker: several training runs after one another in one launch, since imports cost the most.

torchrun ... tests/training/several_runs.py CONFIG.yaml ... SOURCE:TARGET ...
A pair of folders is copied when its turn comes: a checkpoint of one run for the next to resume. Every rank writes
`rank{N}.json` into a run's folder: what was trained, and which frozen weights changed (none should).
"""

import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed

from megatron_agent.model.layout import ParallelConfig
from megatron_agent.model.parallel import destroy_model_parallel, initialize_model_parallel
from megatron_agent.training import loop
from megatron_agent.training.config import parse_config

run_steps = loop.run_steps


def observed_run_steps(trainer: Any, config: Any, *rest: Any) -> Any:
    parameters = {
        f"{number}.{name}": parameter
        for number, chunk in enumerate(trainer.model_chunks)
        for name, parameter in chunk.named_parameters()
    }
    before = {name: parameter.clone() for name, parameter in parameters.items() if not parameter.requires_grad}
    result = run_steps(trainer, config, *rest)
    buffered = {parameter for chunk in trainer.model_chunks for buffer in chunk.buffers for parameter in buffer.params}
    (optimizer,) = trainer.optimizer.chained_optimizers
    report = {
        "frozen": len(before),
        "changed": [name for name, values in before.items() if not torch.equal(values, parameters[name])],
        "trained": {name: parameter.numel() for name, parameter in parameters.items() if name not in before},
        "with_gradient_buffer": {
            name: parameter.numel() for name, parameter in parameters.items() if parameter in buffered
        },
        "whole": {
            name: hashlib.sha256(parameter.detach().float().numpy().tobytes()).hexdigest()
            for name, parameter in parameters.items()
            if name not in before and not getattr(parameter, "tensor_model_parallel", False)
        },
        "state_elements": sum(state["exp_avg"].numel() for state in optimizer.optimizer.state.values()),
    }
    file = Path(config.training.output_dir) / f"rank{torch.distributed.get_rank()}.json"
    file.write_text(json.dumps(report))
    return result


if __name__ == "__main__":
    loop.run_steps = observed_run_steps
    loop.destroy_model_parallel = lambda: None  # the process group stays for the next run
    initialize_model_parallel(ParallelConfig(), seed=1)
    for argument in sys.argv[1:]:
        source, _, target = argument.partition(":")
        if not target:
            loop.train(parse_config(["--config", argument]))
        elif torch.distributed.get_rank() == 0:
            shutil.copytree(source, target)
        torch.distributed.barrier()
    destroy_model_parallel()
