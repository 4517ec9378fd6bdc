"""The bubblewrap sandbox: what lasts, what is there, who may use it, and that nothing outlives its harness."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from megatron_agent.environments.base import EnvironmentFault
from megatron_agent.environments.operating_system import bubblewrap
from megatron_agent.environments.operating_system.bubblewrap import SPARES, BubblewrapProvider, open_bubblewrap
from megatron_agent.environments.operating_system.bubblewrap_sandbox import BubblewrapSandbox
from megatron_agent.environments.operating_system.launcher.users import FIRST_ID, IDS
from megatron_agent.environments.operating_system.sandbox import Limits, SandboxLost
from megatron_agent.environments.operating_system.task import Script
from megatron_agent.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[3]


def launch_changed(monkeypatch: pytest.MonkeyPatch, folder: Path, module: str, pattern: str, text: str) -> None:
    """Let sandboxes be started by a launcher of which one module reads otherwise."""
    shutil.copytree(bubblewrap.LAUNCHER, folder / "launcher", ignore=shutil.ignore_patterns("__pycache__"))
    source, changed = re.subn(pattern, text, (bubblewrap.LAUNCHER / module).read_text())
    assert changed == 1
    (folder / "launcher" / module).write_text(source)
    monkeypatch.setattr(bubblewrap, "LAUNCHER", folder / "launcher")


def test_directory_and_variables_last(sandbox: BubblewrapSandbox) -> None:
    sandbox.execute("cd /srv; x=5; f() { echo from f; }; alias g='echo from g'")
    assert sandbox.execute("pwd; echo $x; f").output == "/srv\n5\nfrom f\n"
    assert sandbox.execute("g").output == "from g\n"
    assert sandbox.execute("(exit 3)").exit_code == 3


def test_scripts_stand_apart_from_the_shell(sandbox: BubblewrapSandbox) -> None:
    sandbox.execute("cd /srv; export x=5; echo kept >file; PATH=")
    execution = sandbox.run(Script("bash", 'pwd; echo "[$x] $1 $2"; cat /srv/file; exit 4'), ["a b", "'\n$(id)"])
    assert (execution.output, execution.exit_code) == ("/\n[] a b '\n$(id)\nkept\n", 4)
    assert sandbox.run(Script("python", "import sys; sys.exit(int(sys.argv[1]))"), ["9"]).exit_code == 9


def test_a_script_past_its_time_is_ended() -> None:
    try:
        with open_bubblewrap(None, Limits(script_seconds=1.0)) as provider:
            sandbox = provider.start("default")
            execution = sandbox.run(Script("bash", "echo a; sleep 60"))
            assert (execution.output, execution.timed_out) == ("a\n", True)
            assert execution.exit_code != 0
            assert sandbox.execute("echo still").output == "still\n"
            sandbox.close()
            with pytest.raises(SandboxLost, match="closed"):
                sandbox.execute("ls")
    except UserError as error:
        pytest.skip(str(error))


def test_sandboxes_share_nothing(provider: BubblewrapProvider) -> None:
    first, second = provider.start("default"), provider.start("default")
    first.execute("echo 1 >/tmp/x; echo 1 >/usr/x; echo 1 >/etc/x; sleep 77 &")
    assert second.execute("ls /tmp /usr/x /etc/x 2>&1 | grep -c 'No such'").output == "2\n"
    assert second.execute("pgrep -c sleep").output == "0\n"
    assert not Path("/usr/x").exists()
    first.close()
    second.close()


def test_many_sandboxes_leave_nothing(provider: BubblewrapProvider) -> None:
    """No descriptor here or in the launcher, no process but those of the sandboxes to come."""

    def held() -> tuple[int, int, int]:
        deadline = time.monotonic() + 10
        below = psutil.Process(provider.process).children(recursive=True)
        while len(below) != 3 * SPARES and time.monotonic() < deadline:
            time.sleep(0.02)
            below = psutil.Process(provider.process).children(recursive=True)
        return len(below), len(os.listdir("/proc/self/fd")), len(os.listdir(f"/proc/{provider.process}/fd"))

    def play(_: int) -> None:
        sandbox = provider.start("default")
        sandbox.execute("sleep 60 & exit")
        sandbox.close()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(play, range(8)))  # more ranges of ids than one after another takes
    before = held()
    for number in range(40):
        play(number)
    processes, ours, launchers = held()
    assert processes == before[0] == 3 * SPARES
    assert ours <= before[1]
    assert launchers <= before[2] + 4  # two for a range of ids, should some have ended slowly


def test_a_spare_that_is_gone(provider: BubblewrapProvider) -> None:
    """Its process id may be another's by now: it is not touched."""
    provider.start("default").close()
    time.sleep(0.5)
    for bubblewrap_ in psutil.Process(provider.process).children():
        bubblewrap_.children()[0].kill()
        bubblewrap_.wait()
    for _ in range(SPARES):
        with pytest.raises(EnvironmentFault, match="ended before it was used"):
            provider.start("default")
    sandbox = provider.start("default")
    assert sandbox.execute("echo new").output == "new\n"
    sandbox.close()


