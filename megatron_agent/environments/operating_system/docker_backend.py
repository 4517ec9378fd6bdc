"""The sandbox of the released evaluator: a Docker container an episode, through docker-py.

Tested against a server that speaks the engine's protocol, not against an engine.
"""

import contextlib
import os
import re
import secrets
import select
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from typing import Any

from megatron_agent.environments.base import EnvironmentFault
from megatron_agent.environments.operating_system.sandbox import Execution, Limits, SandboxLost, script_command
from megatron_agent.environments.operating_system.task import Script
from megatron_agent.errors import UserError

REPOSITORY = "local-os"
LABEL = "agentlm-megatron.owner"
"""On every container: the host and process that made it, by which leftovers of a killed run are known."""

# The model's shell: a record is a token and a command; the token comes back between NULs when the command has ended.
_SHELL = r"""
exec 9>&1
printf '\0start %d\0' "$$" >&9
while IFS= builtin read -r -d '' agentlm_record; do
  eval "${agentlm_record#* }" </dev/null 9>&-
  builtin printf '\0%s %d\0' "${agentlm_record%% *}" "$?" >&9
done"""


class DockerProvider:
    """Starts containers without a network; safe to call from several threads."""

    def __init__(self, client: Any, limits: Limits) -> None:
        self._client = client
        self._limits = limits

    def start(self, image: str) -> "DockerSandbox":
        import docker.errors

        name = f"{REPOSITORY}/{image}"
        try:
            container = self._client.containers.create(  # unlike run, it does not pull
                name,
                ["sleep", "infinity"],
                init=True,
                network_mode="none",
                mem_limit=f"{self._limits.memory_mib}m",
                memswap_limit=f"{self._limits.memory_mib}m",
                pids_limit=self._limits.processes,
                labels={LABEL: _owner()},
            )
        except docker.errors.ImageNotFound as error:
            raise UserError(f"docker has no image {name}; build it as docs/environments.md says") from error
        except (docker.errors.DockerException, OSError) as error:
            raise EnvironmentFault(f"docker did not make a container of {name}: {error}") from error
        sandbox = DockerSandbox(self._client, container, self._limits)
        try:
            container.start()
        except (docker.errors.DockerException, OSError) as error:
            sandbox.close()
            raise EnvironmentFault(f"docker did not start a container of {name}: {error}") from error
        return sandbox


class DockerSandbox:
    """One episode's container: the model's shell is an exec with its streams attached, scripts are execs apart."""

    def __init__(self, client: Any, container: Any, limits: Limits) -> None:
        self._client, self._container, self._limits = client, container, limits
        self._socket: socket.socket | None = None
        self._shell_process = ""

    def execute(self, command: str) -> Execution:
        """Run a command in the shell. After a time-out, or the shell's end, the next command gets a new shell."""
        with _faults():
            if self._socket is None:
                self._start_shell()
            token = secrets.token_hex(16)
            assert self._socket is not None
            record = f"{token} {command}".replace("\0", "").encode("utf-8", "replace") + b"\0"
            self._socket.sendall(record)
            output, code, timed_out = self._read_until(token, self._limits.command_seconds)
            if code is None:
                self._end_shell()
        return Execution(output, int(code) if code is not None else -1, timed_out)

    def run(self, script: Script, arguments: Sequence[str] = ()) -> Execution:
        seconds = f"{self._limits.script_seconds:g}"
        words = ["timeout", "-k", "1", seconds, *script_command(script, [word.replace("\0", "") for word in arguments])]
        with _faults():
            code, output = self._container.exec_run(words, workdir="/")
        kept = (output or b"")[: self._limits.kept_output_bytes].decode("utf-8", "replace")
        return Execution(kept, code, timed_out=code == 124)

    def close(self) -> None:
        import docker.errors

        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._container is not None:
            with contextlib.suppress(docker.errors.DockerException, OSError):
                self._container.remove(force=True)
            self._container = None

    def _start_shell(self) -> None:
        api = self._client.api
        command = ["bash", "--noprofile", "--norc", "-c", _SHELL, "bash"]
        exec_id = api.exec_create(self._container.id, command, stdin=True, tty=False, workdir="/")["Id"]
        stream = api.exec_start(exec_id, socket=True)
        self._socket = getattr(stream, "_sock", stream)
        _, self._shell_process, _ = self._read_until("start", self._limits.script_seconds)
        if self._shell_process is None:
            raise SandboxLost("its shell did not start")

    def _end_shell(self) -> None:
        """End the shell and what it started; background processes of its own group go with it."""
        assert self._socket is not None
        self._socket.close()
        self._socket = None
        number = int(self._shell_process)
        self._container.exec_run(["bash", "-c", f"kill -9 -- -{number} {number}"])

    def _read_until(self, token: str, seconds: float) -> tuple[str, Any, bool]:
        """Return what was printed before the token, the number behind it, or None, and whether time ran out."""
        assert self._socket is not None
        deadline = time.monotonic() + seconds
        end = re.compile(rb"\x00" + token.encode() + rb" (\d+)\x00")
        kept, tail, total = bytearray(), b"", 0
        while (remaining := deadline - time.monotonic()) > 0 and total <= self._limits.output_bytes:
            part = _read_frame(self._socket, remaining)
            if part is None:
                break
            if not part:
                return kept.decode("utf-8", "replace"), None, False
            total += len(part)
            kept += part[: max(self._limits.kept_output_bytes + 64 - len(kept), 0)]
            tail = (tail + part)[-len(part) - 128 :]
            found = end.search(tail)
            if found is not None:
                match = end.search(kept)
                text = kept[: match.start()] if match else kept
                return text[: self._limits.kept_output_bytes].decode("utf-8", "replace"), found.group(1).decode(), False
        return kept[: self._limits.kept_output_bytes].decode("utf-8", "replace"), None, True


