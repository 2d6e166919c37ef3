"""A tree of processes as /proc shows it: tasks, what they have open, and the mounts they see."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from criu_train.cell import processes

_INIT = b"criu_train.cell.init"
_NAMESPACES = ("mnt", "net", "ipc", "uts", "user", "pid", "cgroup", "time")
# Asking such a file for its status can hang for as long as its server does.
FAR_AWAY = re.compile(r"nfs4?|cifs|smb3?|9p|ceph|lustre|afs|beegfs|gpfs|glusterfs|orangefs|fuse(\..*)?|fuseblk")


@dataclass(frozen=True)
class Mount:
    """One line of mountinfo; ``device`` as the kernel keeps it."""

    kind: str
    point: str
    device: int
    options: str


@dataclass(frozen=True)
class Descriptor:
    """``link``: what /proc says it leads to. ``status``: None where nobody should ask."""

    pid: int
    number: int
    link: str
    info: str
    status: os.stat_result | None

    @cached_property
    def flags(self) -> int:
        return int(self.told("flags") or "0", 8)

    @property
    def mount(self) -> int:
        return int(self.told("mnt_id") or "-1")

    @property
    def path(self) -> str:
        return f"/proc/{self.pid}/fd/{self.number}"

    @property
    def kind(self) -> int:
        """Its type (S_IFMT); what nobody should ask about is taken for a file."""
        return stat.S_IFMT(self.status.st_mode) if self.status else stat.S_IFREG

    @property
    def inode(self) -> int:
        return self.status.st_ino if self.status else 0

    @property
    def anonymous(self) -> str:
        """The kind of an object without a file, ``eventfd`` for one."""
        return self.link.removeprefix("anon_inode:").strip("[]") if self.link.startswith("anon_inode:") else ""

    def told(self, name: str) -> str | None:
        """A field of its fdinfo."""
        found = re.search(rf"^{name}:\s*(\S+)", self.info, re.MULTILINE)
        return found[1] if found else None

    def reads(self) -> bool:
        return self.flags & os.O_ACCMODE in (os.O_RDONLY, os.O_RDWR)

    def writes(self) -> bool:
        return self.flags & os.O_ACCMODE in (os.O_WRONLY, os.O_RDWR)


@dataclass(frozen=True)
class Task:
    """One process. ``parent`` and ``session`` are PIDs as we number them, 0 for one that can't be seen."""

    pid: int
    name: str
    state: str
    parent: int
    session: int
    status: dict[str, str]
    namespaces: dict[str, str]
    descriptors: tuple[Descriptor, ...] = field(repr=False)

    @property
    def user(self) -> int:
        return int(self.status.get("Uid", "0").split()[0])

    def __str__(self) -> str:
        return f"process {self.pid}, {self.name}"


@dataclass(frozen=True)
class Tree:
    """``tasks``: parents first. ``init``: PID 1 of the cell that it lives in, None outside of a cell."""

    tasks: tuple[Task, ...]
    mounts: dict[int, Mount]
    init: int | None

    @property
    def root(self) -> Task:
        return self.tasks[0]

    @property
    def pids(self) -> list[int]:
        return [task.pid for task in self.tasks]

    @cached_property
    def by_pid(self) -> dict[int, Task]:
        return {task.pid: task for task in self.tasks}

    def descriptors(self) -> Iterator[Descriptor]:
        return (one for task in self.tasks for one in task.descriptors)

    def place(self, descriptor: Descriptor) -> str:
        return f"{self.by_pid[descriptor.pid]}, descriptor {descriptor.number}"

    def is_stream(self, descriptor: Descriptor) -> bool:
        """Whether this is what a root task outside of a cell has for stdin, stdout or stderr: ``run`` gives others."""
        streams = [one for one in self.root.descriptors if one.number <= 2]
        return self.init is None and any(
            one.link == descriptor.link and one.inode == descriptor.inode for one in streams
        )


def read_tree(root: int) -> Tree | None:
    """None when the root is gone."""
    mounts = read_mounts(root)
    tasks = [task for pid in processes.tree(root) if (task := _read_task(pid, mounts)) is not None]
    if not tasks or tasks[0].pid != root:
        return None
    return Tree(tuple(tasks), mounts, _init_above(tasks[0]))


def _read_task(pid: int, mounts: dict[int, Mount]) -> Task | None:
    directory = Path(f"/proc/{pid}")
    with contextlib.suppress(OSError, ValueError, IndexError):
        text = (directory / "stat").read_text(errors="replace")
        name, _, rest = text.partition("(")[2].rpartition(")")
        fields = rest.split()
        lines = (directory / "status").read_text(errors="replace").splitlines()
        return Task(
            pid=pid,
            name=name,
            state=fields[0],
            parent=int(fields[1]),
            session=int(fields[3]),
            status={key: value.strip() for key, _, value in (line.partition(":") for line in lines)},
            namespaces={kind: link for kind in _NAMESPACES if (link := read_link(f"{directory}/ns/{kind}"))},
            descriptors=tuple(read_descriptors(pid, mounts)),
        )
    return None


def read_descriptors(pid: int, mounts: dict[int, Mount]) -> Iterator[Descriptor]:
    """What a process has open; nothing when it has ended."""
    with contextlib.suppress(OSError):
        for number in sorted(map(int, os.listdir(f"/proc/{pid}/fd"))):  # noqa: PTH208 - many, and only their names
            with contextlib.suppress(OSError):
                yield _read_descriptor(pid, number, mounts)


def _read_descriptor(pid: int, number: int, mounts: dict[int, Mount]) -> Descriptor:
    path = f"/proc/{pid}/fd/{number}"
    link = os.readlink(path)  # noqa: PTH115 - what it says need not be a path
    info = Path(f"/proc/{pid}/fdinfo/{number}").read_text(errors="replace")
    seen = Descriptor(pid, number, link, info, None)
    mount = mounts.get(seen.mount)
    if mount is not None and FAR_AWAY.fullmatch(mount.kind):
        return seen
    return Descriptor(pid, number, link, info, os.stat(path))  # noqa: PTH116


def read_mounts(pid: int) -> dict[int, Mount]:
    """The mounts that a process sees, by the numbers that descriptors name."""
    mounts: dict[int, Mount] = {}
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/mountinfo").read_text(errors="replace").splitlines():
            head, _, tail = line.partition(" - ")
            number, _, device, _, point = head.split(" ")[:5]
            kind, _, options = tail.split(" ", 2)
            major, minor = map(int, device.split(":"))
            mounts[int(number)] = Mount(kind, point, major << 20 | minor, options)
    return mounts


def read_link(path: str) -> str:
    """Empty when there is none."""
    with contextlib.suppress(OSError):
        return os.readlink(path)  # noqa: PTH115
    return ""


def _init_above(root: Task) -> int | None:
    with contextlib.suppress(OSError):
        if _INIT in Path(f"/proc/{root.parent}/cmdline").read_bytes():
            return root.parent
    return None
