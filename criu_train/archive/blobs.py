"""Saved files are written as they are, so that nobody waits; here they are compressed, behind the training's back."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from blake3 import blake3

from criu_train.archive.packing import Pace
from criu_train.archive.zstd import compress
from criu_train.store.blob import RAW, ZSTD, compressed_name, parse, seal_blob, unseal_blob
from criu_train.store.digest import is_digest
from criu_train.store.seal import PLAIN, Seal

_LEAST = 1024  # smaller ones take up a block in either form
_GAIN = 0.9


def compress_blobs(directory: Path, pace: Pace, seal: Seal = PLAIN) -> None:
    """Replace plain blobs that no other snapshot has by compressed ones, where that saves a tenth or more.

    Sealed ones are sealed again. Nothing is made durable here, and nothing is lost: every blob is there all the time,
    in one form or the other.
    Raises OSError when the directory can't be read; a blob that gives trouble stays as it is.
    """
    paths = [directory / name for name in sorted(os.listdir(directory)) if _is_as_written(name, seal)]  # noqa: PTH208
    sizes = {path: info.st_size for path in paths if (info := path.lstat()).st_nlink == 1 and info.st_size >= _LEAST}
    left = sum(sizes.values())
    for path, size in sizes.items():
        level = pace.level(left, 1.0)
        if level is None:
            return
        with contextlib.suppress(OSError):
            _compress(path, level, seal)
        left -= size


def _is_as_written(name: str, seal: Seal) -> bool:
    """Of sealed ones it shows only inside."""
    return is_digest(name) if seal.is_plain else parse(name) is not None


def _compress(path: Path, level: int, seal: Seal) -> None:
    content = path.name.partition(".")[0]
    codec, data = (RAW, path.read_bytes()) if seal.is_plain else unseal_blob(path.read_bytes(), content, seal)
    if codec != RAW:
        return
    packed = compress(data, level)
    if len(packed) > _GAIN * len(data):
        return
    if not seal.is_plain:
        packed = bytes(seal_blob(packed, content, ZSTD, seal))
    target = path.with_name(compressed_name(content, len(packed), blake3(packed).hexdigest()))
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(packed)
        path.unlink()
    except BaseException:
        target.unlink()
        raise
