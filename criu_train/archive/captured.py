"""What a capture holds: CRIU's images, in memory that nobody else writes to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

PAGE = 4096
# Images that grow with the memory of the tree; all others stay files as CRIU writes them.
_LARGE = ("pages-", "ghost-file-")


def is_large(name: str) -> bool:
    """Whether an image is packed rather than kept as the file that CRIU writes."""
    return name.startswith(_LARGE)


@dataclass(frozen=True, slots=True)
class Extent:
    """A stretch of captured memory. ``offset`` is a multiple of PAGE, ``length`` (bytes) only where more follows."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class CapturedImage:
    """One large image: its extents in order, ``size`` bytes in all."""

    name: str
    size: int
    extents: tuple[Extent, ...]


class Memory(Protocol):
    """Where extents lie."""

    def view(self, extent: Extent) -> memoryview:
        """The bytes of an extent, not copied. Rounded up to PAGE, what follows the last byte is zeros."""
        ...


@dataclass(frozen=True)
class Captured:
    """A whole capture: the large images, the small ones by name, and how much had to go to the disk (bytes)."""

    large: tuple[CapturedImage, ...]
    small: Mapping[str, bytes]
    memory: Memory
    spilled: int = 0
