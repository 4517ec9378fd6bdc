"""The root file system of the zero-setup sandbox: the host's programs, nothing else of the host.

`/usr` (and `/bin`, `/lib`, `/sbin`, where they are folders of their own) come from the host, read-only under an
overlay. `/etc` holds copies of the files programs need, with the users and groups of a fresh Debian. `/root`, `/home`,
`/var`, `/tmp` and the rest are empty.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# Users and groups of Debian's base-passwd, plus none of the host's.
_USERS = """\
root:0:0:root:/root:/bin/bash
daemon:1:1:daemon:/usr/sbin:/usr/sbin/nologin
bin:2:2:bin:/bin:/usr/sbin/nologin
sys:3:3:sys:/dev:/usr/sbin/nologin
sync:4:65534:sync:/bin:/bin/sync
games:5:60:games:/usr/games:/usr/sbin/nologin
man:6:12:man:/var/cache/man:/usr/sbin/nologin
lp:7:7:lp:/var/spool/lpd:/usr/sbin/nologin
mail:8:8:mail:/var/mail:/usr/sbin/nologin
news:9:9:news:/var/spool/news:/usr/sbin/nologin
uucp:10:10:uucp:/var/spool/uucp:/usr/sbin/nologin
proxy:13:13:proxy:/bin:/usr/sbin/nologin
www-data:33:33:www-data:/var/www:/usr/sbin/nologin
backup:34:34:backup:/var/backups:/usr/sbin/nologin
list:38:38:Mailing List Manager:/var/list:/usr/sbin/nologin
irc:39:39:ircd:/run/ircd:/usr/sbin/nologin
_apt:42:65534::/nonexistent:/usr/sbin/nologin
nobody:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
"""
_GROUPS = (
    "root:0 daemon:1 bin:2 sys:3 adm:4 tty:5 disk:6 lp:7 mail:8 news:9 uucp:10 man:12 proxy:13 kmem:15 dialout:20 "
    "fax:21 voice:22 cdrom:24 floppy:25 tape:26 sudo:27 audio:29 dip:30 www-data:33 backup:34 operator:37 list:38 "
    "irc:39 src:40 shadow:42 utmp:43 video:44 sasl:45 plugdev:46 staff:50 games:60 users:100 nogroup:65534"
)
_COPIED = (
    "adduser.conf alternatives bash.bashrc debian_version default/useradd deluser.conf environment ethertypes inputrc "
    "issue ld.so.cache ld.so.conf ld.so.conf.d localtime login.defs magic mime.types nsswitch.conf os-release pam.conf "
    "pam.d perl profile protocols python3 python3.11 rpc security services shells skel terminfo vim"
)
"""What of the host's /etc programs need: settings of the C library, the shell, PAM and the user tools; no secrets."""
_FOLDERS = (
    "boot dev home media mnt opt proc root run srv sys tmp usr var var/backups var/cache var/lib var/local var/log "
    "var/mail var/opt var/spool var/spool/cron var/tmp var/www etc etc/default"
)
_HOST_PROGRAMS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
# of /usr, where tasks write
_WRITABLE = ("bin", "sbin", "local", "local/bin", "local/sbin", "local/lib", "local/share", "local/etc", "share")


@dataclass(frozen=True)
class Layer:
    """One overlay: a folder of the host, and where it is mounted.

    Where the sandbox's user namespace cannot show the owners of the folder's files, they belong to nobody, and
    `folders` of it are made anew above it. `copied`: small enough to be copied whole for every sandbox instead.
    """

    lower: str
    where: str
    folders: Sequence[str] = ()
    copied: bool = False


def make_host_view(folder: Path) -> list[Layer]:
    """Make the root's skeleton in `folder`; return the overlays that complete it."""
    for name in _FOLDERS.split():
        (folder / name).mkdir()
    for name in ("tmp", "var/tmp"):
        (folder / name).chmod(0o1777)
    (folder / "root").chmod(0o700)
    layers = [Layer(str(folder), "", copied=True), Layer("/usr", "/usr", _WRITABLE)]
    for name in _HOST_PROGRAMS:
        host = Path("/", name)
        if host.is_symlink():
            (folder / name).symlink_to(os.readlink(host))
        elif host.is_dir():
            (folder / name).mkdir()
            layers.append(Layer(str(host), f"/{name}"))
    _make_etc(folder / "etc")
    return layers


def _make_etc(etc: Path) -> None:
    for name in _COPIED.split():
        source = Path("/etc", name)
        if source.is_dir():
            shutil.copytree(source, etc / name, symlinks=True, ignore=_unreadable)
        elif os.access(source, os.R_OK):
            shutil.copy(source, etc / name)
    users = [line.split(":", 1) for line in _USERS.splitlines()]
    groups = [word.split(":") for word in _GROUPS.split()]
    _write(etc / "passwd", "".join(f"{name}:x:{rest}\n" for name, rest in users))
    _write(etc / "group", "".join(f"{name}:x:{number}:\n" for name, number in groups))
    _write(etc / "shadow", "".join(f"{name}:*:19700:0:99999:7:::\n" for name, _ in users), 0o640)
    _write(etc / "gshadow", "".join(f"{name}:*::\n" for name, _ in groups), 0o640)
    _write(etc / "hosts", f"127.0.0.1\tlocalhost {HOSTNAME}\n::1\tlocalhost\n")
    _write(etc / "hostname", f"{HOSTNAME}\n")
    for name in ("subuid", "subgid", "fstab", "resolv.conf"):
        _write(etc / name, "")


HOSTNAME = "os"


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)


def _unreadable(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if not os.access(os.path.join(folder, name), os.R_OK, follow_symlinks=False)]
