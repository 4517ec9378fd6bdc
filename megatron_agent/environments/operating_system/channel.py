"""Pipes to a shell in a sandbox: a command in, its output and its end out, whatever it prints."""

import contextlib
import os
import select
import time
from collections.abc import Sequence
from dataclasses import dataclass

from megatron_agent.environments.operating_system.sandbox import Limits

_PIPE_BYTES = 65536


@dataclass(frozen=True)
class Outcome:
    """A command's output; its exit code and the directory after it, where the shell said so."""

    output: str
    exit_code: int | None = None
    directory: str = "/"
    timed_out: bool = False


class Channel:
    """Three pipes: commands to the shell, what is printed, and a status after every command.

    The status has a pipe of its own, so nothing a command prints can be taken for the command's end. `unread` is
    the other end of `commands`: what a shell left there when it died must not reach the next.
    """

    def __init__(self, unread: int, commands: int, output: int, status: int, limits: Limits) -> None:
        self._pipes = (unread, commands, output, status)
        self._unread, self._commands, self._output, self._status = self._pipes
        self._limits = limits
        for descriptor in self._pipes:
            os.set_blocking(descriptor, False)

    def call(self, command: str, seconds: float, ends: Sequence[int]) -> Outcome:
        """Send a command and return what came of it; at the latest after `seconds`, or when an `ends` is readable.

        `ends` are handles of processes (pidfd) without which no answer can come. A command that prints more than
        the limit of output counts as run past its time.
        """
        while _read(self._status):  # what a command wrote there to deceive
            continue
        return self._collect(command.replace("\0", "").encode("utf-8", "replace") + b"\0", seconds, ends)

    def send_ahead(self, command: str) -> None:
        """Send a first command, short of a pipe's size, to a shell that may not be there yet; :meth:`wait` for it."""
        os.write(self._commands, command.encode() + b"\0")

    def wait(self, seconds: float, ends: Sequence[int]) -> Outcome | None:
        """Wait for the status of a command that was sent ahead or ran past its time; None when none comes."""
        outcome = self._collect(b"", seconds, ends)
        return None if outcome.exit_code is None else outcome

    def drain(self) -> None:
        """Forget commands not read and statuses not asked for, before a new shell takes over the pipes."""
        while _read(self._unread) or _read(self._status):
            continue

    def read_output(self) -> str:
        """Return what was printed outside any command."""
        return _read(self._output).decode("utf-8", "replace")

    def close(self) -> None:
        for descriptor in self._pipes:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def _collect(self, to_send: bytes, seconds: float, ends: Sequence[int]) -> Outcome:
        kept, read, status = bytearray(), 0, b""
        deadline = time.monotonic() + seconds
        poll = select.poll()
        for descriptor in (self._output, self._status, *ends):
            poll.register(descriptor, select.POLLIN)
        if to_send:
            poll.register(self._commands, select.POLLOUT)
        ended = False
        while not ended:
            remaining = deadline - time.monotonic()
            if remaining <= 0 or read > self._limits.output_bytes:
                break
            ready = {descriptor for descriptor, _ in poll.poll(remaining * 1000)}
            if self._commands in ready:
                to_send = to_send[os.write(self._commands, to_send[:4096]) :]  # whole or not at all up to PIPE_BUF
                if not to_send:
                    poll.unregister(self._commands)
            if self._status in ready:
                status += _read(self._status)
                ended = b"\0" in status or len(status) > 2 * _PIPE_BYTES
            ended = ended or not ready.isdisjoint(ends)
            if self._output in ready or ended:  # what was printed before the end is in the pipe by now
                for _ in range(2 if ended else 1):
                    part = _read(self._output)
                    read += len(part)
                    kept += part[: self._limits.kept_output_bytes - len(kept)]
        code, directory = _parse(status)
        return Outcome(kept.decode("utf-8", "replace"), code, directory, timed_out=not ended)


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, _PIPE_BYTES)
    except BlockingIOError:
        return b""


def _parse(status: bytes) -> tuple[int | None, str]:
    text, ended, _ = status.partition(b"\0")
    code, _, directory = text.partition(b" ")
    if not ended or not code.isdigit():
        return None, "/"
    return int(code[:9]), os.fsdecode(directory) or "/"


def readable(descriptor: int, seconds: float) -> bool:
    """Wait until a descriptor can be read; whether it can."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(max(seconds, 0) * 1000))