def test_what_tasks_write(sandbox: BubblewrapSandbox) -> None:
    command = "for f in /root/a /home/a /etc/a /usr/a /usr/local/bin/a /var/log/a /srv/a /opt/a /a; do echo 1 >$f; done"
    assert sandbox.execute(command).output == ""
    if os.geteuid() == 0:
        command = (
            "useradd -m ann && su ann -c 'id -un; echo 1 >~/x' && chown ann /srv/a && stat -c %U /home/ann/x /srv/a"
        )
        assert sandbox.execute(command).output == "ann\nann\nann\n"


def test_a_root_file_system(provider: BubblewrapProvider, tmp_path: Path) -> None:
    """An overlay of a folder; here the least that is one: the host's bash, python3 and their libraries."""
    root = tmp_path / "rootfs"
    (root / "etc").mkdir(parents=True)
    for name in ("proc", "dev", "srv", "root"):
        (root / name).mkdir()
    for name in ("usr/bin", "usr/lib/python3.11/encodings", "usr/sbin"):
        (root / name).mkdir(parents=True)
    for name in ("bin", "lib", "lib64", "sbin"):
        (root / name).symlink_to(f"usr/{name}")
    for program in ("/bin/bash", "/bin/cat"):
        shutil.copy(program, root / "usr/bin")
        for word in subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout.split():
            if word.startswith("/"):
                target = root / word.lstrip("/").replace("lib/", "usr/lib/", 1).replace("lib64/", "usr/lib64/", 1)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(word, target)
    (root / "srv" / "file").write_text("lower\n")
    with pytest.raises(UserError, match="expected python3 there"), open_bubblewrap(root, Limits()):
        pass
    (root / "usr/bin/python3").write_text("#!/bin/bash\n")
    (root / "usr/bin/python3").chmod(0o755)
    with open_bubblewrap(root, Limits()) as rooted:
        sandbox = rooted.start("default")
        assert sandbox.execute("cat /srv/file; echo upper >/srv/file; cat /srv/file").output == "lower\nupper\n"
        sandbox.close()
    assert (root / "srv" / "file").read_text() == "lower\n"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_outlives_the_harness(provider: BubblewrapProvider, how: signal.Signals) -> None:
    code = (
        "from megatron_agent.environments.operating_system.bubblewrap import *\n"
        "with open_bubblewrap(None, Limits()) as provider:\n"
        "    sandbox = provider.start('default'); sandbox.execute('sleep 5000 & setsid sleep 5000 &')\n"
        "    print('ready', flush=True); sandbox.execute('trap : INT TERM; sleep 5000'); time.sleep(60)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    harness = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    )
    assert harness.stdout is not None
    assert harness.stdout.readline() == b"ready\n"
    below = psutil.Process(harness.pid).children(recursive=True)
    assert len(below) >= 5  # launcher, bubblewrap, control, shell, sleeps
    harness.send_signal(how)
    harness.wait(30)
    harness.stdout.close()
    _, alive = psutil.wait_procs(below, timeout=20)
    assert not alive


def test_an_ordinary_user(provider: BubblewrapProvider, tmp_path: Path) -> None:
    """One user in a user namespace: commands, files and limits work; another user cannot be made."""
    if os.geteuid() != 0:
        pytest.skip("the other tests are run by an ordinary user already")
    copy = Path(tempfile.mkdtemp(dir="/tmp"))
    shutil.copytree(bubblewrap.LAUNCHER, copy / "launcher", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(["chmod", "-R", "a+rX", copy], check=True)
    code = (
        "import os, sys, tempfile\n"
        "from megatron_agent.environments.operating_system import bubblewrap as b\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        f"b.LAUNCHER = b.Path({str(copy)!r}, 'launcher')\n"
        "sys.executable, tempfile.tempdir = '/usr/bin/python3', '/tmp'\n"
        "with b.open_bubblewrap(None, b.Limits(command_seconds=10, processes=48)) as provider:\n"
        "    s = provider.start('default')\n"
        "    print(s.execute('id -u; for f in /root/a /etc/a /usr/local/bin/a; do echo 1 >$f; done').output)\n"
        "    print(s.execute('useradd -m ann; su nobody -c id').exit_code)\n"
        "    print(s.execute('cat /etc/shadow | wc -l').output)\n"
        "    try:\n        s.execute(':(){ :|:& };:'); s.execute('sleep 1'); print('held')\n"
        "    except b.SandboxLost as lost:\n        print('held:', lost)\n"
        "    s.close()\n"
    )
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment)
    finally:
        shutil.rmtree(copy)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.split("\n")
    assert lines[0] == "0"
    assert lines[2] != "0"
    assert "held" in done.stdout


def test_without_bubblewrap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="apt-get install bubblewrap"), open_bubblewrap(None, Limits()):
        pass


