"""The planner starts from a process without a process group; tests before it may have left one."""

from collections.abc import Iterator

import pytest

from megatron_agent.model.parallel import destroy_model_parallel


@pytest.fixture(autouse=True)
def no_process_group() -> Iterator[None]:
    """Leave the process group before and after each test."""
    destroy_model_parallel()
    yield
    destroy_model_parallel()
