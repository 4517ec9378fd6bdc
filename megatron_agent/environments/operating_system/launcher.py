"""A small process that starts sandboxes and keeps them within their limits.

It runs as a program of its own (standard library only) beside the harness, for three reasons: a sandbox is made by
fork, which a process with threads must not do; every sandbox dies with its parent, which must therefore be one
thread; and limits must hold while the harness is busy. It ends when its socket does, that is with the harness.

A request on the socket is one JSON object with file descriptors beside it; there is no answer: bubblewrap writes the
sandbox's process id to the last of them itself, and the reason is written there when a limit ends the sandbox.
"""

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import socket
import time

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000  # linux/sched.h
MS_NOSUID, MS_NODEV, MS_REC, MS_PRIVATE = 2, 4, 16384, 1 << 18  # linux/mount.h
PR_SET_PDEATHSIG = 1  # linux/prctl.h

CONTROL_STATUS, SHELL_COMMANDS, SHELL_OUTPUT, SHELL_STATUS, INFORMATION, FILTER = 20, 21, 22, 23, 24, 25
"""Descriptors in the sandbox; the control's commands and output are its 0, 1 and 2."""
DESCRIPTORS = (0, 1, CONTROL_STATUS, SHELL_COMMANDS, SHELL_OUTPUT, SHELL_STATUS, FILTER, INFORMATION)
"""Where the descriptors of a request go, in its order."""

WATCH_SECONDS = 0.05
GROUP_PREFIX = "agentlm-"
"""Names of control groups begin with this and the launcher's process id."""


def process_tree(root: int) -> list[int]:
    """Return the ids of a process's descendants: all that a PID namespace's first process has in it."""
    found = []
    waiting = [root]
    while waiting:
        parent = waiting.pop()
        try:
            threads = os.listdir(f"/proc/{parent}/task")
        except OSError:
            continue
        for thread in threads:
            try:
                with open(f"/proc/{parent}/task/{thread}/children") as file:
                    children = [int(word) for word in file.read().split()]
            except OSError:
                continue
            found += children
            waiting += children
    return found


def resident_mib(process: int) -> float:
    """Return what a process holds of memory that is no file's, in MiB; 0 when it is gone."""
    kib = 0
    try:
        with open(f"/proc/{process}/status") as file:
            for line in file:
                if line.startswith(("RssAnon:", "RssShmem:")):
                    kib += int(line.split()[1])
    except (OSError, ValueError):
        return 0.0
    return kib / 1024


def main() -> None:
    requests = socket.socket(fileno=0)
    libc = ctypes.CDLL(None, use_errno=True)
    with contextlib.suppress(OSError):  # not an ordinary user's to choose; theirs are held by RLIMIT_NPROC
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    groups: dict[int, str] = {}
    emptied: list[str] = []
    made = 0
    # bubblewrap process -> (its process limit, its memory limit in MiB, where to tell the reason)
    sandboxes: dict[int, tuple[int, int, int]] = {}
    ended: set[int] = set()  # killed, not yet reaped
    watched = time.monotonic()
    while True:
        readable, _, _ = select.select([requests], [], [], WATCH_SECONDS if sandboxes or emptied else None)
        if readable:
            message, descriptors, _, _ = socket.recv_fds(requests, 65536, len(DESCRIPTORS))
            if not message:  # the harness closed its end, or died: so do all sandboxes
                end_all(sandboxes, [*groups.values(), *emptied])
                return
            request = json.loads(message)
            group = make_group(request, made)
            made += 1
            process = os.fork()
            if process == 0:
                enter(libc, request, descriptors, group)
            if group:
                groups[process] = group
            for descriptor in descriptors[:-1]:
                os.close(descriptor)
            sandboxes[process] = (request["processes"], request["memory_mib"], descriptors[-1])
        if time.monotonic() - watched > WATCH_SECONDS:
            for process, (processes, memory_mib, told) in sandboxes.items():
                if process not in ended and over_limit(process, processes, memory_mib, told):
                    ended.add(process)
            watched = time.monotonic()
        while sandboxes and (reaped := os.waitpid(-1, os.WNOHANG)[0]):
            os.close(sandboxes.pop(reaped)[2])
            ended.discard(reaped)
            emptied += filter(None, [groups.pop(reaped, None)])
        emptied = [group for group in emptied if not remove_group(group)]


