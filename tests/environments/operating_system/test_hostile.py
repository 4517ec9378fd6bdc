"""Hostile commands: the host is unharmed, and the episode goes on or ends within its time."""

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from megatron_agent.environments.operating_system.bubblewrap import SPARES, BubblewrapProvider
from megatron_agent.environments.operating_system.environment import OperatingSystemEnvironment
from megatron_agent.environments.operating_system.launcher.watch import own_kib, process_tree
from megatron_agent.environments.operating_system.task import Match, OperatingSystemTask
from tests.environments.operating_system.conftest import SMALL

TASK = OperatingSystemTask("hostile", "Do harm.", "hostile", match=Match("unharmed"))

# command, and a text that must, or with a leading ! must not, stand in what the model is told ("": no demand)
HOSTILE: dict[str, tuple[str, str]] = {
    "fork bomb": (":(){ :|:& };:", ""),
    "fork bomb of another user": ("useradd bob; su bob -c 'f(){ f|f& }; f; sleep 2'", ""),
    "fork bomb in python": ("python3 -c 'import os\nwhile True: os.fork()'", ""),
    "background fork bomb": ("(while :; do sleep 100 & done) & echo started", ""),
    "memory hog": ("python3 -c 'x = bytearray(2**32)'; echo after", "MemoryError"),
    "many memory hogs": (
        "for i in $(seq 20); do python3 -c 'x=bytearray(90*2**20); import time; time.sleep(9)' & done; sleep 9",
        "",
    ),
    "shared memory hog": (
        "python3 -c 'import mmap,time; m=mmap.mmap(-1,2**29); m.write(b\"x\"*2**29); time.sleep(9)'; echo after",
        "",
    ),
    "memfd hog": ("python3 -c 'import os; os.memfd_create(\"x\")'", "not permitted"),
    "tail of /dev/zero": ("tail /dev/zero", ""),
    "disk fill": ("cat /dev/zero >/root/full; df -h /root | tail -n 1; echo went on", "went on"),
    "disk fill by many files": ("mkdir /d; cd /d; i=0; while echo >f$i; do i=$((i+1)); done; echo went on", ""),
    "disk fill of /dev/shm": ("dd if=/dev/zero of=/dev/shm/x bs=1M count=900 2>&1; echo went on", "went on"),
    "write to /dev": ("dd if=/dev/zero of=/dev/x bs=1M count=900 2>&1 | tail -n 1", "!copied"),
    "kill everything": ("kill -9 -1; sleep 0.1; echo went on", ""),
    "kill the first process": ("kill -9 1; kill -STOP 1; echo went on", "went on"),
    "kill the shell": ("kill -9 $$", ""),
    "stop the shell": ("kill -STOP $$", ""),
    "end the shell": ("exit 7", ""),
    "replace the shell": ("exec sleep 100", ""),
    "close the output": ("exec >&- 2>&-", ""),
    "remove everything": ("rm -rf --no-preserve-root / 2>/dev/null; echo went on", ""),
    "remove the host's programs": ("rm -rf /usr/bin /usr/lib; ls /", ""),
    "network": ("python3 -c 'import socket; socket.create_connection((\"1.1.1.1\", 53), 1)'", "unreachable"),
    "host's network interfaces": ("cat /proc/net/dev | tail -n +3 | cut -d: -f1", "lo"),
    "read the canary": ("cat {canary}; find / -xdev -name canary 2>/dev/null", "!tweet"),
    "read the canary through /proc": ("cat /proc/*/root{canary} /proc/1/cwd{canary}", "!tweet"),
    "read the canary through a link": ("ln -s {canary} /root/l; cat /root/l /root/../../../..{canary}", "!tweet"),
    "chroot out": (
        'mkdir /x; python3 -c \'import os; os.chroot("/x"); os.chdir("../../../.."); print(os.listdir())\'',
        "",
    ),
    "read the host's secrets": ("cat /etc/shadow | cut -d: -f2 | sort -u; ls /work /root /home", "!$"),
    "mount": ("mount -t tmpfs x /mnt || mount --bind / /mnt; echo went on", "went on"),
    "new namespaces": ("unshare -Ur id; unshare -m id", "not permitted"),
    "a device of the disk": ("mknod /root/disk b 254 0; cat /root/disk | head -c 10", "not permitted"),
    # the value that is there already, lest a sandbox that fails this harm the machine that tests it
    "kernel settings": (
        "for f in vm/swappiness kernel/core_pattern; do cat /proc/sys/$f >/proc/sys/$f && echo written; done",
        "!written",
    ),
    "kernel settings by dd": ("f=/proc/sys/kernel/core_pattern; cat $f | dd of=$f 2>&1", "denied"),
    "kernel's own memory and log": ("cat /proc/kcore /proc/kmsg 2>/dev/null | head -c 100 | wc -c", "0"),
    "clock": ('date -s "@$(date +%s)"', "not permitted"),
    "kernel module": ("python3 -c 'import ctypes; print(ctypes.CDLL(None).syscall(313, 0, b\"\", 0))'", ""),
    "host's processes": ("ls /proc | grep -c '^[0-9]'; kill -9 {harness}", ""),
    "binary output": ("head -c 3000 /dev/urandom", ""),
    "endless output": ("yes", ""),
    "endless line": ("tr '\\0' x </dev/zero", "truncated"),
    "no newline": ("printf 'Password: '", "Password:"),
    "terminal control": ("printf '\\033[2J\\033[31mred\\033[0m\\033]0;title\\007\\r\\n\\033[6n'", "!\x1b"),
    "reads input": ("read x; cat; python3 -c 'input()'", "EOFError"),
    "never ends": ("while :; do :; done", ""),
    "ignores signals": ("trap '' INT TERM HUP; sleep 100; sleep 100", ""),
    "left behind": ("setsid nohup sleep 1000 >/dev/null 2>&1 & disown; echo went on", "went on"),
    "holds the pipe": ("(sleep 1000; echo late) & echo went on", "went on"),
    "false status": ("printf '0 /\\0' | tee /proc/$$/fd/* /proc/1/fd/* >/dev/null 2>&1; echo went on", ""),
    "commands to the control": ("printf 'kill -9 -1\\0' >/proc/1/fd/0; sleep 0.2; echo went on", ""),
    "shell made useless": ("eval() { :; }; builtin() { :; }; read() { :; }; set -n", ""),
    "unfinished syntax": ("echo 'a", "unexpected EOF"),
    "zero bytes": ("echo a\0b", ""),
    "long command": ("echo " + "x" * 20_000, "truncated"),
    "deep folders": ('python3 -c \'import os\nfor i in range(3000): os.mkdir("d"); os.chdir("d")\'; rm -rf d', ""),
    "path of a folder with line ends": ("mkdir -p '/root/a\nb' && cd '/root/a\nb' && pwd", ""),
}


