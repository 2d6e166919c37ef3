"""Which filesystems and directories are watched, and which directory an event's handle stands for."""

from __future__ import annotations

import contextlib
import os
import time

from criu_train.cell import fanotify
from criu_train.cell.fanotify import Mount

# Filesystems that hold no files of a training.
_NOT_FILES = frozenset(
    [
        "autofs",
        "binfmt_misc",
        "bpf",
        "cgroup",
        "cgroup2",
        "configfs",
        "debugfs",
        "devpts",
        "devtmpfs",
        "efivarfs",
        "fusectl",
        "hugetlbfs",
        "mqueue",
        "nsfs",
        "proc",
        "pstore",
        "rpc_pipefs",
        "securityfs",
        "selinuxfs",
        "sysfs",
        "tracefs",
    ]
)
_NAMES = fanotify.CREATE | fanotify.DELETE | fanotify.ONDIR
_RENAME = fanotify.RENAME
_MOVED = fanotify.MOVED_FROM | fanotify.MOVED_TO  # before Linux 5.17
_FILES = fanotify.CLOSE_WRITE | fanotify.ATTRIB
# Directories below the roots of which also each write is told, so that a write by others into a file that stays open
# is known to be theirs.
_ADOPTED_MAX = 20_000
_ADOPT_S = 2.0
_SKIPPED = frozenset((".git", "node_modules", "__pycache__"))
_CACHE_MAX = 50_000


class Directories:
    """Marks what is to be watched; turns handles into paths.

    ``missed``: there are too many directories on a filesystem that can only be watched one by one.
    """

    def __init__(self, group: int, roots: list[str], exclude: tuple[str, ...]) -> None:
        self._group = group
        self._roots = roots
        self._exclude = exclude
        self._mounts: dict[bytes, list[Mount]] = {}
        self._unmarked: dict[bytes, bool] = {}  # filesystems watched directory by directory
        self._cache: dict[bytes, str] = {}
        self._fixed: dict[bytes, str] = {}  # directories whose handles can't be opened: known since they were adopted
        self._adopted = 0
        self.missed = False
        self._rename = _RENAME

    def arm(self) -> list[str]:
        """Mark every writable filesystem and the roots; returns mount points that can't be watched.

        Raises OSError when not one filesystem that holds a root can be watched.
        """
        blind: list[str] = []
        mounts = writable_mounts()
        # What can be seen by several mounts has the name that it has in the roots.
        named = {max((m.path for m in mounts if _holds(m.path, root)), key=len, default="/") for root in self._roots}
        for mount in sorted(mounts, key=lambda m: (m.path not in named, not m.whole, len(m.path))):
            known = self._mounts.setdefault(mount.fsid, [])
            known.append(mount)
            if len(known) == 1:
                self._unmarked[mount.fsid] = not self._mark_filesystem(mount.path)
            if self._unmarked[mount.fsid]:
                blind.append(mount.path)
        problem: OSError | None = None
        for root in self._roots:
            try:
                self._adopt_one(root)
            except OSError as error:
                problem = error
            else:
                self.adopt(root)
        if problem is not None:
            raise problem
        return blind

    def path(self, key: bytes, name: bytes) -> str | None:
        """The path of ``name`` in the directory; None when that directory is gone or out of sight."""
        directory = self._cache.get(key) or self._fixed.get(key)
        if directory is None:
            directory = self._look_up(key)
            if directory is None:
                return None
            if len(self._cache) > _CACHE_MAX:
                self._cache.clear()
            self._cache[key] = directory
        if name in (b"", b"."):
            return directory
        return f"{directory.rstrip('/')}/{os.fsdecode(name)}"

    def forget(self, old: str | None, new: str | None) -> None:
        """A directory was renamed (or, with None, deleted): paths below it are other ones now."""
        self._cache.clear()
        if old is None or new is None:
            return
        for key, path in self._fixed.items():
            if path == old or path.startswith(old + "/"):
                self._fixed[key] = new + path[len(old) :]

    def adopt(self, top: str) -> None:
        """Tell each write in this directory and all below it."""
        pending = [top]
        until = time.monotonic() + _ADOPT_S
        while pending:
            if self._adopted >= _ADOPTED_MAX or time.monotonic() > until:
                self.missed = self.missed or any(self._unmarked.values())
                return
            directory = pending.pop()
            if directory in self._exclude:
                continue
            with contextlib.suppress(OSError):
                self._adopt_one(directory)
                self._adopted += 1
                with os.scandir(directory) as entries:
                    below = [e for e in entries if e.is_dir(follow_symlinks=False)]
                if not any(e.name == "conda-meta" for e in below) and not os.path.lexists(f"{directory}/pyvenv.cfg"):
                    pending.extend(e.path for e in below if e.name not in _SKIPPED)

    def _adopt_one(self, directory: str) -> None:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            fsid = fanotify.filesystem_id(fd)
        finally:
            os.close(fd)
        if self._unmarked.get(fsid, True):
            fanotify.mark_directory(self._group, directory, fanotify.MODIFY | _FILES | _NAMES | self._rename)
            self._fixed[fanotify.directory_key(directory, fsid)] = directory
        else:
            fanotify.mark_directory(self._group, directory, fanotify.MODIFY)

    def _mark_filesystem(self, path: str) -> bool:
        try:
            fanotify.mark_filesystem(self._group, path, _FILES | _NAMES | self._rename)
        except OSError:
            if self._rename == _MOVED:
                return False
            self._rename = _MOVED
            if self._mark_filesystem(path):
                return True
            self._rename = _RENAME  # it was not for the rename
            return False
        return True

    def _look_up(self, key: bytes) -> str | None:
        for mount in self._mounts.get(key[:8], ()):
            with contextlib.suppress(OSError):
                fd = fanotify.open_directory(mount, key)
                try:
                    path = os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115
                    # A bind mount of a part can't show what lies outside of it, and a mount can hide another.
                    if os.path.samestat(os.stat(path), os.fstat(fd)):  # noqa: PTH116
                        return path
                finally:
                    os.close(fd)
        return None


def _holds(mount: str, path: str) -> bool:
    return f"{path}/".startswith(f"{mount.rstrip('/')}/")


def writable_mounts() -> list[Mount]:
    """Every mount that can be seen and written to."""
    found = []
    with open("/proc/self/mountinfo", "rb") as file:  # noqa: PTH123
        lines = file.read().splitlines()
    for line in lines:
        fields = line.split(b" ")
        device, root, place, options = fields[2], fields[3], fields[4], fields[5]
        fstype, _, super_options = fields[fields.index(b"-", 6) + 1 :][:3]
        if fstype.decode() in _NOT_FILES or b"ro" in options.split(b",") or b"ro" in super_options.split(b","):
            continue
        path = os.fsdecode(place.decode("unicode_escape").encode("latin-1"))
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                seen = os.fstat(fd).st_dev
                # Else it is hidden by another mount on top. btrfs: each subvolume has a number that isn't shown.
                if fstype == b"btrfs" or f"{os.major(seen)}:{os.minor(seen)}".encode() == device:
                    found.append(Mount(path, fanotify.filesystem_id(fd), root == b"/"))
            finally:
                os.close(fd)
    return found
