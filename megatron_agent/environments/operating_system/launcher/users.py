"""Users for the sandboxes of the superuser: ranges of host ids that no user has, each in a user namespace.

An ordinary user's sandbox has one user, and makes its namespace itself. The superuser's have 65,536, none of them a
user of the host: ids 0 to 65535 inside are a range of host ids from 0x70000000 on, which no system gives to users
(systemd, UIDS-GIDS), another for each sandbox. The kernel counts the processes of all of a range's users together
(Linux 5.14; before, each user's apart).
"""

import os
import resource
import socket
from typing import NamedTuple

from .kernel import CLONE_NEWUSER, PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, check, libc

FIRST_ID, IDS, RANGES = 0x70000000, 65536, 4093
"""The first host id of the sandboxes' users, the ids of each, and how many ranges there are."""


class Users(NamedTuple):
    """What a sandbox of the superuser has to itself, and a later one has once all its processes are gone."""

    first: int
    lock: socket.socket
    namespace: int


def make_users(processes: int) -> Users:
    """Take a range of ids that no other sandbox of this machine has, and make its namespace."""
    for number in range(RANGES):
        lock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            lock.bind(f"\0agentlm-ids-{number}")
        except OSError:
            lock.close()
            continue
        first = FIRST_ID + number * IDS
        return Users(first, lock, make_user_namespace(first, processes))
    raise OSError(f"all {RANGES} ranges of user ids are taken")


def make_user_namespace(first: int, processes: int) -> int:
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
        message, descriptors, _, _ = socket.recv_fds(ours, 1000, 1, socket.MSG_CMSG_CLOEXEC)
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
