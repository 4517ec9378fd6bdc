"""The launcher's loop: take requests, start sandboxes, watch their limits, reap them."""

import contextlib
import gc
import json
import os
import select
import socket
import time
from typing import Any, NamedTuple

from . import DESCRIPTORS
from .enter import enter
from .mounts import leave_mounts
from .users import Users, make_users
from .watch import broken_limit, end_namespace

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
        readable, _, _ = select.select([requests], [], [], WATCH_SECONDS if sandboxes else None)
        if readable:
            message, descriptors, _, _ = socket.recv_fds(requests, 65536, len(DESCRIPTORS), socket.MSG_CMSG_CLOEXEC)
            if not message:  # the harness closed its end, or died: so do all sandboxes
                end_all(sandboxes)
                return
            start(json.loads(message), descriptors, free, sandboxes)
        if time.monotonic() - watched > WATCH_SECONDS:
            ended |= {process for process in sandboxes.keys() - ended if end_if_over(process, sandboxes[process])}
            watched = time.monotonic()
        while sandboxes and (reaped := os.waitpid(-1, os.WNOHANG)[0]):
            sandbox = sandboxes.pop(reaped)
            os.close(sandbox.told)
            ended.discard(reaped)
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


def end_all(sandboxes: dict[int, Running]) -> None:
    for process in sandboxes:
        end_namespace(process)
    for process in sandboxes:
        os.waitpid(process, 0)


main()
