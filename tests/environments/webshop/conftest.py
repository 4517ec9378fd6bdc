"""The shipped shop, opened once for these tests."""

from collections.abc import Iterator

import pytest

from megatron_agent.environments.task_kind import World
from megatron_agent.environments.webshop import TASK_KIND, WebShopOptions


@pytest.fixture(scope="package")
def world() -> Iterator[World]:
    with TASK_KIND.open(WebShopOptions()) as opened:
        yield opened
