"""A sandbox's file systems: overlays over one in memory, and /dev. They vanish with the mount namespace."""

import os
import struct
from typing import Any

from .kernel import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    CLONE_NEWNS,
    MNT_DETACH,
    MOUNT_ATTR_IDMAP,
    MOUNT_SETATTR,
    MOVE_MOUNT,
    MOVE_MOUNT_F_EMPTY_PATH,
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    OPEN_TREE,
    OPEN_TREE_CLONE,
    check,
    libc,
    mount,
)
from .users import Users

DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
DEVICE_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "core": "/proc/kcore",
    "ptmx": "pts/ptmx",
}


KERNEL_FILE_SYSTEMS = (
    *("autofs", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "efivarfs", "fusectl"),
    *("hugetlbfs", "mqueue", "nsfs", "pstore", "rpc_pipefs", "securityfs", "sysfs", "tracefs"),
)


def leave_mounts() -> None:
    """Take a mount namespace of its own, without those file systems of the kernel that no sandbox needs.

    Every sandbox begins as a copy of it, and bubblewrap reads its table several times.
    """
    check(libc.unshare(CLONE_NEWNS), "unshare")
    mount("none", "/", "none", MS_REC | MS_PRIVATE)
    with open("/proc/self/mountinfo") as file:
        lines = [line.split(" - ") for line in file]
    for mounted, source in lines:
        if source.split()[0] in KERNEL_FILE_SYSTEMS:
            libc.umount2(mounted.split()[4].encode(), MNT_DETACH)


def mount_root(request: dict[str, Any], users: Users | None) -> None:
    """Mount the request's layers, one overlay each, on `root` in its mount point.

    The superuser mounts them before it enters the user namespace: the overlay then keeps whiteouts as it does on any
    host, and works on kernels in which a user namespace may not mount it.
    """
    point = request["mount_point"]
    options = f"size={request['disk_mib']}m,nr_inodes={request['files']},mode=755"
    mount("tmpfs", point, "tmpfs", MS_NOSUID | MS_NODEV, options)
    os.mkdir(f"{point}/root")
    for index, (lower, where, folders, copied) in enumerate(request["layers"]):
        target = f"{point}/root{where}"
        upper = f"{point}/upper{index}"
        make_folder(upper, users)
        if users:
            try:
                mount_overlay(mount_mapped(lower, f"{point}/lower{index}", users), upper, target)
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
        mount_overlay(lower, upper, target)
    mount_devices(f"{point}/root/dev", request["disk_mib"], users)


def make_folder(path: str, users: Users | None) -> None:
    os.mkdir(path)
    if users:
        os.chown(path, users.first, users.first)


def mount_overlay(lower: str, upper: str, target: str) -> None:
    work = upper.replace("/upper", "/work")
    os.makedirs(work, exist_ok=True)
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    mount("overlay", target, "overlay", MS_NOSUID | MS_NODEV, options)


def mount_mapped(folder: str, point: str, users: Users) -> str:
    """Mount a folder such that the host's ids 0 to 65535 are those of the users' namespace (an idmapped mount)."""
    os.mkdir(point)
    tree = libc.syscall(OPEN_TREE, AT_FDCWD, folder.encode(), OPEN_TREE_CLONE)
    check(tree, f"open_tree {folder}")
    attributes = struct.pack("QQQQ", MOUNT_ATTR_IDMAP, 0, 0, users.namespace)  # struct mount_attr
    try:
        check(libc.syscall(MOUNT_SETATTR, tree, b"", AT_EMPTY_PATH, attributes, len(attributes)), "mount_setattr")
        result = libc.syscall(MOVE_MOUNT, tree, b"", AT_FDCWD, point.encode(), MOVE_MOUNT_F_EMPTY_PATH)
        check(result, f"mount of {folder}")
    finally:
        os.close(tree)
    return point


def mount_devices(dev: str, shared_memory_mib: int, users: Users | None) -> None:
    """Mount a read-only /dev with the devices every program may use, terminals and shared memory.

    bubblewrap's --dev makes the same and reads the table of mounts for each device: 1 ms a sandbox.
    """
    owner = f",uid={users.first},gid={users.first}" if users else ""
    mount("tmpfs", dev, "tmpfs", MS_NOSUID | MS_NOEXEC, f"size=64k,nr_inodes=64,mode=755{owner}")
    for name in DEVICES:
        os.close(os.open(f"{dev}/{name}", os.O_CREAT | os.O_WRONLY, 0o666))
        mount(f"/dev/{name}", f"{dev}/{name}", "none", MS_BIND)
    for name, target in DEVICE_LINKS.items():
        os.symlink(target, f"{dev}/{name}")
    for name in ("pts", "shm"):
        os.mkdir(f"{dev}/{name}")
    mount("devpts", f"{dev}/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620,max=64")
    options = f"size={shared_memory_mib}m,mode=1777{owner}"
    mount("tmpfs", f"{dev}/shm", "tmpfs", MS_NOSUID | MS_NODEV, options)
    mount("none", dev, "none", MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NOEXEC)


def run(*command: str) -> None:
    if os.waitpid(os.posix_spawnp(command[0], command, os.environ), 0)[1] != 0:
        raise OSError(f"{' '.join(command)} failed")
