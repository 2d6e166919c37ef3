"""What the processes of the tree hold: open files, shared maps, working directories, bound unix sockets.

Read from /proc as the host numbers the processes. Quick enough to be done while the tree is frozen.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

_DELETED = " (deleted)"
_SHARED_WRITABLE = re.compile(rb"^[0-9a-f]+-[0-9a-f]+ .w.s [0-9a-f]+ [0-9a-f:]+ ([1-9]\d*) +(/.*)$", re.MULTILINE)
_ANY_FILE = re.compile(rb"^[0-9a-f]+-[0-9a-f]+ \S+ [0-9a-f]+ [0-9a-f:]+ [1-9]\d* +(/.*)$", re.MULTILINE)
_OWNER_WRITE = 0o200  # in the mode of a link in /proc/PID/fd: opened for writing
_NOT_PATHS = ("/memfd:", "/dev/", "/proc/", "/SYSV", "/sys/")


@dataclass
class Opened:
    """Paths that still exist under their name. ``mapped`` are shared and writable; ``mapped_inodes`` too, whatever
    their name is by now."""

    written: set[str] = field(default_factory=set)
    read: set[str] = field(default_factory=set)
    mapped: set[str] = field(default_factory=set)
    mapped_inodes: set[int] = field(default_factory=set)
    directories: set[str] = field(default_factory=set)
    sockets: set[str] = field(default_factory=set)


def look(pids: Sequence[int], *, thoroughly: bool) -> Opened:
    """``thoroughly`` also tells what is only read or mapped privately, and the sockets: for when the tree runs.

    Processes that end meanwhile are passed over.
    """
    opened = Opened()
    inodes: set[str] = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            _descriptors(pid, opened, inodes)
            with open(f"/proc/{pid}/maps", "rb") as file:  # noqa: PTH123
                maps = file.read()
            shared = set(_SHARED_WRITABLE.findall(maps))
            opened.mapped.update(_named(name for _, name in shared))
            opened.mapped_inodes.update(int(inode) for inode, _ in shared)
            if thoroughly:
                opened.read.update(mapped_files(maps))
            for link in ("cwd", "root"):
                opened.directories.add(os.readlink(f"/proc/{pid}/{link}"))  # noqa: PTH115
    if thoroughly and inodes and pids:
        opened.sockets.update(_bound(pids, inodes))
    opened.directories.discard("/")
    return opened


def _descriptors(pid: int, opened: Opened, inodes: set[str]) -> None:
    base = f"/proc/{pid}/fd"
    for fd in os.listdir(base):  # noqa: PTH208
        link = f"{base}/{fd}"
        with contextlib.suppress(OSError):
            target = os.readlink(link)  # noqa: PTH115
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
            elif _is_path(target):
                written = os.lstat(link).st_mode & _OWNER_WRITE
                (opened.written if written else opened.read).add(target)


def mapped_files(maps: bytes) -> set[str]:
    """The files in ``/proc/PID/maps`` that still exist under their name."""
    return _named(set(_ANY_FILE.findall(maps)))


def _named(names: Iterable[bytes]) -> set[str]:
    decoded = (os.fsdecode(name.replace(rb"\012", b"\n")) for name in names)
    return {name for name in decoded if _is_path(name)}


def _is_path(name: str) -> bool:
    """A regular name. Files in /dev/shm are; deleted ones are CRIU's to keep."""
    if not name.startswith("/") or name.endswith(_DELETED):
        return False
    return not name.startswith(_NOT_PATHS) or name.startswith("/dev/shm/")  # noqa: S108


def _bound(pids: Sequence[int], inodes: set[str]) -> set[str]:
    """Paths of the tree's own unix sockets; those given relative to a working directory are not known here."""
    paths = set()
    for pid in pids:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/net/unix", "rb") as file:  # noqa: PTH123
            for line in file.read().splitlines()[1:]:
                columns = line.split(None, 7)
                if len(columns) == 8 and columns[7].startswith(b"/") and columns[6].decode() in inodes:
                    paths.add(os.fsdecode(columns[7]))
            break  # one network namespace for the whole tree
    return paths
