"""The test's side of `launcher.py`: start runs, disturb them, wait for them."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
COMPARED = ("step", "loss", "grad_norm", "lr", "tokens", "trained_tokens", "source_loss")


@dataclass
class LaunchedRun:
    """Ranks that have started."""

    launcher: "Launcher"
    pids: list[int]
    log: Path
    started: float = field(default_factory=time.monotonic)

    def signal(self, rank: int, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.kill(self.pids[rank], number)

    def wait(self, timeout: float = 300) -> list[int]:
        """Exit status of every rank; the test fails when they do not end."""
        if not self.ended(timeout):
            for rank in range(len(self.pids)):
                self.signal(rank, signal.SIGKILL)
            self.launcher.read()
            pytest.fail(f"the run did not end within {timeout:g} s\n{self.output()[-8000:]}")
        return self.launcher.read()["statuses"]

    def ended(self, timeout: float = 0) -> bool:
        """True when all ranks end within `timeout` seconds: then `wait` returns at once."""
        return self.launcher.ready(timeout)

    def output(self) -> str:
        return self.log.read_text()


class Launcher:
    """A process that forks training runs; one run at a time."""

    def __init__(self, log: Path) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
        self.log = log
        with open(log, "wb") as handle:
            self.process = subprocess.Popen(
                [sys.executable, "-u", "-m", "tests.training.launcher"],
                cwd=REPOSITORY,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=handle,
            )

    def start(
        self,
        config: Path,
        log: Path,
        *,
        ranks: int = 1,
        arguments: Sequence[str] = (),
        prepare: str = "",
        command: str = "megatron_agent.train",
        port: int = 0,
    ) -> LaunchedRun:
        """Start `command --config config *arguments` on `ranks` ranks, each after `prepare` (module:function).

        Port 0 is any free one.
        """
        request = {
            "ranks": ranks,
            "arguments": ["--config", str(config), *arguments],
            "log": str(log),
            "prepare": prepare,
            "command": command,
            "port": port,
        }
        assert self.process.stdin is not None
        self.process.stdin.write((json.dumps(request) + "\n").encode())
        self.process.stdin.flush()
        return LaunchedRun(self, self.read()["pids"], log)

    def run(self, config: Path, log: Path, **settings: Any) -> tuple[list[int], str]:
        """Start a run and wait for it; return the exit statuses and the output of all ranks."""
        run = self.start(config, log, **settings)
        return run.wait(), run.output()

    def read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            pytest.fail(f"the launcher ended\n{self.log.read_text()[-4000:]}")
        return json.loads(line)

    def ready(self, timeout: float) -> bool:
        import select

        return bool(select.select([self.process.stdout], [], [], timeout)[0])

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()


def compared(metrics: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The fields of metrics.jsonl that do not depend on the clock."""
    return [{name: record[name] for name in COMPARED} for record in metrics]


def wait_until(condition: Callable[[], bool], seconds: float = 120) -> None:
    """Wait for a condition; fail the test when it does not come about."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"waited {seconds:g} s in vain")
        time.sleep(0.005)
