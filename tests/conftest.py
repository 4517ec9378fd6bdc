"""Fixtures every test may use."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser import headless_chromium

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real input files (AGENTLM_SHARED_DATA, default ../shared/data); skips when it is absent."""
    folder = Path(os.environ.get("AGENTLM_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real test data not found at {folder}; set AGENTLM_SHARED_DATA to the folder that holds it")
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless chromium that finds no network names; skips where there is none."""
    yield from headless_chromium()


def pytest_configure() -> None:
    """Take Ctrl-C again: a shell starts what runs in its background with it ignored, and so would all below it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where everything is installed (AGENTLM_REQUIRE_ALL=1, set by .ci/run), a skipped test is a failure."""
    if os.environ.get("AGENTLM_REQUIRE_ALL") != "1" or hasattr(session.config, "workerinput"):
        return  # a worker of pytest-xdist does not see the others' tests
    reporter = session.config.pluginmanager.getplugin("terminalreporter")
    skipped = [report for report in reporter.stats.get("skipped", []) if "tests/gpu/" not in report.nodeid]
    if skipped and session.exitstatus == pytest.ExitCode.OK:
        names = ", ".join(report.nodeid for report in skipped)
        reporter.write_line(f"AGENTLM_REQUIRE_ALL=1, but {len(skipped)} tests were skipped: {names}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
