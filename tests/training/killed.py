"""Worker: the training command, killed with SIGKILL at a chosen point.

    python tests/training/killed.py POINT STEP --config C.yaml
POINT: `step` (before optimizer step STEP), `tensors` (checkpoint of STEP: tensor files written, no manifest) or
`rename` (checkpoint of STEP: manifest written, folder not renamed yet).
"""

import os
import signal
import sys
from typing import Any

from megatron_agent import train
from megatron_agent.errors import run_command


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(point: str, step: int) -> None:
    from megatron_agent.model import checkpoint_folder
    from megatron_agent.training import checkpoint, loop

    if point == "step":
        train_step = loop.train_step

        def killed_step(trainer: Any, rows: Any, number: int) -> Any:
            return kill() if number == step else train_step(trainer, rows, number)

        loop.train_step = killed_step
    elif point == "tensors":
        save_tensors = checkpoint.save_tensors

        def killed_save(state: Any, folder: Any) -> None:
            save_tensors(state, folder)
            if str(step) in folder.name:
                kill()

        checkpoint.save_tensors = killed_save
    else:
        rename = os.rename

        def killed_rename(source: Any, target: Any) -> None:
            if str(step) in os.path.basename(target):
                kill()
            rename(source, target)

        checkpoint_folder.os.rename = killed_rename


if __name__ == "__main__":
    arm(sys.argv[1], int(sys.argv[2]))
    run_command(lambda: train.main(sys.argv[3:]))
