"""The child that becomes a sandbox: descriptors, namespaces, limits, users, and then bubblewrap."""

import fcntl
import os
import resource
import signal
from typing import Any, NoReturn

from . import DESCRIPTORS
from .kernel import CLONE_NEWNS, CLONE_NEWUSER, MS_PRIVATE, MS_REC, PR_SET_PDEATHSIG, check, libc, mount
from .mounts import mount_root
from .users import Users


def enter(request: dict[str, Any], descriptors: list[int], users: Users | None) -> NoReturn:
    """Make the file system, set the limits, become bubblewrap; what prevents it goes to the control's output."""
    try:
        os.nice(10)  # so that no sandbox keeps the watch waiting
        launcher = os.getppid()
        users = place(descriptors, users)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        make_namespaces(request["own_user"])
        mount_root(request, users)
        for limit, value in request["rlimits"].items():
            resource.setrlimit(getattr(resource, limit), (value, value))
        if users:
            check(libc.setns(users.namespace, CLONE_NEWUSER), "setns")
            os.setgroups([])
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a change of user ends it
        if os.getppid() != launcher:
            os._exit(1)
        try:
            os.execv(request["command"][0], request["command"])
        except PermissionError as error:
            raise OSError(f"{request['command'][0]} must be a program that every user may run: {error}") from error
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}".encode())
    os._exit(1)


def place(descriptors: list[int], users: Users | None) -> Users | None:
    """Put the request's descriptors where the sandbox looks for them; all others close on exec.

    Returns the users, whose namespace may have had to make room.

    The pipes are given to the sandbox's superuser, who may then open them again, as /dev/stdout and /dev/stderr are.
    """
    # out of the targets' way first
    sources = [*descriptors, users.namespace] if users else descriptors
    high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, max(DESCRIPTORS) + 1) for descriptor in sources]
    for source, target in zip(high[: len(DESCRIPTORS)], DESCRIPTORS, strict=True):
        os.dup2(source, target)
        if users:
            os.fchown(target, users.first, users.first)
    os.dup2(1, 2)
    return users and users._replace(namespace=high[-1])


def make_namespaces(own_user: bool) -> None:
    user, group = os.getuid(), os.getgid()
    check(libc.unshare(CLONE_NEWNS | (CLONE_NEWUSER if own_user else 0)), "unshare")
    if own_user:
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    mount("none", "/", "none", MS_REC | MS_PRIVATE)
