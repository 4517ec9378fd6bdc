"""Sandboxes for the tests; without bubblewrap, or the right to use it, they are skipped with the reason."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from megatron_agent.environments.operating_system.bubblewrap import BubblewrapProvider, open_bubblewrap
from megatron_agent.environments.operating_system.bubblewrap_sandbox import BubblewrapSandbox
from megatron_agent.environments.operating_system.sandbox import Limits
from megatron_agent.errors import UserError

SMALL = Limits(command_seconds=5.0, script_seconds=20.0, memory_mib=128, disk_mib=48, processes=48)


def opened(limits: Limits) -> Iterator[BubblewrapProvider]:
    try:
        with open_bubblewrap(None, limits) as provider:
            yield provider
    except UserError as error:
        if "bubblewrap" not in str(error):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="package")
def provider() -> Iterator[BubblewrapProvider]:
    """Sandboxes whose commands have time, on a busy machine too."""
    yield from opened(Limits(command_seconds=20.0))


@pytest.fixture(scope="package")
def small_provider() -> Iterator[BubblewrapProvider]:
    """Sandboxes with limits that hostile commands reach soon."""
    yield from opened(SMALL)


@pytest.fixture(scope="package")
def hasty_provider() -> Iterator[BubblewrapProvider]:
    """The same for commands that never end."""
    yield from opened(replace(SMALL, command_seconds=0.3))


@pytest.fixture
def sandbox(provider: BubblewrapProvider) -> Iterator[BubblewrapSandbox]:
    sandbox = provider.start("default")
    yield sandbox
    sandbox.close()