def test_a_bubblewrap_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        program = Path(name, "bwrap")
        program.write_text("#!/bin/sh\necho 'bwrap: No permissions to create a new namespace' >&2\nexit 1\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{name}:{os.environ['PATH']}")
        if os.geteuid() == 0:  # the sandbox's superuser is nobody to the host
            with pytest.raises(UserError, match="must be a program that every user may run"):
                open_bubblewrap(None, Limits()).__enter__()
        Path(name).chmod(0o755)
        with pytest.raises(UserError, match="No permissions to create a new namespace"):
            open_bubblewrap(None, Limits()).__enter__()


def test_the_superuser_inside_is_nobody_outside(sandbox: BubblewrapSandbox) -> None:
    """Ids 0 to 65535 are a range of the host's that no user has; every sandbox has another."""
    if os.geteuid() != 0:
        pytest.skip("an ordinary user's sandbox has that user alone")
    sandbox.execute("sleep 60 & useradd ann; su ann -c 'sleep 60' &")
    sandbox.execute("until [ $(pgrep -c sleep) = 2 ]; do :; done")
    below = psutil.Process().children(recursive=True)
    owners = {process.uids().real for process in below if process.name() == "sleep"}
    first = min(owners)
    assert owners == {first, first + 1000}
    assert first >= FIRST_ID
    assert (first - FIRST_ID) % IDS == 0
    assert sandbox.execute("cat /proc/self/uid_map").output.split() == ["0", str(first), str(IDS)]
    assert sandbox.execute("echo a >/dev/stdout; rm /usr/bin/true; ls /usr/bin/true 2>&1").output.startswith("a\nls: ")


def test_the_kernel_itself_limits_processes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the watch: all users of a sandbox together, each sandbox apart."""
    launch_changed(monkeypatch, tmp_path, "watch.py", r"len\(members\) > processes \+ 2", "False")
    # 200 processes that end by themselves, of five users where there are any
    code = """
import os, time
made = 0
for number in range(200):
    try:
        process = os.fork()
    except BlockingIOError:
        continue
    if process == 0:
        if int(open("/proc/self/uid_map").read().split()[2]) > 1:
            os.setuid(number % 5)
        time.sleep(2)
        os._exit(0)
    made += 1
print(made)
"""
    try:
        with open_bubblewrap(None, Limits(processes=20, command_seconds=10)) as provider:
            sandboxes = [provider.start("default"), provider.start("default")]
            with ThreadPoolExecutor() as threads:
                made = list(threads.map(lambda s: s.execute(f"python3 -c '{code}'").output.strip(), sandboxes))
            for sandbox in sandboxes:
                sandbox.close()
    except UserError as error:
        pytest.skip(str(error))
    assert all(30 <= int(text) <= 40 for text in made), made


def test_without_idmapped_mounts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As on an old kernel, or in a container: the folders where tasks write are made anew, the rest is nobody's."""
    if os.geteuid() != 0:
        pytest.skip("an ordinary user's sandbox has none")
    launch_changed(monkeypatch, tmp_path, "kernel.py", r"(MOUNT_SETATTR = .*)442", r"\g<1>9999")
    with open_bubblewrap(None, Limits(command_seconds=10)) as provider:
        sandbox = provider.start("default")
        command = "for f in /root/a /home/a /etc/a /usr/local/bin/a /var/log/a /srv/a /a; do echo 1 >$f; done; "
        command += "useradd -m ann && chown ann /srv/a && stat -c %U /srv/a /home/ann /usr/lib /etc/shadow"
        assert sandbox.execute(command).output == "ann\nann\nnobody\nroot\n"
        sandbox.close()
    (tmp_path / "rootfs" / "etc").mkdir(parents=True)
    (tmp_path / "rootfs" / "bin").mkdir()
    with pytest.raises(UserError, match="takes idmapped mounts"):
        open_bubblewrap(tmp_path / "rootfs", Limits()).__enter__()


def test_folders_of_the_killed_are_removed(provider: BubblewrapProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o755)
        monkeypatch.setattr(tempfile, "tempdir", name)
        code = (
            f"import os, signal, tempfile; tempfile.tempdir = {name!r}\n"
            "from megatron_agent.environments.operating_system.bubblewrap import *\n"
            "with open_bubblewrap(None, Limits()) as provider:\n"
            "    for process in PROCESSES: os.kill(process, signal.SIGKILL)\n"
        )
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
        killed = [sys.executable, "-c", code.replace("PROCESSES", "[os.getpid()]")]
        subprocess.run(killed, env=environment, check=False)
        deadline = time.monotonic() + 20
        while list(Path(name).iterdir()) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not list(Path(name).iterdir())  # the launcher removes it
        killed = [sys.executable, "-c", code.replace("PROCESSES", "[provider.process, os.getpid()]")]
        subprocess.run(killed, env=environment, check=False)
        (left,) = Path(name).iterdir()
        with open_bubblewrap(None, Limits()):
            (own,) = set(Path(name).iterdir()) - {left}  # `left` may be one that is being made
            os.utime(left, (0, 0))
            os.utime(own, (0, 0))
            with open_bubblewrap(None, Limits()):
                assert own.exists()
                assert not left.exists()
