"""Worker: the training command, killed with SIGKILL at a chosen point.

    python tests/training/killed.py POINT STEP --config C.yaml
POINT: `step` (before the update of step STEP), `tensors` (checkpoint of STEP: tensor files written, no manifest) or
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
    from megatron_agent.model.checkpoint_writer import PlannedWrite
    from megatron_agent.training import loop

    if point == "step":
        update_weights = loop.update_weights

        def killed_step(trainer: Any, reports: Any, report: Any, flags: Any, number: int) -> Any:
            return kill() if number == step else update_weights(trainer, reports, report, flags, number)

        loop.update_weights = killed_step
    elif point == "tensors":
        finish = PlannedWrite.finish

        def killed_finish(self: PlannedWrite, results: Any) -> None:
            finish(self, results)
            if str(step) in self.folder.name:
                kill()

        PlannedWrite.finish = killed_finish
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
