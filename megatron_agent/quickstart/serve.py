"""Serve a Hugging Face checkpoint with `transformers serve` on loopback, for as long as a `with` block lasts."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from megatron_agent.errors import UserError
from megatron_agent.processes import die_with_parent


def free_port() -> int:
    """Return a port nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def serve(model: Path, dtype: str, log: Path, start_seconds: float = 180.0) -> Iterator[str]:
    """Start an OpenAI-compatible server for `model`; yield its base URL; stop it at the end.

    Raises :class:`UserError` with the end of the server's log when it does not come up.
    """
    port = free_port()
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(model), "--device", "cpu"]
    command += ["--dtype", dtype, "--host", "127.0.0.1", "--port", str(port), "--continuous-batching"]
    # By default the cache takes most of the machine's memory, and every step reads all of it: 12 short episodes need
    # 6,144 places (1.3 GB in all, and twice as fast).
    command += ["--cb-block-size", "16", "--cb-num-blocks", "384", "--cb-max-batch-tokens", "256"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    with open(log, "w", encoding="utf-8") as output:
        # at SIGTERM the server would first finish replies that nobody waits for any more
        die = partial(die_with_parent, signal.SIGKILL)
        server = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment, preexec_fn=die)
    try:
        _wait_until_up(server, port, log, start_seconds)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        try:
            server.wait(timeout=20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _wait_until_up(server: "subprocess.Popen[bytes]", port: int, log: Path, start_seconds: float) -> None:
    deadline = time.monotonic() + start_seconds
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)
            return
        time.sleep(0.5)
    tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
    raise UserError(f"the model server did not come up in {start_seconds:.0f} s; the end of {log}:\n{tail}")
