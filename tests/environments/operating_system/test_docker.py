"""The Docker sandbox against a server of the engine's protocol (no engine was at hand)."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from megatron_agent.environments.base import EnvironmentFault
from megatron_agent.environments.operating_system.docker_backend import LABEL, open_docker
from megatron_agent.environments.operating_system.environment import OperatingSystemEnvironment
from megatron_agent.environments.operating_system.sandbox import Limits, SandboxLost
from megatron_agent.environments.operating_system.task import OperatingSystemTask, Script
from megatron_agent.errors import UserError
from tests.environments.operating_system.docker_server import Engine

pytest.importorskip("docker", reason="needs docker-py: pip install 'agentlm-megatron[operating-system]'")
LIMITS = Limits(command_seconds=3.0, memory_mib=100, processes=50)


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    path = tmp_path / "docker.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    engine = Engine(path)
    yield engine
    engine.shutdown()
    engine.server_close()


def test_shell_keeps_its_state(engine: Engine, tmp_path: Path) -> None:
    with open_docker(LIMITS) as provider:
        sandbox = provider.start("default")
        assert sandbox.execute(f"cd {tmp_path}; x=5; echo hi").output == "hi\n"
        assert sandbox.execute("pwd; echo $x; false").output == f"{tmp_path}\n5\n"
        assert sandbox.execute("(exit 3)").exit_code == 3
        assert sandbox.execute("cat; printf 'no newline'").output == "no newline"
        assert sandbox.execute("printf '\\0start 1\\0 %d 0'").output == "\0start 1\0 0 0"
        assert len(sandbox.execute("head -c 200000 /dev/zero | tr '\\0' x").output) == LIMITS.kept_output_bytes
        sandbox.close()
        sandbox.close()
    assert engine.containers == {}


def test_a_new_shell_after_time_out_and_exit(engine: Engine) -> None:
    with open_docker(Limits(command_seconds=0.5)) as provider:
        sandbox = provider.start("default")
        execution = sandbox.execute("echo before; sleep 60")
        assert (execution.output, execution.timed_out) == ("before\n", True)
        assert sandbox.execute("echo again").output == "again\n"
        assert not sandbox.execute("exit 4").timed_out
        assert sandbox.execute("echo more").output == "more\n"
        sandbox.close()


def test_scripts_get_their_arguments(engine: Engine) -> None:
    with open_docker(LIMITS) as provider:
        sandbox = provider.start("default")
        execution = sandbox.run(Script("bash", 'echo "$1/$2" >&2; exit 4'), ["a b", "c"])
        assert (execution.output, execution.exit_code) == ("a b/c\n", 4)
        assert sandbox.run(Script("python", "import sys; print(sys.argv[1:])"), ["x"]).output == "['x']\n"
        sandbox.close()


def test_container_is_limited_and_labelled(engine: Engine) -> None:
    with open_docker(LIMITS) as provider:
        provider.start("default").close()
    (created,) = engine.created
    assert created["HostConfig"]["NetworkMode"] == "none"
    assert created["HostConfig"]["Memory"] == created["HostConfig"]["MemorySwap"] == 100 * 2**20
    assert created["HostConfig"]["PidsLimit"] == 50
    assert created["Labels"] == {LABEL: f"{socket.gethostname()}:{os.getpid()}"}


def test_leftovers_of_a_dead_process_are_removed(engine: Engine) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    host = socket.gethostname()
    engine.containers["dead"] = {"Labels": {LABEL: f"{host}:{ended.pid}"}}
    engine.containers["alive"] = {"Labels": {LABEL: f"{host}:{os.getpid()}"}}
    engine.containers["elsewhere"] = {"Labels": {LABEL: f"other:{ended.pid}"}}
    with open_docker(LIMITS):
        assert set(engine.containers) == {"alive", "elsewhere"}


def test_episode(engine: Engine) -> None:
    task = OperatingSystemTask(
        "t", "Say 7.", "c", check=(None, Script("bash", '[ "$1" = "$2" ]')), example=Script("bash", "printf 7")
    )
    with open_docker(LIMITS) as provider:
        environment = OperatingSystemEnvironment(provider)
        environment.reset(task)
        told = environment.step("Act: bash\n\n```bash\necho $((3 + 4))\n```")
        assert told.text == "The output of the OS:\n\n7"
        assert environment.step("Act: answer(7)").reward == 1.0
        environment.reset(task)
        assert environment.step("Act: answer(8)").reward == 0.0


def test_a_container_that_goes_away_ends_the_episode(engine: Engine) -> None:
    with open_docker(LIMITS) as provider:
        sandbox = provider.start("default")
        engine.containers.clear()
        with pytest.raises(SandboxLost, match="gone"):
            sandbox.execute("ls")
        with pytest.raises(SandboxLost, match="gone"):
            sandbox.run(Script("bash", "ls"))
        sandbox.close()


def test_a_missing_image_is_named(engine: Engine) -> None:
    with open_docker(LIMITS) as provider, pytest.raises(UserError, match="no image local-os/packages"):
        provider.start("packages")


def test_an_engine_that_goes_away_is_a_fault(engine: Engine, tmp_path: Path) -> None:
    with open_docker(LIMITS) as provider:
        engine.shutdown()
        engine.server_close()
        (tmp_path / "docker.sock").unlink()
        with pytest.raises(EnvironmentFault):
            provider.start("default")


def test_no_engine_is_a_users_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    started = time.monotonic()
    with pytest.raises(UserError, match="no engine answers"), open_docker(LIMITS):
        pass
    assert time.monotonic() - started < 30
