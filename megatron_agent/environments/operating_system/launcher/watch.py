"""What a sandbox holds of the machine, read from /proc, and its end."""

import contextlib
import os
import signal


def children(process: int) -> list[int]:
    """Return the ids of a process's children."""
    found: list[int] = []
    try:
        threads = os.listdir(f"/proc/{process}/task")
    except OSError:  # it is gone
        return found
    for thread in threads:
        with contextlib.suppress(OSError), open(f"/proc/{process}/task/{thread}/children") as file:
            found += map(int, file.read().split())
    return found


def process_tree(root: int) -> list[int]:
    """Return the ids of a process's descendants: all that a PID namespace's first process has in it."""
    found = children(root)
    for process in found:  # which grows
        found += children(process)
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


def broken_limit(first: int, processes: int, memory_mib: int) -> str:
    """Return which limit the processes below `first` are over; "" when they are within."""
    members = process_tree(first)
    if len(members) > processes + 2:  # the sandbox's own control and shell
        return f"it held more than {processes} processes"
    if sum(map(resident_mib, members)) > memory_mib:
        return f"it held more than {memory_mib} MiB of memory"
    return ""


def end_namespace(bubblewrap: int) -> None:
    """Kill a sandbox, by its first process: the kernel ends that, and bubblewrap after it, when all others are gone.

    Were bubblewrap killed, it would be gone before them, and they would still count as processes of its users.
    """
    first = children(bubblewrap)[:1]
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open((first or [bubblewrap])[0])
        if children(bubblewrap)[:1] == first:  # as long as it is a child, its id is no other's
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        os.close(handle)
