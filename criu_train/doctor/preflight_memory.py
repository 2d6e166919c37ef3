"""Rules about memory: mappings that are more than memory, System V objects, and the room a snapshot takes."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from criu_train.cell.processes import dumpable_bytes
from criu_train.doctor.preflight_notice import Notice, blocks, fine, gpu, io_uring
from criu_train.doctor.preflight_tree import Task, Tree
from criu_train.units import format_size

_LINE = re.compile(r"^\S+ \S+ \S+ \S+ \S+ +(\S.*)$", re.MULTILINE)
_WHY_NO_FILE = "the mapping has no file that could be opened again"
_GPU = re.compile(r"/dev/(nvidia|kfd|dri/|accel)|/?(drm mm object|i915)")
_GETPID = 11  # semctl: who changed it last
_libc = ctypes.CDLL(None, use_errno=True)


def look(tree: Tree) -> Iterator[Notice]:
    for task in tree.tasks:
        for path in _mapped(task):
            yield from _mapping(tree, task, path)
    yield from _left_out(tree)
    yield from _room(tree)


def _mapped(task: Task) -> set[str]:
    with contextlib.suppress(OSError):
        return set(_LINE.findall(Path(f"/proc/{task.pid}/maps").read_text(errors="replace")))
    return set()


def _mapping(tree: Tree, task: Task, path: str) -> Iterator[Notice]:
    place = str(task)
    name = path.removesuffix(" (deleted)")
    if _GPU.match(name):
        yield gpu(task.pid, name, place)
    elif name.startswith("/SYSV"):
        why = "segments of shmget() belong to an IPC namespace, which a snapshot does not have"
        yield blocks("sysv-shm", why, place)
    elif name == "[uprobes]":
        yield blocks("probed", "a probe is a mapping that the kernel has put in", place, task.pid)
    elif name.startswith("anon_inode:") and "io_uring" in name:
        yield io_uring(place, in_a_cell=tree.init is not None)
    elif name.startswith(("anon_inode:", "/dmabuf:")) or name == "/secretmem":
        yield blocks("strange-mapping", _WHY_NO_FILE, place, name.lstrip("/"))
    elif name == path and name.startswith("/dev/") and _is_device(task, name):
        yield blocks("device-mapping", "what lies behind the mapping is in the device", place)
    elif name == "/[aio]":
        yield fine("rings of asynchronous I/O", "CRIU makes them anew once nothing is on its way")
    elif name == "/anon_hugepage":
        yield fine("processes with huge pages of their own", "CRIU asks for as many at a restore")


def _is_device(task: Task, path: str) -> bool:
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{task.pid}/root{path}").stat()
        return not stat.S_ISREG(status.st_mode) and path != "/dev/zero"
    return False


# -- System V objects --------------------------------------------------------------------------------------------


def _left_out(tree: Tree) -> Iterator[Notice]:
    """Semaphores and queues that the tree has used: the machine keeps them, and CRIU does not see them."""
    if tree.root.namespaces.get("ipc") != _own_ipc():
        return
    ours = set(tree.pids)
    for kind, used in (("semaphores", _semaphores(ours)), ("message queues", _queues(ours))):
        if used:
            yield Notice(
                "warns",
                f"the training uses System V {kind}",
                "they are not in a snapshot: a restored training finds them as they are by then, and not at all once "
                "the machine was started anew",
                "use POSIX ones instead (multiprocessing does), or make them anew when they are gone",
                f"{len(used)} of them",
            )


def _own_ipc() -> str:
    return str(Path("/proc/self/ns/ipc").readlink())


def _semaphores(pids: set[int]) -> list[int]:
    """Those that one of these processes was the last to change."""
    rows = ((int(row[1]), int(row[3])) for row in _table("sem"))
    return [one for one, size in rows if any(_libc.semctl(one, at, _GETPID) in pids for at in range(size))]


def _queues(pids: set[int]) -> list[int]:
    return [int(row[1]) for row in _table("msg") if {int(row[5]), int(row[6])} & pids]


def _table(name: str) -> Iterator[list[str]]:
    with contextlib.suppress(OSError):
        yield from (line.split() for line in Path(f"/proc/sysvipc/{name}").read_text().splitlines()[1:])


# -- room --------------------------------------------------------------------------------------------------------


def _room(tree: Tree) -> Iterator[Notice]:
    with contextlib.suppress(OSError):
        place = os.readlink(f"/proc/{tree.root.pid}/cwd")  # noqa: PTH115 - where the store lies unless told otherwise
        free = shutil.disk_usage(f"/proc/{tree.root.pid}/cwd").free
        if (memory := dumpable_bytes(tree.pids)) > free:
            yield Notice(
                "warns",
                f"the training's memory ({format_size(memory)}) is more than what is free at {place} "
                f"({format_size(free)})",
                "a snapshot is compressed and may fit all the same; if it does not, the dump fails and says so",
                "free space there, or put the store elsewhere with --store",
            )