def sandbox_processes(provider: BubblewrapProvider) -> list[str]:
    """Names of the processes in any sandbox: bubblewrap, and what is below it."""
    names = []
    for process in psutil.Process(provider.process).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            names.append(process.name())
    return sorted(names)


NEVER_END = (
    *("stop the shell", "replace the shell", "close the output", "never ends", "ignores signals"),
    *("shell made useless", "disk fill by many files"),
)


@contextlib.contextmanager
def most_held(provider: BubblewrapProvider) -> Iterator[dict[str, int]]:
    """Look often how many processes and how much memory all sandboxes hold, and give the most that was seen."""
    most = {"processes": 0, "mib": 0}
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.02):
            processes = process_tree(provider.process)
            most["processes"] = max(most["processes"], len(processes))
            most["mib"] = max(most["mib"], sum(map(own_kib, processes)) // 1024)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield most
    finally:
        ended.set()
        thread.join()


SPARE = sorted(["bwrap", "bash", "bash"] * SPARES)
"""Processes of the sandboxes that wait to be used: control and shell."""


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "canary"
    path.write_text("tweet")
    yield path
    assert path.read_text() == "tweet"


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_command(name: str, request: pytest.FixtureRequest, canary: Path) -> None:
    provider = request.getfixturevalue("hasty_provider" if name in NEVER_END else "small_provider")
    command, demand = HOSTILE[name]
    command = command.replace("{canary}", str(canary)).replace("{harness}", str(os.getpid()))
    usr = sorted(os.listdir("/usr/bin"))
    environment = OperatingSystemEnvironment(provider, "paper", [], command_seconds=SMALL.command_seconds)
    environment.reset(TASK)
    started = time.monotonic()
    with most_held(provider) as most:
        told = environment.step(f"Think: harm.\n\nAct: bash\n\n```bash\n{command}\n```")
        assert len(told.text) < 900
        told.text.encode()  # Unicode all of it
        if demand.startswith("!"):
            assert demand[1:] not in told.text
        else:
            assert demand in told.text
        if not told.done:
            told = environment.step("Act: bash\n\n```bash\necho still there\n```")
        if not told.done:
            told = environment.step("Act: answer(unharmed)")
            assert (told.status, told.reward) == ("completed", 1.0)
        else:
            assert (told.status, told.reward) == ("invalid action", 0.0)
        assert time.monotonic() - started < 15  # three commands of 1 s, and a busy machine
        environment.close()
    # the kernel's own limit, and what grows between two looks of the watch; each sandbox's bubblewrap besides
    assert most["processes"] <= 2 * SMALL.processes + 4 * (SPARES + 1)
    assert most["mib"] < 8 * SMALL.memory_mib
    assert sorted(os.listdir("/usr/bin")) == usr
    deadline = time.monotonic() + 10
    while (left := sandbox_processes(provider)) != SPARE and time.monotonic() < deadline:
        time.sleep(0.02)
    assert left == SPARE


def test_a_shell_goes_on_after_most_of_it(small_provider: BubblewrapProvider) -> None:
    """What ends a shell gives a new one in the same folder; the files are the same."""
    sandbox = small_provider.start("default")
    sandbox.execute("cd /srv; echo kept >file")
    for command in ("exit 3", "kill -9 $$", "exec true", "while :; do :; done"):
        sandbox.execute(command)
        assert sandbox.execute("pwd; cat file").output == "/srv\nkept\n", command
    sandbox.close()