def make_group(request: dict, number: int) -> str:
    """Make the control group that holds a sandbox's processes to twice their number, should the watch come late."""
    if not request["groups"]:
        return ""
    group = f"{request['groups']}/{GROUP_PREFIX}{os.getpid()}-{number}"
    os.mkdir(group)
    with open(f"{group}/pids.max", "w") as file:
        file.write(str(2 * request["processes"]))
    return group


def remove_group(group: str) -> bool:
    try:
        os.rmdir(group)
    except FileNotFoundError:
        return True
    except OSError:  # its last processes are still ending
        return False
    return True


def end_all(sandboxes: dict[int, tuple[int, int, int]], groups: list[str]) -> None:
    for process in sandboxes:
        os.kill(process, signal.SIGKILL)
    for process in sandboxes:
        os.waitpid(process, 0)
    deadline = time.monotonic() + 5
    while (groups := [group for group in groups if not remove_group(group)]) and time.monotonic() < deadline:
        time.sleep(0.01)


def over_limit(process: int, processes: int, memory_mib: int, told: int) -> bool:
    """End a sandbox that is over a limit; whether it was. With a namespace's first process all of it is killed."""
    members = process_tree(process)
    reason = ""
    if len(members) > processes + 2:  # the sandbox's own control and shell
        reason = f"it held more than {processes} processes"
    elif sum(map(resident_mib, members)) > memory_mib:
        reason = f"it held more than {memory_mib} MiB of memory"
    if reason:
        with contextlib.suppress(BrokenPipeError):  # the episode is over already
            os.write(told, reason.encode())
        os.kill(process, signal.SIGKILL)  # its child, the namespace's first process, dies with it
    return bool(reason)


def enter(libc: ctypes.CDLL, request: dict, descriptors: list[int], group: str) -> None:
    """In the child: make the file system, set the limits, become bubblewrap."""
    try:
        if group:
            with open(f"{group}/cgroup.procs", "w") as file:
                file.write("0")
        os.nice(10)  # so that no sandbox keeps the watch waiting
        place(descriptors)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        make_namespaces(libc, request["own_user"])
        mount_root(libc, request)
        for limit, value in request["rlimits"].items():
            resource.setrlimit(getattr(resource, limit), (value, value))
        os.execv(request["command"][0], request["command"])
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}".encode())
    os._exit(1)


def place(descriptors: list[int]) -> None:
    """Put the request's descriptors where the sandbox looks for them, and close all others."""
    high = [os.dup2(descriptor, 100 + index) for index, descriptor in enumerate(descriptors)]
    for source, target in zip(high, DESCRIPTORS, strict=True):
        os.dup2(source, target)
    os.dup2(1, 2)
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor > 2 and descriptor not in DESCRIPTORS:
            try:
                os.close(descriptor)
            except OSError:  # the one that listed the folder
                continue


def make_namespaces(libc: ctypes.CDLL, own_user: bool) -> None:
    user, group = os.getuid(), os.getgid()
    check(libc.unshare(CLONE_NEWNS | (CLONE_NEWUSER if own_user else 0)), "unshare")
    if own_user:
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    check(libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None), "mount /")


def mount_root(libc: ctypes.CDLL, request: dict) -> None:
    """Mount overlays over a file system in memory; they vanish with the mount namespace."""
    point = request["mount_point"]
    options = f"size={request['disk_mib']}m,nr_inodes={request['files']},mode=755"
    check(libc.mount(b"tmpfs", point.encode(), b"tmpfs", MS_NOSUID | MS_NODEV, options.encode()), f"mount {point}")
    root = f"{point}/root"
    os.mkdir(root)
    for index, (lower, where, folders) in enumerate(request["layers"]):
        upper, work, target = f"{point}/upper{index}", f"{point}/work{index}", root + where
        os.mkdir(upper)
        os.mkdir(work)
        for folder in folders:
            os.mkdir(f"{upper}/{folder}")
        options = f"lowerdir={lower},upperdir={upper},workdir={work}"
        check(libc.mount(b"overlay", target.encode(), b"overlay", 0, options.encode()), f"overlay of {lower}")


def check(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    main()
