"""What an images directory says about the tree that was dumped, without touching its memory pages."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

from criu_train.criu.entries import family, unpack
from criu_train.criu.schema import image_schema
from criu_train.errors import StoreError

_LINKED, _GHOST = 0, 1  # remap_type
# Status of a map: vsyscall, vdso, vvar (criu/include/image.h).
_ANYWHERE = 1 << 2 | 1 << 3 | 1 << 12
_SERVICE_IMAGES = ("stats-dump", "stats-restore")


@dataclass(frozen=True)
class ImageFile:
    """A regular file that was open or mapped.

    ``flags`` are those of open(2), ``pos`` the file position, ``size`` in bytes at the dump (None for one that was open
    for appending only: CRIU neither keeps nor checks it). ``deleted``: the path was gone already, the images or a
    link_remap file hold the content. ``build_id`` of a program or library.
    """

    path: str
    size: int | None
    mode: int
    flags: int
    pos: int
    deleted: bool = False
    build_id: tuple[int, ...] = ()


@dataclass(frozen=True)
class Task:
    """A process, numbered as inside the cell; ``threads`` are thread IDs, the main thread's included."""

    pid: int
    ppid: int
    comm: str
    threads: tuple[int, ...]


@dataclass(frozen=True)
class Map:
    """Where it begins, and what may be done there, as in /proc/PID/maps."""

    start: int
    protection: str


@dataclass(frozen=True)
class LinkRemap:
    """A deleted but reachable file: restore expects its bytes at ``remap_path`` and links ``original`` to them."""

    remap_path: str
    original: str


@dataclass(frozen=True)
class LentName:
    """A name that a restore gives to what was deleted, until all have it open again; a directory gets its old one."""

    path: str
    directory: bool


