"""When a file was born, which Python's stat does not tell on Linux."""

from __future__ import annotations

import ctypes
import os
import struct

_AT_FDCWD = -100
_AT_SYMLINK_NOFOLLOW = 0x100
_STATX_BTIME = 0x800
_MASK = struct.Struct("=I")
_BTIME = struct.Struct("=qI")
_BTIME_OFFSET = 80  # in struct statx: behind stx_atime, which is at 64 and 16 bytes long

_libc = ctypes.CDLL(None, use_errno=True)


def born_ns(path: str) -> int | None:
    """Nanoseconds since the epoch; None where the filesystem doesn't keep it or the path is gone."""
    buffer = ctypes.create_string_buffer(256)
    if _libc.statx(_AT_FDCWD, os.fsencode(path), _AT_SYMLINK_NOFOLLOW, _STATX_BTIME, buffer) != 0:
        return None
    if not _MASK.unpack_from(buffer)[0] & _STATX_BTIME:
        return None
    seconds, nanoseconds = _BTIME.unpack_from(buffer, _BTIME_OFFSET)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)
