"""What a packing came to, as the supervisor hears of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Packed:
    """Sizes in bytes, the rest counts. Of all ``pages`` some are zero, some are the same as others of this capture,
    some lie in earlier packs (``known_pages``); only ``new_pages`` were written, as ``added_bytes``."""

    raw_bytes: int
    pages: int
    zero_pages: int
    duplicate_pages: int
    known_pages: int
    new_pages: int
    added_bytes: int
    packs: int
    compressed: bool
