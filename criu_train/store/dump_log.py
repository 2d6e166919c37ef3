"""CRIU's log of a dump: plain as long as the dump may fail, compressed once the snapshot is complete."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from criu_train.store.snapshot import COMPRESSED_LOG, DUMP_LOG


def compress_log(snapshot: Path) -> None:
    """Write the compressed log beside the plain one, which stays; without a log nothing happens. Raises OSError."""
    log = snapshot / DUMP_LOG
    if log.exists():
        from criu_train.store.zstd import open_zstd

        with log.open("rb") as plain, open_zstd(snapshot / COMPRESSED_LOG, "wb") as packed:
            shutil.copyfileobj(plain, packed)


def read_log(snapshot: Path) -> str:
    """The log of a complete snapshot or of a draft; empty where there is none that can be read."""
    with suppress(OSError):
        return (snapshot / DUMP_LOG).read_text(errors="replace")
    from criu_train.store.zstd import open_zstd

    # Damaged ones too are no reason to fail: nothing is restored from a log.
    with suppress(Exception), open_zstd(snapshot / COMPRESSED_LOG, "rb") as packed:
        return packed.read().decode(errors="replace")
    return ""
