"""BLAKE3 digests of files, on all cores.

Files are read, not mapped: a disk that fails while a mapping is read kills the reader with SIGBUS, while a read
fails with an error that can be told.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from blake3 import blake3

# Large enough for BLAKE3 to share among cores, small enough to stay in their caches.
_PIECE = 1 << 20
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)


def digest_bytes(data: bytes) -> str:
    """The digest as 64 hexadecimal digits."""
    return blake3(data).hexdigest()


def digest_file(path: Path, progress: Callable[[int], None] = lambda count: None) -> str:
    """The digest of a file's bytes; ``progress`` is told how many more were read. Raises OSError."""
    hasher = blake3(max_threads=blake3.AUTO)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        piece = memoryview(bytearray(min(_PIECE, os.fstat(descriptor).st_size + 1)))
        while count := file.readinto(piece):
            hasher.update(piece[:count])
            progress(count)
    return hasher.hexdigest()


def is_digest(text: str) -> bool:
    """Whether a name could be a digest."""
    return _DIGEST.fullmatch(text) is not None
