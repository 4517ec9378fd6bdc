"""`python -m megatron_agent.train --config C.yaml [--SECTION.FIELD VALUE ...]`, alone or under torchrun."""

import os
from collections.abc import Sequence

from megatron_agent.errors import run_command
from megatron_agent.training.config import parse_config


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the configuration, then train."""
    config = parse_config(arguments)
    # Tensor parallelism overlaps its communication only when kernels start in order.
    os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "1")

    from megatron_agent.training.loop import train  # imports torch: only after --help and the checks

    train(config)


if __name__ == "__main__":
    run_command(main)
