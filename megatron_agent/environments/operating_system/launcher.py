"""A small process that starts sandboxes and keeps them within their limits.

It runs as a program of its own (standard library only) beside the harness, for three reasons: a sandbox is made by
fork, which a process with threads must not do; every sandbox dies with its parent, which must therefore be one
thread; and limits must hold while the harness is busy. It ends when its socket does, that is with the harness.

A request on the socket is one JSON object with file descriptors beside it; there is no answer: bubblewrap writes the
sandbox's process id to the last of them itself, and the reason is written there when a limit ends the sandbox.

Every sandbox is in a user namespace. An ordinary user's has one user. The superuser's has 65,536, none of them a user
of the host: its ids 0 to 65535 are a range of host ids from 0x70000000 on, which no system gives to users (systemd,
UIDS-GIDS), another for each sandbox. The kernel counts the processes of all of a range's users together (Linux 5.14).
"""

import contextlib
import ctypes
import fcntl
import json
import os
import resource
import select
import signal
import socket
import struct
import time
from typing import NamedTuple

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000  # linux/sched.h
MS_NOSUID, MS_NODEV, MS_REC, MS_PRIVATE = 2, 4, 16384, 1 << 18  # linux/mount.h
PR_SET_PDEATHSIG, PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP = 1, 28, 4  # linux/prctl.h, linux/securebits.h
OPEN_TREE, MOVE_MOUNT, MOUNT_SETATTR = 428, 429, 442  # system calls, on every architecture
OPEN_TREE_CLONE, MOVE_MOUNT_F_EMPTY_PATH, MOUNT_ATTR_IDMAP = 1, 4, 0x100000  # linux/mount.h
AT_FDCWD, AT_EMPTY_PATH = -100, 0x1000  # linux/fcntl.h

FIRST_ID, IDS, RANGES = 0x70000000, 65536, 4093
"""The first host id of the sandboxes' users, the ids of each, and how many ranges there are."""

CONTROL_STATUS, SHELL_COMMANDS, SHELL_OUTPUT, SHELL_STATUS, INFORMATION, FILTER = 20, 21, 22, 23, 24, 25
"""Descriptors in the sandbox; the control's commands and output are its 0, 1 and 2."""
DESCRIPTORS = (0, 1, CONTROL_STATUS, SHELL_COMMANDS, SHELL_OUTPUT, SHELL_STATUS, FILTER, INFORMATION)
"""Where the descriptors of a request go, in its order."""
NAMESPACE = 26
"""Where a child has its user namespace until it is in it."""

WATCH_SECONDS = 0.05
REST_SECONDS = 1.0
"""A range of ids goes to the next sandbox after this long: its last processes may still be ending, and count."""
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


class Users(NamedTuple):
    """What a sandbox of the superuser has to itself, and a later one has after it."""

    first: int
    lock: socket.socket
    namespace: int


def main() -> None:
    requests = socket.socket(fileno=0)
    libc = ctypes.CDLL(None, use_errno=True)
    with contextlib.suppress(OSError):  # not an ordinary user's to choose; theirs are held by RLIMIT_NPROC
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    groups: dict[int, str] = {}
    emptied: list[str] = []
    made = 0
    free: list[tuple[float, Users]] = []  # since when
    used: dict[int, Users] = {}
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
            users = None
            try:
                if not request["own_user"]:
                    rested = free and time.monotonic() - free[0][0] > REST_SECONDS
                    users = free.pop(0)[1] if rested else make_users(libc, request)
                group = make_group(request, made)
            except OSError as error:
                os.write(descriptors[1], str(error).encode())
                for descriptor in descriptors:
                    os.close(descriptor)
                continue
            made += 1
            process = os.fork()
            if process == 0:
                enter(libc, request, descriptors, group, users)
            if users:
                used[process] = users
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
            if reaped in used:
                free.append((time.monotonic(), used.pop(reaped)))
        emptied = [group for group in emptied if not remove_group(group)]


def make_users(libc: ctypes.CDLL, request: dict) -> Users:
    """Take a range of ids that no other sandbox of this machine has, and make its namespace."""
    for number in range(RANGES):
        lock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            lock.bind(f"\0agentlm-ids-{number}")
        except OSError:
            lock.close()
            continue
        first = FIRST_ID + number * IDS
        namespace = make_user_namespace(libc, first, 2 * request["processes"])
        return Users(first, lock, namespace)
    raise OSError(f"all {RANGES} ranges of user ids are taken")


