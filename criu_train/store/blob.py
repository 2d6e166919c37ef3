"""What blobs, the pieces of saved files, are called: by what they hold, and by what lies on the disk.

A plain blob is named by the digest of its content. A compressed one (zstd) is named ``CONTENT.SIZE.STORED``: the digest
of its content, and size in bytes and digest of the file itself. So is a sealed one, compressed or not: a first byte
within the seal tells.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from criu_train.store.digest import is_digest
from criu_train.store.seal import Bytes, Seal

RAW, ZSTD = 0, 1


class BlobName(NamedTuple):
    """``size`` is None for a plain blob, whose file has the size of its content; then ``stored`` is ``content``."""

    content: str
    size: int | None
    stored: str

    @property
    def is_compressed(self) -> bool:
        return self.size is not None


def compressed_name(content: str, size: int, stored: str) -> str:
    """The name of a compressed blob."""
    return f"{content}.{size}.{stored}"


def seal_blob(data: Bytes, content: str, codec: int, seal: Seal) -> Bytes:
    """A blob's file; ``content``: the digest of what is in it, not compressed."""
    return seal.seal(bytes([codec]) + data, f"blob {content}")


def unseal_blob(stored: Bytes, content: str, seal: Seal) -> tuple[int, memoryview]:
    """How it is compressed, and the data. Raises SealError."""
    data = memoryview(seal.unseal(stored, f"blob {content}"))
    return data[0] if data else RAW, data[1:]


def parse(name: str) -> BlobName | None:
    """None when it is no blob's name."""
    if is_digest(name):
        return BlobName(name, None, name)
    parts = name.split(".")
    if len(parts) != 3 or not (is_digest(parts[0]) and parts[1].isdecimal() and is_digest(parts[2])):
        return None
    return BlobName(parts[0], int(parts[1]), parts[2])


def blobs_in(directory: Path) -> dict[str, str]:
    """The file names of all blobs by what they hold; empty where there is no directory. Raises OSError."""
    try:
        names = os.listdir(directory)  # noqa: PTH208
    except FileNotFoundError:
        return {}
    return {blob.content: name for name in names if (blob := parse(name)) is not None}
