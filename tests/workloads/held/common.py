"""What all of them need."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable

Use = Callable[[int], object]

libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
kept: list[object] = []  # alive to the end
NEWNS, NEWPID, NEWNET, NEWIPC, NEWUTS, NEWUSER = 0x20000, 1 << 29, 1 << 30, 1 << 27, 1 << 26, 1 << 28


def must(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def nothing(_: int) -> None:
    """What is held can't be used."""


def child(life: Callable[[], object]) -> int:
    """A child that gets ready by living so far, and then waits to be killed."""
    ready, done = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(ready)
        try:
            life()
            os.write(done, b"x")
            os.close(done)
            while True:
                time.sleep(60)
        finally:
            os._exit(1)
    os.close(done)
    assert os.read(ready, 1) == b"x", "the child could not be made ready"
    os.close(ready)
    return pid


def stray(life: Callable[[], object]) -> None:
    """The same, but no child any more: it has left the tree."""

    def leave() -> None:
        child(life)
        os._exit(0)

    pid = os.fork()
    if pid == 0:
        leave()
    os.waitpid(pid, 0)
