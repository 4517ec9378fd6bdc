"""The system calls a sandbox may not make, as the classic BPF program that bubblewrap loads.

Left out of the sandbox is what needs no task and holds memory no limit counts (memfd_create, System V shared memory),
what opens new namespaces and so new privileges, and kernel interfaces with a record of faults (bpf, io_uring, keys).
"""

import errno
import platform
import struct

from megatron_agent.errors import UserError

# number on x86_64, number on aarch64 (linux/arch/*/syscalls)
_DENIED = {
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "mount_setattr": (442, 442),
    "pivot_root": (155, 41),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "open_by_handle_at": (304, 265),
    "kexec_load": (246, 104),
}
_CLONE, _CLONE3 = (56, 220), 435
_CLONE_NEWUSER = 0x10000000
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # linux/audit.h
_X32_BIT = 0x40000000

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # linux/bpf_common.h
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000  # linux/seccomp.h
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data


def filter_program() -> bytes:
    """Return the filter for this machine; UserError on a processor it is not written for."""
    machine = platform.machine()
    if machine not in _ARCHITECTURES:
        raise UserError(
            f"the bubblewrap sandbox knows the system calls of {' and '.join(_ARCHITECTURES)}, this machine is a "
            f"{machine}; use --operating-system-sandbox docker"
        )
    column, audit = _ARCHITECTURES[machine]
    deny = (_RETURN, 0, 0, _ERRNO | errno.EPERM)
    program = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, audit),
        deny,
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, _X32_BIT),
        deny,
        (_EQUAL, 0, 1, _CLONE3),  # its flags lie in memory; without it the C library uses clone
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
    ]
    for numbers in _DENIED.values():
        program += [(_EQUAL, 0, 1, numbers[column]), deny]
    program += [
        (_EQUAL, 0, 3, _CLONE[column]),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_ANY_BIT, 0, 1, _CLONE_NEWUSER),
        deny,
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
