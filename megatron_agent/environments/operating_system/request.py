"""What the launcher is asked for: bubblewrap's command, the limits, the file systems."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from megatron_agent.environments.operating_system import launcher
from megatron_agent.environments.operating_system.host_view import HOSTNAME, Layer
from megatron_agent.environments.operating_system.sandbox import Limits

MAX_FILES = 50_000
MAX_OPEN_FILES = 256
_CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SYS_CHROOT", "AUDIT_WRITE")
"""What administering a machine's files, users and processes takes; those of Docker that need no device or network."""
_CLOSED = ("--tmpfs", "/proc/tty/driver") if os.path.isdir("/proc/tty/driver") else ()
"""The one folder of /proc that only the host's superuser may read: a `find` from / would stumble over it."""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# The first process of the namespace: it cannot be killed from inside. It runs the harness's own lines.
_CONTROL = f"""
while IFS= read -r -d '' agentlm_line; do
  eval "$agentlm_line"
  printf '%d /\\0' "$?" >&{launcher.CONTROL_STATUS}
done"""


@dataclass(frozen=True)
class Request:
    """What the launcher is told; see the package `launcher`."""

    command: list[str]
    own_user: bool
    mount_point: str
    layers: list[tuple[str, str, list[str], bool]]
    disk_mib: int
    files: int
    memory_mib: int
    processes: int
    rlimits: dict[str, int]


def make_request(program: str, folder: Path, layers: Sequence[Layer], own_user: bool, limits: Limits) -> Request:
    """Return the request that makes a sandbox of `layers` with the program `bwrap`.

    `folder` holds the empty folder `mount`, over which every sandbox is mounted in its own namespace.
    """
    capabilities = [word for name in _CAPABILITIES for word in ("--cap-add", f"CAP_{name}")]
    command = [
        *(program, "--dev-bind", f"{folder}/mount/root", "/", "--proc", "/proc", *_CLOSED),
        *("--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
        *("--cap-drop", "ALL", *capabilities, "--seccomp", str(launcher.FILTER)),
        *("--info-fd", str(launcher.INFORMATION), "--die-with-parent", "--new-session", "--as-pid-1"),
        *("--hostname", HOSTNAME, "--chdir", "/", "--clearenv", "--setenv", "PATH", PATH, "--setenv", "HOME", "/root"),
        *("--setenv", "TERM", "dumb", "--setenv", "USER", "root", "--setenv", "SHELL", "/bin/bash"),
        *("bash", "--noprofile", "--norc", "-c", _CONTROL, "bash"),
    ]
    mib = 1024 * 1024
    rlimits = {
        "RLIMIT_NPROC": 2 * limits.processes,  # counted within the sandbox's user namespace
        "RLIMIT_DATA": limits.memory_mib * mib,
        "RLIMIT_FSIZE": limits.disk_mib * mib,
        "RLIMIT_NOFILE": MAX_OPEN_FILES,
        "RLIMIT_CORE": 0,
        "RLIMIT_MSGQUEUE": 0,
        "RLIMIT_MEMLOCK": 64 * 1024,
    }
    return Request(
        command,
        own_user,
        str(folder / "mount"),
        [(layer.lower, layer.where, list(layer.folders), layer.copied) for layer in layers],
        limits.disk_mib,
        MAX_FILES,
        limits.memory_mib,
        limits.processes,
        rlimits,
    )
