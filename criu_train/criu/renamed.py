"""Open files that have another name at a restore: CRIU opens them by the path in ``files.img``, wherever that leads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from criu_train.criu.entries import pack, unpack
from criu_train.criu.schema import image_schema


def rename(data: bytes, pycriu: Path | None, names: Mapping[str, str]) -> bytes:
    """``files.img`` with new names for old ones; ``data`` itself where none of them is in it.

    Raises whatever protobuf raises when ``data`` is no such image.
    """
    if not names:
        return data
    entries = list(unpack(data, image_schema(pycriu).pb.file_entry))
    renamed = [one.reg for one in entries if one.HasField("reg") and one.reg.name in names]
    for regular in renamed:
        regular.name = names[regular.name]
    return pack(data, entries) if renamed else data
