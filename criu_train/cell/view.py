"""A view of the file system of one's own: everything is there, and nothing that is done to it is seen by others.

Called in a mount namespace that nobody else is in, by a process that is about to be its only one. Writable file
systems are overlaid, so that what is written goes to memory. Standard library only.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_MS_BIND, _MS_NOSUID, _MS_NODEV = 4096, 2, 4
_MNT_DETACH = 2
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_PIVOT_ROOT = 155  # x86-64
# Kept as they are: what is in them is the kernel's.
_KERNELS = frozenset(
    ("sysfs", "devtmpfs", "cgroup", "cgroup2", "securityfs", "debugfs", "tracefs", "mqueue", "bpf", "pstore")
)


@dataclass(frozen=True)
class _Mount:
    path: str
    kind: str
    writable: bool


def enter(scratch: Path) -> None:
    """Make the view on ``scratch``, an empty directory, and go there.

    Raises OSError where the kernel can't overlay a file system.
    """
    _mount("tmpfs", scratch, "tmpfs", options="mode=700")
    root, layers = scratch / "root", scratch / "layers"
    root.mkdir()
    layers.mkdir()
    for number, mount in enumerate(_mounts(scratch)):
        target = root / mount.path.lstrip("/")
        if mount.path == "/proc":
            _mount("proc", target, "proc")
        elif mount.kind == "devpts":  # a terminal gets the number that it had
            _mount("devpts", target, "devpts", options="newinstance,ptmxmode=0666,mode=620,gid=5")
        elif mount.kind in _KERNELS or not mount.writable or not os.path.isdir(mount.path):  # noqa: PTH112
            _mount(mount.path, target, flags=_MS_BIND)
        else:
            upper, work = layers / f"{number}-upper", layers / f"{number}-work"
            upper.mkdir()
            work.mkdir()
            _mount("overlay", target, "overlay", options=f"lowerdir={mount.path},upperdir={upper},workdir={work}")
            mode = os.stat(mount.path).st_mode  # noqa: PTH116
            os.chmod(target, mode & 0o7777)  # noqa: PTH101
    _pivot(root)


def bring_loopback_up() -> None:
    """A new network namespace has it down, and CRIU can't start then."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        answer = fcntl.ioctl(any_socket, _SIOCGIFFLAGS, struct.pack("16sh14x", b"lo", 0))
        flags = struct.unpack("16sh14x", answer)[1]
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))


def _mounts(scratch: Path) -> Iterator[_Mount]:
    """Those that can be seen, from the root down, but for our own."""
    seen: dict[str, _Mount] = {}
    with open("/proc/self/mountinfo", "rb") as file:  # noqa: PTH123
        for line in file:
            fields = line.split(b" ")
            path = os.fsdecode(fields[4].decode("unicode_escape").encode("latin-1"))
            kind, _, options = fields[fields.index(b"-", 6) + 1 :][:3]
            writable = b"ro" not in fields[5].split(b",") and b"ro" not in options.strip().split(b",")
            seen[path] = _Mount(path, kind.decode(), writable)  # a later one lies over an earlier one
    for path in sorted(seen, key=lambda path: path.rstrip("/").count("/")):
        # One that is not there lies below another mount that was put over a directory above it.
        if path != str(scratch) and not path.startswith("/proc/") and os.path.lexists(path):
            yield seen[path]


def _mount(source: str, target: Path, kind: str | None = None, *, flags: int = 0, options: str = "") -> None:
    arguments = (source.encode(), os.fsencode(target), kind.encode() if kind else None, flags, options.encode())
    if _libc.mount(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{os.strerror(number)} ({kind or 'bind'})", str(target))


def _pivot(root: Path) -> None:
    os.chdir(root)
    if _libc.syscall(_PIVOT_ROOT, b".", b".") != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{os.strerror(number)} (pivot_root)", str(root))
    _libc.umount2(b".", _MNT_DETACH)
    os.chdir("/")
