"""The launcher's loop: take requests, start sandboxes, watch their limits, reap them."""

import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
import time
from typing import Any, NamedTuple

from . import DESCRIPTORS
from .enter import enter
from .kernel import PR_SET_CHILD_SUBREAPER, check, libc
from .mounts import leave_mounts, run
from .users import Users, make_users
from .watch import broken_limit, children, end_namespace

WATCH_SECONDS = 0.05


class Running(NamedTuple):
    """A sandbox: its limits, where to tell the reason for its end, and its users where it has its own."""

    processes: int
    memory_mib: int
    told: int
    users: Users | None


def main() -> None:
    requests = socket.socket(fileno=0)
    os.set_inheritable(0, False)
    os.chdir("/")
    # a first process whose bubblewrap is killed before it asked to die with it waits for ever: it becomes ours
    check(libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "becoming the parent of orphans")
    with contextlib.suppress(OSError):  # not an ordinary user's to choose; theirs are held by RLIMIT_NPROC
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    with contextlib.suppress(OSError):  # nor is a mount namespace, before it has a user namespace
        leave_mounts()
    gc.freeze()  # a child's copy of a page costs more than the garbage on it
    free: list[Users] = []
    sandboxes: dict[int, Running] = {}  # by bubblewrap's process
    ended: set[int] = set()  # killed, not yet reaped
    watched = time.monotonic()
    while True:
        busy = sandboxes or children(os.getpid())
        readable, _, _ = select.select([requests], [], [], WATCH_SECONDS if busy else None)
        if readable:
            message, descriptors, _, _ = socket.recv_fds(requests, 65536, len(DESCRIPTORS), socket.MSG_CMSG_CLOEXEC)
            if not message:  # the harness closed its end, or died: so do all sandboxes
                end_all()
                run("rm", "-rf", sys.argv[1])
                return
            start(json.loads(message), descriptors, free, sandboxes)
        if time.monotonic() - watched > WATCH_SECONDS:
            ended |= {process for process in sandboxes.keys() - ended if end_if_over(process, sandboxes[process])}
            for orphan in set(children(os.getpid())) - sandboxes.keys():
                os.kill(orphan, signal.SIGKILL)
            watched = time.monotonic()
        while reaped := reap():
            sandbox = sandboxes.pop(reaped, None)  # none of an orphan
            ended.discard(reaped)
            if sandbox:
                os.close(sandbox.told)
                if sandbox.users:
                    free.append(sandbox.users)


def start(request: dict[str, Any], descriptors: list[int], free: list[Users], sandboxes: dict[int, Running]) -> None:
    """Fork the sandbox that a request asks for; what prevents it is written to the control's output."""
    *theirs, told = descriptors
    try:
        users = None
        if not request["own_user"]:
            users = free.pop(0) if free else make_users(2 * request["processes"])
    except OSError as error:
        os.write(descriptors[1], str(error).encode())
        os.close(told)
    else:
        process = os.fork()
        if process == 0:
            enter(request, descriptors, users)
        sandboxes[process] = Running(request["processes"], request["memory_mib"], told, users)
    for descriptor in theirs:
        os.close(descriptor)


def end_if_over(process: int, sandbox: Running) -> bool:
    """End a sandbox that is over a limit; whether it was."""
    reason = broken_limit(process, sandbox.processes, sandbox.memory_mib)
    if reason:
        with contextlib.suppress(BrokenPipeError):  # the episode is over already
            os.write(sandbox.told, reason.encode())
        end_namespace(process)
    return bool(reason)


def reap() -> int:
    """Return the id of a child that ended; 0 when none has."""
    try:
        return os.waitpid(-1, os.WNOHANG)[0]
    except ChildProcessError:
        return 0


def end_all() -> None:
    """Kill the sandboxes, and what their end makes this process's own, until nothing is left."""
    with contextlib.suppress(ChildProcessError):
        while True:
            for process in children(os.getpid()):
                os.kill(process, signal.SIGKILL)
            os.waitpid(-1, 0)


main()
