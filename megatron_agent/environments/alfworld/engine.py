"""A bounded pool of engine processes; each hosts several games, so any number of episodes can share them."""

import contextlib
import itertools
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from threading import Lock
from typing import Any

from megatron_agent.environments.base import EnvironmentFault

REQUEST_SECONDS = 180.0
"""How long one request may take; the largest rooms load in 5 s."""
GAMES_PER_WORKER = 100
"""After so many games a process takes no new ones and ends with its last: the engine keeps about 1 MB of each."""


@dataclass(frozen=True)
class Game:
    """What the engine needs to play."""

    pddl_domain: str
    grammar: str
    pddl_problem: str


@dataclass(frozen=True)
class GameState:
    """The engine's answer: what it says, the commands it would take next (sorted), whether the goal is reached."""

    text: str
    admissible: tuple[str, ...]
    won: bool


class EnginePool:
    """At most `workers` processes that take games, started when needed.

    A new game goes to an idle process, else to a new one while there are fewer than `workers`, else to the one with
    the fewest games. Requests to one process wait for each other: that bounds speed, not the number of games.
    """

    def __init__(
        self,
        workers: int,
        games_per_worker: int = GAMES_PER_WORKER,
        request_seconds: float = REQUEST_SECONDS,
    ) -> None:
        self.workers = workers
        self.games_per_worker = games_per_worker
        self.request_seconds = request_seconds
        self._processes: list[_EngineProcess] = []
        self._lock = Lock()
        self._closed = False

    def open(self, game: Game) -> "GameSession":
        """Load a game. Raises EnvironmentFault when the engine cannot."""
        process = self._assign()
        try:
            return GameSession(self, process, game)
        except BaseException:
            self._release(process)
            raise

    def close(self) -> None:
        """End every process. Safe to call twice."""
        with self._lock:
            self._closed = True
            for process in self._processes:
                process.close()
            self._processes.clear()

    def _assign(self) -> "_EngineProcess":
        with self._lock:
            if self._closed:
                raise EnvironmentFault("the pool of game engines is closed")
            for dead in self._processes:
                if not dead.alive() and not dead.sessions:
                    dead.close()
            self._processes = [process for process in self._processes if process.alive()]
            open_to_games = [process for process in self._processes if process.games < self.games_per_worker]
            process = min(open_to_games, key=lambda process: process.sessions, default=None)
            if process is None or (process.sessions and len(open_to_games) < self.workers):
                try:
                    process = _EngineProcess(self.request_seconds)
                except OSError as error:  # no memory, too many processes or open files
                    raise EnvironmentFault(f"the game engine's process cannot be started: {error}") from error
                self._processes.append(process)
            process.sessions += 1
            process.games += 1
            return process

    def _release(self, process: "_EngineProcess") -> None:
        with self._lock:
            process.sessions -= 1
            if not process.sessions and process.games >= self.games_per_worker:
                process.close()


class GameSession:
    """One game in a process of the pool. Used by one thread; `close` it."""

    _numbers = itertools.count()

    def __init__(self, pool: EnginePool, process: "_EngineProcess", game: Game) -> None:
        self._pool, self._process = pool, process
        self._number = next(self._numbers)
        self._open = True
        self.state = self._ask("load", game=vars(game))

    def step(self, command: str) -> GameState:
        """Give a command. Raises EnvironmentFault when the engine is gone."""
        self.state = self._ask("step", command=command)
        return self.state

    def close(self) -> None:
        """Give the game's place back. Safe to call twice."""
        if not self._open:
            return
        self._open = False
        with contextlib.suppress(EnvironmentFault):
            self._process.request({"do": "close", "session": self._number})
        self._pool._release(self._process)

    def _ask(self, do: str, **arguments: Any) -> GameState:
        answer = self._process.request({"do": do, "session": self._number, **arguments})
        if "error" in answer:
            raise EnvironmentFault(f"the game engine failed to {do}: {answer['error']}")
        return GameState(answer["text"], tuple(answer["admissible"]), answer["won"])


class _EngineProcess:
    """A process of `worker.py`, its pipes, and how many games it has and had."""

    def __init__(self, request_seconds: float) -> None:
        self.sessions = 0
        self.games = 0
        self._request_seconds = request_seconds
        self._lock = Lock()
        self._fault: str | None = None
        self._rest = b""
        self._folder = tempfile.TemporaryDirectory(prefix="alfworld-")
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "megatron_agent.environments.alfworld.worker", self._folder.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the harness, which ends this process in turn
        )
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)  # a game is larger than a pipe

    def alive(self) -> bool:
        return self._process.poll() is None

    def request(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send a request and return its answer. A process that does not answer is ended, its games with it."""
        with self._lock:
            if self._fault is None:
                deadline = time.monotonic() + self._request_seconds
                try:
                    self._write(json.dumps(request).encode() + b"\n", deadline)
                    return json.loads(self._read_line(deadline))
                except TimeoutError:
                    self._end()
                    self._fault = f"the game engine did not answer within {self._request_seconds} s"
                except (OSError, EOFError, ValueError):
                    self._end()
                    self._fault = f"the game engine's process ended: {self._last_words()}"
                self._close_files()
            raise EnvironmentFault(self._fault)

    def close(self) -> None:
        """End the process; a request under way in another thread ends as a fault. Safe to call twice."""
        self._end()
        with self._lock:
            if self._fault is None:
                self._fault = "the game engine's process was closed"
                self._close_files()

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()

    def _close_files(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        for file in (self._process.stdin, self._process.stdout, self._errors):
            file.close()
        self._folder.cleanup()

    def _write(self, data: bytes, deadline: float) -> None:
        assert self._process.stdin is not None
        descriptor = self._process.stdin.fileno()
        while data:
            _wait(descriptor, select.POLLOUT, deadline)
            data = data[os.write(descriptor, data) :]

    def _read_line(self, deadline: float) -> bytes:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        while b"\n" not in self._rest:
            _wait(descriptor, select.POLLIN, deadline)
            chunk = os.read(descriptor, 1 << 16)
            if not chunk:
                raise EOFError
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return f"exit status {self._process.returncode}" + (f", {lines[-1]}" if lines else "")


def _wait(descriptor: int, event: int, deadline: float) -> None:
    """Wait until a pipe is ready, TimeoutError past the deadline; `select.select` takes no descriptor above 1023."""
    ready = select.poll()
    ready.register(descriptor, event)
    if not ready.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise TimeoutError