def _read_frame(stream: socket.socket, seconds: float) -> bytes | None:
    """Return the next frame of the engine's multiplexed stream: b"" at its end, None when none comes in time."""
    if not select.select([stream], [], [], seconds)[0]:
        return None
    header = _read_exactly(stream, 8)
    if header is None:
        return b""
    (length,) = struct.unpack(">4xL", header)
    return _read_exactly(stream, length) or b""


def _read_exactly(stream: socket.socket, length: int) -> bytes | None:
    data = bytearray()
    while len(data) < length:
        part = stream.recv(length - len(data))
        if not part:
            return None
        data += part
    return bytes(data)


@contextlib.contextmanager
def _faults() -> Iterator[None]:
    """A container that is gone is lost to the episode; any other failure is the engine's."""
    import docker.errors

    try:
        yield
    except docker.errors.NotFound as error:
        raise SandboxLost(f"its container is gone: {error}") from error
    except docker.errors.APIError as error:
        if error.status_code == 409:  # stopped: it ran out of memory, or its first process was ended
            raise SandboxLost(f"its container has stopped: {error}") from error
        raise EnvironmentFault(f"docker: {error}") from error
    except (docker.errors.DockerException, OSError) as error:
        raise EnvironmentFault(f"docker: {error}") from error


@contextlib.contextmanager
def open_docker(limits: Limits) -> Iterator[DockerProvider]:
    """Connect to the engine that DOCKER_HOST (or the default socket) names; remove leftovers before and after.

    Raises UserError when docker-py is absent or no engine answers.
    """
    try:
        import docker
        import docker.errors
    except ImportError as error:
        raise UserError(
            "--operating-system-sandbox docker needs docker-py: pip install 'agentlm-megatron[operating-system]'"
        ) from error
    try:
        client = docker.from_env()
        client.ping()
    except (docker.errors.DockerException, OSError) as error:
        raise UserError(
            f"--operating-system-sandbox docker: no engine answers ({error}); start one, or name it in DOCKER_HOST"
        ) from error
    with contextlib.closing(client):
        _remove_leftovers(client)
        yield DockerProvider(client, limits)


def _remove_leftovers(client: Any) -> None:
    """Remove containers whose owner, a process of this host, is no more."""
    for container in client.containers.list(all=True, filters={"label": LABEL}):
        host, _, process = container.labels.get(LABEL, "").rpartition(":")
        if host == socket.gethostname() and process.isdigit() and not os.path.exists(f"/proc/{process}"):
            container.remove(force=True)


def _owner() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"
