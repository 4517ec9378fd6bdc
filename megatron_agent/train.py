"""`python -m megatron_agent.train --config C.yaml [--SECTION.FIELD VALUE ...]`, alone or under torchrun."""

import os
import sys
from collections.abc import Sequence

from megatron_agent.errors import run_command
from megatron_agent.training.config import parse_config


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the configuration, then train; exit with status 85 when told to stop before the last step."""
    config = parse_config(arguments)
    # Tensor parallelism overlaps its communication only when kernels start in order.
    os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "1")
    # The logits of trained positions change size with every micro-batch: segments that grow keep memory in one piece.
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")

    from megatron_agent.training.loop import train  # imports torch: only after --help and the checks
    from megatron_agent.training.signals import EXIT_REQUEUE

    if not train(config):
        sys.exit(EXIT_REQUEUE)


if __name__ == "__main__":
    run_command(main)
