"""Snapshots to test with, and disks that watch, fail or die."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from criu_train.archive.captured import Captured
from criu_train.archive.importing import PlainFiles, Steady
from criu_train.archive.packing import pack
from criu_train.store.digest import digest_bytes
from criu_train.store.draft import Draft
from criu_train.store.durable import Disk
from criu_train.store.manifest import Cpu, ExternalFile, ManifestFields
from criu_train.store.snapshot import Snapshot
from criu_train.store.store import Store

_PAGES = b"p" * 70_000
PACK = f"packs/{digest_bytes(_PAGES)}"
FILES = {
    PACK: _PAGES,
    "pages.index": b"index",
    "images/core-1000.img": b"core",
    "images/pstree.img": b"tree",
    "listing.json": b"{}",
}

_RANDOM = random.Random(7)
_NOISE = _RANDOM.randbytes(40 * 4096)
LARGE = {
    "pages-1.img": _NOISE + bytes(8 * 4096) + _NOISE[:4096],
    "pages-2.img": _NOISE[4096 : 9 * 4096],
    "ghost-file-1.img": b"a ghost of no whole page" * 400,
    "ghost-file-2.img": b"",
}
SMALL = {name.removeprefix("images/"): data for name, data in FILES.items() if name.startswith("images/")}
BLOB = b"what the training wrote"


def facts(**changes: Any) -> ManifestFields:
    """What a supervisor could know."""
    known: dict[str, Any] = {
        "command": ("python", "train.py"),
        "cwd": "/home/me/job",
        "criu_version": "4.2.1",
        "kernel": "6.18.0",
        "boot_id": "11111111-2222-3333-4444-555555555555",
        "cpu": Cpu("x86_64", "A Processor", ("avx2", "fpu", "sse2")),
        "tasks": 3,
        "root_pid": 1700,
        "ns_last_pid": 1712,
        "memory_bytes": 3 << 30,
        "frozen_time_us": 912_345,
        "stats": {"pages_written": 786_432},
        "journal": "000001.jsonl",
        "journal_offset": 77,
        "external": (ExternalFile("/usr/lib/libc.so.6", 1_900_000, 123, 0o100755, "ab" * 20),),
    }
    return ManifestFields(**known | changes)


def fill(draft: Draft, files: dict[str, bytes] = FILES) -> None:
    """Put files into a draft as a dump would."""
    draft.packs.mkdir(mode=0o700, exist_ok=True)
    for name, data in files.items():
        (draft.path / name).write_bytes(data)
    draft.dump_log.write_text("(00.1) Dumping finished successfully\n")


def add(store: Store, *, run: str = "run-1", trigger: str = "timer", **changes: Any) -> Snapshot:
    """A complete snapshot."""
    draft = store.new_draft(run, trigger)
    fill(draft)
    return draft.publish(facts(**changes))


def take(store: Store, plain: Path, **changes: Any) -> Snapshot:
    """A snapshot as a dump makes it, its large images in packs."""
    plain.mkdir(exist_ok=True)
    for name, data in LARGE.items():
        (plain / name).write_bytes(data)
    draft = store.new_draft("run-1", "timer")
    for name, data in SMALL.items():
        (draft.images / name).write_bytes(data)
    (draft.files / digest_bytes(BLOB)).write_bytes(BLOB)
    (draft.path / "listing.json").write_bytes(b"{}")
    (draft.images / "stats-dump").write_bytes(b"figures")
    draft.dump_log.write_text("(00.1) Dumping finished successfully\n")
    with closing(PlainFiles([plain / name for name in LARGE])) as memory:
        pack(Captured(tuple(memory.images), {}, memory), draft.path, store.earlier(), pace=Steady())
    return draft.publish(facts(step=7, **changes), log_ended=True)


def many(store: Store, count: int) -> None:
    """So many snapshots with manifests as long as real ones, 40 KB each: 300 libraries, 70 files (shared by links)."""
    images = {f"images/core-{1700 + number}.img": b"x" for number in range(40)}
    blobs = {f"files/{digest_bytes(b'%d' % number)}": b"%d" % number for number in range(20)}
    packs = {f"packs/{digest_bytes(b'%d' % number)}": b"%d" % number for number in range(8)}
    libraries = tuple(
        ExternalFile(f"/usr/lib/python3/dist-packages/torch/lib/lib{n:04d}.so", n, n * 10**15, 0o100644, "ab" * 20)
        for n in range(300)
    )
    flags = tuple(f"flag{number}" for number in range(120))
    draft = store.new_draft("run-1", "timer")
    fill(draft, {"listing.json": b"{}", "pages.index": b"index"} | images | blobs | packs)
    sample = draft.publish(facts(external=libraries, cpu=Cpu("x86_64", "A Processor", flags), step=1))
    assert sample.manifest is not None
    for sequence in range(2, count + 1):
        path = sample.path.with_name(f"20261121T204512Z-{sequence:06d}")
        path.mkdir(mode=0o700)
        for name in ("images", "files", "packs"):
            (path / name).symlink_to(sample.path / name)
        for name in ("listing.json", "pages.index"):
            (path / name).hardlink_to(sample.path / name)
        manifest = replace(sample.manifest, id=path.name, sequence=sequence, step=sequence).to_json()
        (path / "manifest.json").write_bytes(manifest)
        (path / "COMPLETE").write_text(digest_bytes(manifest) + "\n")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


class DyingDisk(Disk):
    """The process is killed when it reaches a point for the ``nth`` time."""

    def __init__(self, point: str, nth: int = 1) -> None:
        self.point, self.left = point, nth

    def reached(self, point: str) -> None:
        if point == self.point:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def die_at(point: str, root: Path, action: str, nth: int = 1) -> None:
    """In a process of its own ``publish`` a snapshot, or ``prune`` to one; it is killed at that point.

    A new interpreter, since a fork of one whose BLAKE3 has threads would wait for them for ever.
    """
    import criu_train

    product = Path(criu_train.__file__).parent.parent
    ended = subprocess.run(
        [sys.executable, __file__, point, str(root), action, str(nth)],
        env=os.environ | {"PYTHONPATH": str(product)},
        timeout=30,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL


def _die(point: str, root: str, action: str, nth: str) -> None:
    store = Store.open(Path(root), DyingDisk(point, int(nth)))
    if action == "publish":
        add(store)
    else:
        store.prune(1)


class FullDisk(Disk):
    """The ``nth`` fsync finds no room."""

    def __init__(self, nth: int) -> None:
        self.left = nth

    def fsync(self, path: Path) -> None:
        self.left -= 1
        if self.left == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        super().fsync(path)


class ForgetfulDisk(Disk, ABC):
    """Knows what a power cut would leave: only what was fsynced counts as being on the disk.

    After every operation ``look`` is called with a directory for each way in which the cut could come out: no names
    but the synced ones; all names, files without synced bytes empty; and the names of the top synced ones while those
    below are as they are now.
    """

    def __init__(self, top: Path, scratch: Path) -> None:
        self.top, self.scratch = top, scratch
        self.bytes: dict[int, bytes] = {}
        self.names: dict[int, dict[str, int]] = {}
        self.outcomes = 0
        self.lock = threading.Lock()

    @abstractmethod
    def look(self, left_by_the_cut: Path) -> None:
        """What must hold after a cut that left this."""

    def fsync(self, path: Path) -> None:
        super().fsync(path)
        self.remember(path)
        self.cut()

    def rename(self, old: Path, new: Path) -> None:
        super().rename(old, new)
        self.cut()

    def reached(self, point: str) -> None:
        self.cut()

    def remember(self, path: Path) -> None:
        inode = path.stat().st_ino
        if path.is_dir():
            self.names[inode] = {entry.name: entry.inode() for entry in os.scandir(path)}
        else:
            self.bytes[inode] = path.read_bytes()

    def remember_all(self) -> None:
        for parent, _, files in os.walk(self.top):
            self.remember(Path(parent))
            for name in files:
                self.remember(Path(parent, name))

    def cut(self) -> None:
        with self.lock:
            self._cut()

    def _cut(self) -> None:
        now, directories = {}, set()
        for parent, _, _ in os.walk(self.top):
            inode = Path(parent).stat().st_ino
            directories.add(inode)
            now[inode] = {entry.name: entry.inode() for entry in os.scandir(parent)}
        snapshots = (self.top / "snapshots").stat().st_ino
        tops = {self.top.stat().st_ino, snapshots}
        mixed = {inode: self.names.get(inode, {}) if inode in tops else names for inode, names in now.items()}
        for names in (self.names, now, mixed):
            shutil.rmtree(self.scratch, ignore_errors=True)
            self._lay_out(self.scratch, self.top.stat().st_ino, names, directories | set(self.names))
            self.look(self.scratch)
            self.outcomes += 1

    def _lay_out(self, at: Path, inode: int, names: dict[int, dict[str, int]], directories: set[int]) -> None:
        at.mkdir(mode=0o700)
        for name, child in names.get(inode, {}).items():
            if child in directories:
                self._lay_out(at / name, child, names, directories)
            else:
                (at / name).write_bytes(self.bytes.get(child, b""))


if __name__ == "__main__":
    _die(*sys.argv[1:])
