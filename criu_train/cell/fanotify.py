"""The three system calls of fanotify and file handles, by ctypes, and the layout of the events they give.

Only what watch.py needs: notification of names (directory handle + name), never of permission. Standard library only.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
import termios
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

ATTRIB = 0x4
MODIFY = 0x2
CLOSE_WRITE = 0x8
MOVED_FROM = 0x40
MOVED_TO = 0x80
CREATE = 0x100
DELETE = 0x200
Q_OVERFLOW = 0x4000
EVENT_ON_CHILD = 0x08000000
RENAME = 0x10000000
ONDIR = 0x40000000

_WRITING = MODIFY | CLOSE_WRITE | ATTRIB

INFO_OLD_NAME = 10
INFO_NEW_NAME = 12

_CLASS_NOTIF_CLOEXEC_NONBLOCK = 0x1 | 0x2
_UNLIMITED_QUEUE = 0x10
_UNLIMITED_MARKS = 0x20
_REPORT_DIR_FID_NAME = 0x400 | 0x800
_MARK_ADD, _MARK_REMOVE = 0x1, 0x2
_MARK_ONLYDIR_DONT_FOLLOW = 0x8 | 0x4
_MARK_FILESYSTEM = 0x100
_MARK_IGNORED = 0x20 | 0x40  # and still so after the file was written to
_AT_FDCWD = -100
_AT_HANDLE_FID = 0x200
_HANDLE_MAX = 128

_METADATA = struct.Struct("=IBBHQii")
_INFO = struct.Struct("=BBH")
_HANDLE = struct.Struct("=Ii")

_libc = ctypes.CDLL(None, use_errno=True)


class Name(NamedTuple):
    """One name an event speaks of: ``key`` is filesystem id and directory handle as they lie in the event."""

    info: int
    key: bytes
    name: bytes


class Event(NamedTuple):
    """``pid`` is as the reader's PID namespace numbers it; 0 stands for a process outside of it."""

    mask: int
    pid: int
    names: list[Name]


@dataclass(frozen=True)
class Mount:
    """A place where a filesystem is mounted, with the id that events carry."""

    path: str
    fsid: bytes
    whole: bool  # the filesystem's own root, not a bind mount of a part


def init() -> int:
    """A notification group that reports directory handles and names; raises OSError where the kernel has none."""
    flags = _CLASS_NOTIF_CLOEXEC_NONBLOCK | _UNLIMITED_QUEUE | _UNLIMITED_MARKS | _REPORT_DIR_FID_NAME
    return _check(_libc.fanotify_init(flags, os.O_RDONLY | os.O_LARGEFILE), "fanotify_init")


def mark_filesystem(group: int, path: str, mask: int) -> None:
    """Ask for events of the whole filesystem that ``path`` lies on."""
    _mark(group, _MARK_ADD | _MARK_FILESYSTEM, mask, path)


def mark_directory(group: int, path: str, mask: int) -> None:
    """Ask for events of one directory and what is directly in it."""
    _mark(group, _MARK_ADD | _MARK_ONLYDIR_DONT_FOLLOW, mask | EVENT_ON_CHILD, path)


def mute(group: int, file: int) -> None:
    """No more events of what is done to this open file's bytes and attributes, whoever does it."""
    _mark(group, _MARK_ADD | _MARK_IGNORED, _WRITING, f"/proc/self/fd/{file}")


def unmute(group: int, file: int) -> None:
    """Events of this open file again."""
    _mark(group, _MARK_REMOVE | _MARK_IGNORED, _WRITING, f"/proc/self/fd/{file}")


def directory_key(path: str, fsid: bytes) -> bytes:
    """The key that events in this directory carry (also on filesystems whose handles can't be opened)."""
    buffer = ctypes.create_string_buffer(_HANDLE.size + _HANDLE_MAX)
    mount_id = ctypes.c_int()
    for flag in (_AT_HANDLE_FID, 0):
        _HANDLE.pack_into(buffer, 0, _HANDLE_MAX, 0)
        if _libc.name_to_handle_at(_AT_FDCWD, os.fsencode(path), buffer, ctypes.byref(mount_id), flag) == 0:
            length = _HANDLE.unpack_from(buffer)[0]
            return fsid + buffer.raw[: _HANDLE.size + length]
    raise OSError(ctypes.get_errno(), "name_to_handle_at", path)


def open_directory(mount: Mount, key: bytes) -> int:
    """An O_PATH descriptor of the directory that ``key`` names; OSError when it is gone or can't be opened so."""
    # Opened only for this: a descriptor kept would keep the filesystem from being unmounted.
    top = os.open(mount.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return _check(_libc.open_by_handle_at(top, key[8:], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), "handle")
    finally:
        os.close(top)


def filesystem_id(fd: int) -> bytes:
    """``f_fsid`` as fanotify reports it."""
    buffer = ctypes.create_string_buffer(256)
    _check(_libc.fstatfs(fd, buffer), "fstatfs")
    return buffer.raw[56:64]  # struct statfs: seven 8-byte fields before it, on every 64-bit Linux


def queued_at_most(group: int) -> int:
    """No more events than this are waiting to be read."""
    buffer = bytearray(4)
    fcntl.ioctl(group, termios.FIONREAD, buffer)
    return int.from_bytes(buffer, "little") // _METADATA.size


def parse(data: bytes) -> Iterator[Event]:
    """The events of one read()."""
    offset = 0
    while offset < len(data):
        length, _, _, metadata, mask, _, pid = _METADATA.unpack_from(data, offset)
        names = []
        at, end = offset + metadata, offset + length
        while at < end:
            info, _, size = _INFO.unpack_from(data, at)
            handle_bytes = _HANDLE.unpack_from(data, at + 12)[0]
            handle_end = at + 12 + _HANDLE.size + handle_bytes
            name = data[handle_end : at + size]
            names.append(Name(info, data[at + 4 : handle_end], name[: name.find(b"\0")]))
            at += size
        yield Event(mask, pid, names)
        offset = end


def _mark(group: int, flags: int, mask: int, path: str) -> None:
    _check(_libc.fanotify_mark(group, flags, ctypes.c_uint64(mask), _AT_FDCWD, os.fsencode(path)), path)


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result
