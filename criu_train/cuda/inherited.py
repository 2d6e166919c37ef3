"""What a forked process has inherited of its parent's GPUs and can't use: CUDA does not survive fork().

CRIU could dump neither these descriptors nor these mappings (data loaders have them), and the driver takes care of the
parent's alone. So they are replaced by what CRIU carries: descriptors by an eventfd, which is what the driver puts into
their places in the parent, mappings by ordinary memory with the same content. Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from criu_train.cuda.ptrace import Seized, vdso

_DEVICE = "/dev/nvidia"
# The card's own registers, which are not to be read; everything else is main memory that the card sees as well.
_REGISTERS = re.compile(r"/dev/nvidia\d+$")
_MAP = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) (...). \S+ \S+ \S+ +(/dev/nvidia\S*)", re.MULTILINE)
# System calls and flags of x86-64.
_WRITE, _CLOSE, _MMAP, _MPROTECT, _PREAD, _EVENTFD2, _DUP3, _MEMFD_CREATE = 1, 3, 9, 10, 17, 290, 292, 319
_READ_WRITE, _MAP_PRIVATE_FIXED_ANONYMOUS = 3, 0x32
_KCMP, _KCMP_FILE = 312, 0
_CLOEXEC = os.O_CLOEXEC
_MFD_CLOEXEC = 1

_libc = ctypes.CDLL(None, use_errno=True)


class Mapping(NamedTuple):
    start: int
    length: int
    protection: int  # PROT_*
    path: str


def descriptors(pid: int) -> list[int]:
    """Descriptors of GPUs that ``pid`` holds (empty when it is gone)."""
    found = []
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{pid}/fd/{name}").startswith(_DEVICE):  # noqa: PTH115
                    found.append(int(name))
    return found


def mappings(pid: int) -> list[Mapping]:
    """Mappings of GPUs' devices that ``pid`` holds (empty when it is gone)."""
    text = ""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/maps", errors="replace") as file:  # noqa: PTH123
        text = file.read()
    return list(_parse(text))


def is_all_inherited(pid: int) -> bool:
    """Whether an ancestor has the very same devices open; else ``pid`` has opened them itself, and may be about to use
    them. One that holds none has inherited all it has."""
    return all(any(_same_file(pid, one, number) for one in _ancestors(pid)) for number in descriptors(pid))


def let_go(pid: int) -> None:
    """Replace what it has inherited. Raises OSError when it can't be traced, or is gone."""
    files, areas = descriptors(pid), mappings(pid)
    if not files and not areas:
        return
    with Seized(pid) as thread, thread.calls() as call:
        if files:
            instead = call(_EVENTFD2, 0, _CLOEXEC)
            for number in files:
                call(_DUP3, instead, number, _CLOEXEC)
            call(_CLOSE, instead)
        name = vdso(pid)  # any text that ends will do: an ELF header's first bytes
        for area in areas:
            copy = call(_MEMFD_CREATE, name, _MFD_CLOEXEC)
            try:
                _replace(call, area, copy)
            finally:
                call(_CLOSE, copy)


def _ancestors(pid: int) -> Iterator[int]:
    with contextlib.suppress(OSError, IndexError):
        while pid > 1:
            with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
                pid = int(file.read().rpartition(b")")[2].split()[1])
            yield pid


def _same_file(pid: int, other: int, number: int) -> bool:
    return bool(_libc.syscall(_KCMP, pid, other, _KCMP_FILE, number, number) == 0)


def _replace(call: Callable[..., int], area: Mapping, copy: int) -> None:
    kept = 0
    if not _REGISTERS.match(area.path):
        with contextlib.suppress(OSError):  # what can't be read by the process itself was of no use to it
            while kept < area.length:
                kept += call(_WRITE, copy, area.start + kept, area.length - kept)
    call(_MMAP, area.start, area.length, _READ_WRITE, _MAP_PRIVATE_FIXED_ANONYMOUS, (1 << 64) - 1, 0)
    done = 0
    while done < kept:
        done += call(_PREAD, copy, area.start + done, kept - done, done)
    call(_MPROTECT, area.start, area.length, area.protection)


def _parse(maps: str) -> Iterator[Mapping]:
    for start, end, modes, path in _MAP.findall(maps):
        protection = sum(bit for bit, mode in zip((1, 2, 4), modes, strict=True) if mode != "-")
        yield Mapping(int(start, 16), int(end, 16) - int(start, 16), protection, path)
