"""Is a TCP port free on this machine, and who has it?"""

import errno
import os
import socket
from pathlib import Path

LISTENING = "0A"


def port_problem(port: int) -> str | None:
    """Return why nobody can listen on `port` here, with who does and what to change; None when it is free.

    Connections of an earlier listener that wait to be forgotten (TIME_WAIT) do not count, as they do not for torch.
    """
    try:
        with socket.socket(socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if probe.family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            probe.bind(("", port))
            probe.listen(1)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            holder = listener(port)
            who = f" by {holder}" if holder else " by a process of another user"
            return f"port {port} is in use{who}: end it, or set another MASTER_PORT"
        return f"port {port} cannot be opened ({error.strerror}): set MASTER_PORT to one from 1024 to 65535"
    return None


def listener(port: int) -> str | None:
    """Return `pid 123 (python -m ...)` of who listens on `port`; None where this user may not see it."""
    sockets = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            if fields[3] == LISTENING and int(fields[1].rsplit(":", 1)[1], 16) == port:
                sockets.add(f"socket:[{fields[9]}]")
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.readlink(file) in sockets for file in (process / "fd").iterdir()):
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                return f"pid {process.name} ({command[:80]})"
        except OSError:  # it has ended, or is another user's
            continue
    return None
