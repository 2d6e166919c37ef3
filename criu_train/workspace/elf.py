"""The build-id of an ELF file: the linker's own name for one exact build."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

_HEADER = struct.Struct("<16x2H5I6H")  # ELF, 32 bits
_HEADER_64 = struct.Struct("<16x2HI3QI6H")
_PT_NOTE = 4
_NT_GNU_BUILD_ID = 3
_MOST = 1 << 16  # no honest program header table or note is larger


def build_id(path: Path) -> str | None:
    """The build-id in hexadecimal; None for files without one, or that are no little-endian ELF, or can't be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        for offset, size in _notes(descriptor):
            for kind, name, value in _parse_notes(os.pread(descriptor, min(size, _MOST), offset)):
                if kind == _NT_GNU_BUILD_ID and name == b"GNU\0":
                    return value.hex()
    except (OSError, struct.error, OverflowError):
        return None
    finally:
        os.close(descriptor)
    return None


def _notes(descriptor: int) -> Iterator[tuple[int, int]]:
    """Offset and size of every note segment."""
    start = os.pread(descriptor, 64, 0)
    if start[:4] != b"\x7fELF" or start[5:6] != b"\x01":
        return
    wide = start[4:5] == b"\x02"
    header = (_HEADER_64 if wide else _HEADER).unpack_from(start)
    table_at, entry_size, count = header[4], header[8], header[9]
    entry = struct.Struct("<II4QQQ" if wide else "<8I")
    table = os.pread(descriptor, min(entry_size * count, _MOST), table_at)
    for index in range(count):
        fields = entry.unpack_from(table, index * entry_size)
        # 64 bits: type, flags, offset, address, address, size in file; 32 bits: type, offset, address, address, size.
        if fields[0] == _PT_NOTE:
            yield (fields[2], fields[5]) if wide else (fields[1], fields[4])


def _parse_notes(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Type, name and value of each note."""
    at = 0
    while at + 12 <= len(data):
        name_size, value_size, kind = struct.unpack_from("<3I", data, at)
        name_at = at + 12
        value_at = name_at + (name_size + 3) // 4 * 4
        yield kind, data[name_at : name_at + name_size], data[value_at : value_at + value_size]
        at = value_at + (value_size + 3) // 4 * 4