class Images:
    """Reads lazily; a damaged image raises StoreError when it is asked for.

    ``read`` gives an image's bytes by its name, for those that don't lie in ``directory`` as CRIU wrote them.

    Names that are no UTF-8 come out of protobuf as bytes; here they are what the os module makes of such.
    """

    def __init__(self, directory: Path, pycriu: Path | None, read: Callable[[str], bytes] | None = None) -> None:
        self._dir = directory
        self._read = read or (lambda name: (directory / name).read_bytes())
        self.pycriu = pycriu

    def files(self) -> tuple[ImageFile, ...]:
        """Every regular file the restore will open, once for each way it was opened."""
        deleted, helpers = {entry.orig_id for entry in self._remaps}, {helper for _, helper in self._links}
        return tuple(
            ImageFile(
                path=os.fsdecode(reg.name),
                size=reg.size if reg.HasField("size") else None,
                mode=stat.S_IMODE(reg.mode),
                flags=reg.flags,
                pos=reg.pos,
                deleted=reg.id in deleted,
                build_id=tuple(reg.build_id),
            )
            for reg in self._regular.values()
            if stat.S_ISREG(reg.mode) and reg.id not in helpers
        )

    def devices(self) -> tuple[str, ...]:
        """Paths of device files that were open or mapped."""
        devices = (reg for reg in self._regular.values() if stat.S_ISCHR(reg.mode) or stat.S_ISBLK(reg.mode))
        return tuple(sorted({os.fsdecode(reg.name) for reg in devices}))

    @property
    def dirs(self) -> tuple[str, ...]:
        """Directories that must exist: working and root directories of the tasks, and directories held open."""
        return tuple(sorted({os.fsdecode(reg.name) for reg in self._regular.values() if stat.S_ISDIR(reg.mode)}))

    def link_remaps(self) -> tuple[LinkRemap, ...]:
        """Files that must lie at ``remap_path`` before a restore."""
        return tuple(
            LinkRemap(os.fsdecode(self._regular[helper].name), os.fsdecode(self._regular[original].name))
            for original, helper in self._links
            if helper in self._regular and original in self._regular
        )

    def lent_names(self) -> tuple[LentName, ...]:
        """What a restore that was killed may have left behind (ghost_path and open_path in criu/files-reg.c)."""
        names = set()
        for remap in self._remaps:
            if (reg := self._regular.get(remap.orig_id)) is None:
                continue
            path = os.fsdecode(reg.name)
            names.add(LentName(f"{path}.cr_link", directory=False))
            if remap.remap_type == _GHOST and stat.S_ISDIR(reg.mode):
                names.add(LentName(path, directory=True))
            elif remap.remap_type == _GHOST:
                # In the nearest directory above that is still there (create_ghost_dentry).
                name = f"{PurePath(path).name}.cr.{remap.remap_id:x}.ghost"
                names |= {LentName(str(above / name), directory=False) for above in PurePath(path).parents}
        return tuple(sorted(names, key=lambda lent: lent.path))

    def unix_paths(self) -> tuple[str, ...]:
        """Absolute paths that sockets were bound to; their directories must exist at a restore."""
        paths = set()
        for socket in self._sockets:
            name = os.fsdecode(bytes(socket.name)).removesuffix("\0")
            if name and not name.startswith("\0"):  # the other kind is abstract: no path
                paths.add(os.path.normpath(Path(os.fsdecode(socket.name_dir) or "/", name)))
        return tuple(sorted(paths))

    def tasks(self) -> tuple[Task, ...]:
        """All tasks, the root task first."""
        entries = self._entries("pstree.img", self._schema.pb.pstree_entry)
        return tuple(Task(e.pid, e.ppid, self._comm(e.pid), tuple(e.threads)) for e in entries)

    def maps(self, pid: int) -> tuple[Map, ...]:
        """A task's memory maps, but for those that the kernel puts where it likes."""
        for memory in self._entries(f"mm-{pid}.img", self._schema.pb.mm_entry):
            return tuple(Map(e.start, _letters(e.prot)) for e in memory.vmas if not e.status & _ANYWHERE)
        return ()

    def descriptors(self, pid: int) -> frozenset[int]:
        """Numbers of a task's open descriptors."""
        for ids in self._entries(f"ids-{pid}.img", self._schema.pb.task_kobj_ids_entry):
            name = f"fdinfo-{ids.files_id}.img"
            return frozenset(entry.fd for entry in self._entries(name, self._schema.pb.fdinfo_entry))
        return frozenset()

    def dump_stats(self) -> Mapping[str, int]:
        """CRIU's own figures by its own names (times in microseconds); empty when the dump left none."""
        for entry in self._entries("stats-dump", self._schema.pb.stats_entry):
            return {field.name: int(value) for field, value in entry.dump.ListFields()}
        return {}

    def memory_bytes(self) -> int:
        """Bytes of memory in the images."""
        return sum(path.stat().st_size for path in self._dir.glob("pages-*.img"))

    @property
    def _schema(self) -> Any:
        return image_schema(self.pycriu)

    @cached_property
    def _files(self) -> list[Any]:
        return list(self._entries("files.img", self._schema.pb.file_entry))

    @cached_property
    def _regular(self) -> dict[int, Any]:
        return {entry.id: entry.reg for entry in self._files if entry.HasField("reg")}

    @property
    def _sockets(self) -> list[Any]:
        return [entry.usk for entry in self._files if entry.HasField("usk")]

    @cached_property
    def _remaps(self) -> list[Any]:
        """What stands in for files that were deleted: a link beside them, or a copy in the images."""
        return list(self._entries("remap-fpath.img", self._schema.pb.remap_file_path_entry))

    @property
    def _links(self) -> list[tuple[int, int]]:
        """Pairs of the id of a deleted file and the id of the link that stands in for it."""
        return [(entry.orig_id, entry.remap_id) for entry in self._remaps if entry.remap_type == _LINKED]

    def _comm(self, pid: int) -> str:
        for core in self._entries(f"core-{pid}.img", self._schema.pb.core_entry):
            return os.fsdecode(core.tc.comm)
        return ""

    def _entries(self, name: str, message: Any) -> Iterator[Any]:
        """The messages in an image; none when the image is absent, which is how CRIU spells an empty one."""
        try:
            data = self._read(name)
        except FileNotFoundError:
            return
        try:
            self._check_magic(name, data)
            yield from unpack(data, message)
        except Exception as error:  # protobuf's own DecodeError differs between its implementations
            raise StoreError(
                f"image {self._dir / name} is damaged: {error}", tip="use another snapshot: `criu-train snapshot list`"
            ) from error

    def _check_magic(self, name: str, data: bytes) -> None:
        expected = "IMG_SERVICE" if name in _SERVICE_IMAGES else "IMG_COMMON"
        if family(data) != self._schema.magic.by_name[expected]:
            raise ValueError("it does not start as an image does")


def _letters(protection: int) -> str:
    return "".join(letter if protection & bit else "-" for bit, letter in ((1, "r"), (2, "w"), (4, "x")))
