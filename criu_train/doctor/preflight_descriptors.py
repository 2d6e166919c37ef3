"""Rules about single descriptors: files, devices, and the kernel's objects without a file."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

from criu_train.cell import processes
from criu_train.criu.command import GHOST_LIMIT
from criu_train.doctor.preflight_notice import Notice, blocks, fine, gpu, io_uring
from criu_train.doctor.preflight_tree import FAR_AWAY, Descriptor, Tree

_CARRIED = frozenset(("eventfd", "eventpoll", "signalfd", "timerfd", "inotify", "fanotify", "pidfd"))
_WHY_CARRIED = "CRIU makes them anew as they were"
_WHY_KERNEL = "an object of the kernel without a file, whose state CRIU has no way to read"
_WHY_DEVICE = "a device has state of its own, which CRIU can't read"
_GPU = re.compile(r"/dev/(nvidia|kfd|dri/|accel)")
_HIDDEN_WHY = "CRIU opens it again by its name, which leads to something else, or nowhere"
_DELETED = " (deleted)"
_NO_FILES = ("/secretmem", "/dmabuf:")
# Major numbers of devices (Documentation/admin-guide/devices.txt).
_MEMORY, _CONSOLES, _TERMINALS, _MISC = 1, 4, 5, 10
_PTYS = range(128, 144)
_SERIAL = (188, 204)
_TUN, _AUTOFS = 200, 235  # minor numbers of _MISC
_THREAD = os.O_EXCL  # what pidfd_open() calls PIDFD_THREAD
_KCMP, _SAME_FILE, _SAME_WATCHED = 312, 0, 7  # kcmp(2); its number on x86-64
_BLOCK_BYTES = 512
_libc = ctypes.CDLL(None, use_errno=True)


def look(tree: Tree) -> Iterator[Notice]:
    for one in tree.descriptors():
        if one.anonymous:
            yield from _anonymous(tree, one)
        elif one.kind == stat.S_IFCHR:
            yield from _device(tree, one)
        elif one.kind == stat.S_IFBLK:
            yield blocks("device", _WHY_DEVICE, tree.place(one), one.number, _without_mark(one.link))
        elif one.kind in (stat.S_IFREG, stat.S_IFDIR) and one.link.startswith("/"):
            yield from _file(tree, one)


def _anonymous(tree: Tree, one: Descriptor) -> Iterator[Notice]:
    place = tree.place(one)
    if (rule := _RULES.get(one.anonymous)) and (found := list(rule(tree, one))):
        yield from found
    elif one.anonymous in _CARRIED:
        yield fine(f"{one.anonymous} descriptors", _WHY_CARRIED)
    elif one.anonymous == "io_uring":
        yield io_uring(place, in_a_cell=tree.init is not None)
    elif one.anonymous == "userfaultfd":
        yield blocks("userfaultfd", "memory that another thread fills in on demand", place)
    else:
        yield blocks("special-descriptor", _WHY_KERNEL, place, one.number, one.anonymous)


def _pidfd(tree: Tree, one: Descriptor) -> Iterator[Notice]:
    pid = int(one.told("Pid") or "-1")
    if one.flags & _THREAD:
        yield blocks("pidfd-thread", "CRIU knows those of processes only", tree.place(one))
    elif pid > 0 and pid not in tree.by_pid and _lives_elsewhere(tree, pid):
        why = "it could not be made again: that process is not in the snapshot"
        yield blocks("pidfd-outside", why, tree.place(one))


def _lives_elsewhere(tree: Tree, pid: int) -> bool:
    """It may have come, or gone, while we looked."""
    return Path(f"/proc/{pid}").exists() and pid not in processes.tree(tree.root.pid)


def _inotify(tree: Tree, one: Descriptor) -> Iterator[Notice]:
    watched = {int(device, 16) for device in re.findall(r"^inotify .* sdev:([0-9a-f]+)", one.info, re.MULTILINE)}
    mounts = [mount for mount in tree.mounts.values() if mount.device in watched]
    if any(mount.kind == "overlay" and "nfs_export=on" not in mount.options for mount in mounts):
        why = "inotify knows files by handles; this overlayfs gives none that can be opened again"
        yield blocks("watch-unknown", why, tree.place(one))


def _eventpoll(tree: Tree, one: Descriptor) -> Iterator[Notice]:
    """What is watched must be open in the process whose descriptor CRIU meets first, by whatever number."""
    task = tree.by_pid[one.pid]
    times: dict[int, int] = {}
    for number in map(int, re.findall(r"^tfd:\s*(\d+)", one.info, re.MULTILINE)):
        nth = times[number] = times.get(number, -1) + 1
        if any(_is_watched(one, number, nth, held) for held in (number, *(other.number for other in task.descriptors))):
            continue
        if any(_same(other, one) for other in _polls_before(tree, one)) or _info_now(one) != one.info:
            return
        yield Notice(
            "blocks",
            "a task polls (epoll) a descriptor that it has closed, and that is still open in another process",
            "CRIU looks for it among the open descriptors of the task, finds none, and the dump fails",
            "take it out of the poll before closing it, or close it in the other process too",
            tree.place(one),
        )
        return


def _is_watched(poll: Descriptor, number: int, nth: int, held: int) -> bool:
    """Whether ``held`` is what the poll knows by this number; also when the kernel does not tell."""
    slot = struct.pack("=III", poll.number, number, nth)
    answer = _libc.syscall(_KCMP, poll.pid, poll.pid, _SAME_WATCHED, held, slot)
    return answer == 0 or (answer < 0 and ctypes.get_errno() != errno.EBADF)


def _info_now(one: Descriptor) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{one.pid}/fdinfo/{one.number}").read_text(errors="replace")
    return ""


def _polls_before(tree: Tree, one: Descriptor) -> Iterator[Descriptor]:
    for task in tree.tasks:
        if task.pid == one.pid:
            return
        yield from (other for other in task.descriptors if other.anonymous == "eventpoll")


def _same(one: Descriptor, other: Descriptor) -> bool:
    return bool(_libc.syscall(_KCMP, one.pid, other.pid, _SAME_FILE, one.number, other.number) == 0)


_RULES: dict[str, Callable[[Tree, Descriptor], Iterator[Notice]]] = {
    "pidfd": _pidfd,
    "inotify": _inotify,
    "eventpoll": _eventpoll,
}


# -- files and devices -----------------------------------------------------------------------------------------


def _device(tree: Tree, one: Descriptor) -> Iterator[Notice]:
    assert one.status is not None
    major, minor = os.major(one.status.st_rdev), os.minor(one.status.st_rdev)
    place = tree.place(one)
    if _GPU.match(one.link):
        yield gpu(one.pid, one.link, place)
    elif (major, minor) == (_MISC, _TUN):
        yield blocks("tun", "the interface belongs to the network namespace, which stays outside of snapshots", place)
    elif major == _MEMORY or (major, minor) == (_MISC, _AUTOFS):
        yield from _name(tree, one)
    elif not is_terminal(major, minor):
        yield blocks("device", _WHY_DEVICE, place, one.number, _without_mark(one.link))
    elif not tree.is_stream(one):
        yield from _name(tree, one)


def is_terminal(major: int, minor: int) -> bool:
    """What CRIU knows as a terminal."""
    return (
        major in _PTYS
        or major in _SERIAL
        or (major == _TERMINALS and minor <= 2)
        or (major == _CONSOLES and 0 < minor < 64)
    )


def _file(tree: Tree, one: Descriptor) -> Iterator[Notice]:
    mount = tree.mounts.get(one.mount)
    if re.search(r"^lock:.* LEASE .* WRITE ", one.info, re.MULTILINE):
        yield Notice(
            "warns",
            "a task holds a write lease on a file",
            "who opens the file takes the lease away by a signal (SIGIO, which ends those that don't expect it): a "
            "dump leaves it alone, and a restore finds the bytes that lie there then",
            "use a lock (flock) instead",
            tree.place(one),
        )
    if one.link.startswith("/memfd:"):
        yield fine("memfd descriptors", _WHY_CARRIED)
    elif mount is None and one.link.startswith(_NO_FILES):
        yield blocks("special-descriptor", _WHY_KERNEL, tree.place(one), one.number, _without_mark(one.link)[1:])
    elif mount is None:
        yield from _name(tree, one)
    elif FAR_AWAY.fullmatch(mount.kind):
        yield Notice(
            "warns",
            f"files are open on a file system of another machine or program: {mount.point} ({mount.kind})",
            "it must be there, and show the same files, whenever a snapshot is restored; what others change in them "
            "meanwhile is not noticed",
            "keep what the training writes on a disk of this machine, if that is possible",
        )
    elif one.status is not None and one.status.st_nlink == 0 and mount.kind != "mqueue":
        if one.status.st_blocks * _BLOCK_BYTES > GHOST_LIMIT:
            why = f"deleted files that are still open go into the snapshot, up to {GHOST_LIMIT >> 30} GiB each"
            size = one.status.st_size
            yield blocks("deleted-file-too-large", why, tree.place(one), _without_mark(one.link), size)
        else:
            yield fine("deleted files that are open", "their bytes go into the snapshot")
    else:
        yield from _name(tree, one)


def _name(tree: Tree, one: Descriptor) -> Iterator[Notice]:
    """Whether the name it was opened by leads to it from within the tree."""
    path, place = _without_mark(one.link), tree.place(one)
    if one.mount not in tree.mounts:
        why = (
            "the mount it was opened through is not one that the training sees, so its path means nothing there; "
            "a POSIX message queue has none to be seen"
        )
        yield blocks("opened-outside", why, place, one.number, path)
        return
    if one.status is None or one.link.endswith(_DELETED) or tree.mounts[one.mount].kind == "proc":
        return
    try:
        there = os.lstat(f"/proc/{tree.root.pid}/root{one.link}")
        leads_to_it = (there.st_ino, there.st_dev) == (one.status.st_ino, one.status.st_dev)
    except OSError as error:
        leads_to_it = error.errno not in (errno.ENOENT, errno.ENOTDIR)  # else nobody knows
    if leads_to_it or _link_now(one) != one.link:  # renamed or closed while we looked
        return
    point = tree.mounts[one.mount].point
    why = f"{_HIDDEN_WHY}: something is mounted over it, or it was opened in another root directory ({point})"
    yield blocks("no-second-name", why, place, path, "its name leads elsewhere")


def _without_mark(link: str) -> str:
    return link.removesuffix(_DELETED)


def _link_now(one: Descriptor) -> str:
    with contextlib.suppress(OSError):
        return os.readlink(one.path)  # noqa: PTH115
    return ""
