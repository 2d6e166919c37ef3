"""Which files are under a write lease, as the kernel tells it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from criu_train.workspace.leases import write_leases


def test_a_write_lease_is_found_and_other_locks_are_none(tmp_path: Path) -> None:
    held = []
    for name in ("leased", "read", "locked"):
        (tmp_path / name).touch()
        held.append(os.open(tmp_path / name, os.O_RDONLY if name == "read" else os.O_RDWR))
    fcntl.fcntl(held[0], fcntl.F_SETLEASE, fcntl.F_WRLCK)
    fcntl.fcntl(held[1], fcntl.F_SETLEASE, fcntl.F_RDLCK)
    fcntl.flock(held[2], fcntl.LOCK_EX)
    info = {name: (tmp_path / name).stat() for name in ("leased", "read", "locked")}
    found = write_leases()
    assert {name for name in info if (info[name].st_dev, info[name].st_ino) in found} == {"leased"}
    for fd in held:
        os.close(fd)


def test_a_lease_that_is_being_broken_counts_still() -> None:
    text = "1: POSIX  ADVISORY  WRITE 7 fe:00:12 0 EOF\n2: LEASE  BREAKING  WRITE 4711 fe:01:1179666 0 EOF\n"
    assert write_leases(text) == {(os.makedev(0xFE, 1), 1179666)}
