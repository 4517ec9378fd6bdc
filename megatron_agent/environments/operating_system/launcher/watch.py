"""What a sandbox holds of the machine, read from /proc, and its end."""

import contextlib
import os
import signal

PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024


def read(path: str) -> bytes:
    """Return a short file of /proc; nothing when its process is gone."""
    text = b""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            while part := os.read(descriptor, 65536):
                text += part
        finally:
            os.close(descriptor)
    return text


def children(process: int) -> list[int]:
    """Return the ids of a process's children."""
    try:
        threads = os.listdir(f"/proc/{process}/task")
    except OSError:  # it is gone
        return []
    return [int(word) for thread in threads for word in read(f"/proc/{process}/task/{thread}/children").split()]


def process_tree(root: int) -> list[int]:
    """Return the ids of a process's descendants: all that a PID namespace's first process has in it."""
    found = children(root)
    for process in found:  # which grows
        found += children(process)
    return found


def resident_kib(process: int) -> int:
    """Return what a process holds of memory, that of files too, in KiB: quick to read."""
    pages = read(f"/proc/{process}/statm").split()[1:2]
    return int(pages[0]) * PAGE_KIB if pages else 0


def own_kib(process: int) -> int:
    """Return what a process holds of memory that is no file's, in KiB."""
    lines = read(f"/proc/{process}/status").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith((b"RssAnon:", b"RssShmem:")))


def broken_limit(bubblewrap: int, processes: int, memory_mib: int) -> str:
    """Return which limit the processes below bubblewrap are over; "" when they are within."""
    members = process_tree(bubblewrap)
    if len(members) > processes + 2:  # the sandbox's own control and shell
        return f"it held more than {processes} processes"
    limit = memory_mib * 1024
    if sum(map(resident_kib, members)) > limit and sum(map(own_kib, members)) > limit:
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