def make_user_namespace(libc: ctypes.CDLL, first: int, processes: int) -> int:
    """Return a user namespace's descriptor. A host's user without rights owns it, whose processes are limited.

    The limit of the user who makes a namespace holds for all processes of all users in it. The superuser has none:
    so a child takes the id `first`, keeping its capabilities, and makes it; this process writes the ids.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child = os.fork()
    if child == 0:
        ours.close()
        try:
            check(libc.prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0), "keeping capabilities")
            resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes))
            os.setresgid(first, first, first)
            os.setresuid(first, first, first)
            check(libc.unshare(CLONE_NEWUSER), "a user namespace")
            socket.send_fds(theirs, [b"made"], [os.open("/proc/self/ns/user", os.O_RDONLY)])
            theirs.recv(1)
        except OSError as error:
            theirs.send(str(error).encode())
        os._exit(0)
    theirs.close()
    with ours:
        message, descriptors, _, _ = socket.recv_fds(ours, 1000, 1)
        try:
            if not descriptors:
                raise OSError(message.decode())
            for name in ("uid_map", "gid_map"):
                with open(f"/proc/{child}/{name}", "w") as file:
                    file.write(f"0 {first} {IDS}")
        finally:
            ours.close()
            os.waitpid(child, 0)
    return descriptors[0]


def run(*command: str) -> None:
    if os.waitpid(os.posix_spawnp(command[0], command, os.environ), 0)[1] != 0:
        raise OSError(f"{' '.join(command)} failed")


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


def enter(libc: ctypes.CDLL, request: dict, descriptors: list[int], group: str, users: Users | None) -> None:
    """In the child: make the file system, set the limits, become bubblewrap."""
    try:
        if group:
            with open(f"{group}/cgroup.procs", "w") as file:
                file.write("0")
        os.nice(10)  # so that no sandbox keeps the watch waiting
        launcher = os.getppid()
        place(descriptors, users)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        make_namespaces(libc, request["own_user"])
        mount_root(libc, request, users)
        for limit, value in request["rlimits"].items():
            resource.setrlimit(getattr(resource, limit), (value, value))
        if users:
            check(libc.setns(NAMESPACE, CLONE_NEWUSER), "setns")
            os.close(NAMESPACE)
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


def place(descriptors: list[int], users: Users | None) -> None:
    """Put the request's descriptors where the sandbox looks for them, and close all others.

    The pipes are given to the sandbox's superuser, who may then open them again, as /dev/stdout and /dev/stderr are.
    """
    sources = [*descriptors, users.namespace] if users else descriptors
    targets = (*DESCRIPTORS, NAMESPACE) if users else DESCRIPTORS
    # out of the targets' way first, each where no other is
    high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 64) for descriptor in sources]
    for source, target in zip(high, targets, strict=True):
        os.dup2(source, target)
    os.dup2(1, 2)
    if users:
        for descriptor in DESCRIPTORS:
            os.fchown(descriptor, users.first, users.first)
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor > 2 and descriptor not in targets:
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


def mount_root(libc: ctypes.CDLL, request: dict, users: Users | None) -> None:
    """Mount overlays over a file system in memory; they vanish with the mount namespace.

    The superuser mounts them before it enters the user namespace: the overlay then keeps whiteouts as it does on any
    host, and works on kernels in which a user namespace may not mount it.
    """
    point = request["mount_point"]
    options = f"size={request['disk_mib']}m,nr_inodes={request['files']},mode=755"
    check(libc.mount(b"tmpfs", point.encode(), b"tmpfs", MS_NOSUID | MS_NODEV, options.encode()), f"mount {point}")
    os.mkdir(f"{point}/root")
    for index, (lower, where, folders, copied) in enumerate(request["layers"]):
        target = f"{point}/root{where}"
        upper = f"{point}/upper{index}"
        make_folder(upper, users)
        if users:
            try:
                mount_overlay(libc, mount_mapped(libc, lower, f"{point}/lower{index}"), upper, target)
                continue
            except OSError as error:
                if not where and not copied:
                    raise OSError(
                        f"the owners of files in {lower} cannot be shown in a user namespace; that takes idmapped "
                        f"mounts (Linux 5.19, and a file system that knows them, as ext4 and xfs do): {error}"
                    ) from error
        if users and copied:
            run("cp", "-a", f"{lower}/.", upper)
            run("chown", "-hR", f"{users.first}:{users.first}", upper)
        for folder in folders:
            make_folder(f"{upper}/{folder}", users)
        mount_overlay(libc, lower, upper, target)


def make_folder(path: str, users: Users | None) -> None:
    os.mkdir(path)
    if users:
        os.chown(path, users.first, users.first)


def mount_overlay(libc: ctypes.CDLL, lower: str, upper: str, target: str) -> None:
    work = upper.replace("/upper", "/work")
    os.makedirs(work, exist_ok=True)
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    check(libc.mount(b"overlay", target.encode(), b"overlay", 0, options.encode()), f"overlay of {lower}")


def mount_mapped(libc: ctypes.CDLL, folder: str, point: str) -> str:
    """Mount a folder such that the host's ids 0 to 65535 are those of NAMESPACE (an idmapped mount)."""
    os.mkdir(point)
    tree = libc.syscall(OPEN_TREE, AT_FDCWD, folder.encode(), OPEN_TREE_CLONE)
    check(min(tree, 0), f"open_tree {folder}")
    attributes = struct.pack("QQQQ", MOUNT_ATTR_IDMAP, 0, 0, NAMESPACE)  # struct mount_attr
    try:
        check(libc.syscall(MOUNT_SETATTR, tree, b"", AT_EMPTY_PATH, attributes, len(attributes)), "mount_setattr")
        check(
            libc.syscall(MOVE_MOUNT, tree, b"", AT_FDCWD, point.encode(), MOVE_MOUNT_F_EMPTY_PATH), f"mount of {folder}"
        )
    finally:
        os.close(tree)
    return point


def check(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    main()
