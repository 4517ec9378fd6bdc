"""What the sandboxes take of the host: user ids and a temporary folder."""

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from megatron_agent.environments.operating_system.launcher.users import FIRST_ID
from megatron_agent.errors import UserError

_FOLDER_PREFIX = "agentlm-os-"
_STALE_SECONDS = 60.0


def has_unused_ids() -> bool:
    """Whether the superuser may give sandboxes ids that no user has; in a container without root it may not.

    There it has one user's rights, and the sandbox is made as that user's. Raises UserError where it has the rights
    of the host's superuser all the same, as no limit of processes would hold.
    """
    for name in ("uid_map", "gid_map"):
        ranges = [tuple(map(int, line.split())) for line in Path("/proc/self", name).read_text().splitlines()]
        if any(inside <= FIRST_ID and inside + count >= 1 << 31 for inside, _, count in ranges):
            continue
        if any((inside, outside) == (0, 0) for inside, outside, _ in ranges):
            raise UserError(
                f"bubblewrap: the superuser here has too few user ids (/proc/self/{name}) to give sandboxes their own; "
                "run this as an ordinary user, or use --operating-system-sandbox docker"
            )
        return False
    return True


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Give a folder that is locked while it is used; remove those whose harness and launcher were killed.

    The sandbox's users must be able to pass through it: so it is not below the superuser's own folders.
    """
    base = Path(tempfile.gettempdir()).resolve()
    if not all(parent.stat().st_mode & 0o001 for parent in (base, *base.parents)):
        base = Path("/tmp")
    for old in base.glob(f"{_FOLDER_PREFIX}*"):
        _remove_if_stale(old)
    with tempfile.TemporaryDirectory(prefix=_FOLDER_PREFIX, dir=base, ignore_cleanup_errors=True) as name:
        lock = os.open(name, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            os.chmod(name, 0o711)
            yield Path(name)
        finally:
            os.close(lock)


def _remove_if_stale(folder: Path) -> None:
    with contextlib.suppress(OSError):  # another process removes it, or it is another user's
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            facts = os.fstat(handle)
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # one just made is not locked yet
            if facts.st_uid == os.geteuid() and time.time() - facts.st_mtime > _STALE_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(handle)
