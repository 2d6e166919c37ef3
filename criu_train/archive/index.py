"""``pages.index``: how the large images of a snapshot are put together from pages in packs.

magic, version, length of the header
header        JSON: the packs in order, the images in order
references    one number a page over all images: its place in the packs, counted through in order, or ZERO.
              As difference to "the one after the previous", split into byte planes, zstd
digest        BLAKE3 of everything before
"""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from criu_train.archive.captured import PAGE, is_large
from criu_train.archive.damage import DamagedError
from criu_train.archive.pack import PackEntry
from criu_train.archive.zstd import ZstdError, compress, decompress_into
from criu_train.store.digest import is_digest
from criu_train.store.durable import write_atomic
from criu_train.store.seal import PLAIN, Seal, SealError, place_of

NAME = "pages.index"
ZERO = 0xFFFF_FFFF  # the reference of a page of zeros
_MAGIC = b"CRTRPAGE"
_VERSION = 1
_START = struct.Struct("<8sII")
_DIGEST = 32
_LEVEL = 9  # a hundredth of a second a GiB of images


@dataclass(frozen=True, slots=True)
class ImageEntry:
    """A large image: its name and its size in bytes."""

    name: str
    size: int

    @property
    def pages(self) -> int:
        """Pages it takes up, the last one filled up with zeros."""
        return -(-self.size // PAGE)


@dataclass(frozen=True)
class PagesIndex:
    """``references`` has one entry for each page of each image, in order."""

    packs: tuple[PackEntry, ...]
    images: tuple[ImageEntry, ...]
    references: NDArray[np.uint32]

    def by_image(self) -> dict[str, NDArray[np.uint32]]:
        """The references of each image, by its name."""
        ends = np.cumsum([image.pages for image in self.images])
        return {
            image.name: self.references[end - image.pages : end] for image, end in zip(self.images, ends, strict=True)
        }


def write_index(snapshot: Path, index: PagesIndex, seal: Seal = PLAIN) -> None:
    """Write it durably. Raises OSError."""
    header = json.dumps(
        {"packs": [asdict(pack) for pack in index.packs], "images": [asdict(image) for image in index.images]}
    ).encode()
    data = b"".join([_START.pack(_MAGIC, _VERSION, len(header)), header, _packed(index.references)])
    data += blake3(data).digest()
    write_atomic(snapshot / NAME, bytes(seal.seal(data, place_of(snapshot, NAME))))


def read_index(snapshot: Path, digest: str | None = None, seal: Seal = PLAIN) -> PagesIndex:
    """Read and check it; ``digest``: what the manifest says of the whole file. Raises DamagedError."""
    path = snapshot / NAME
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DamagedError.unreadable(path, error) from error
    if digest is not None and blake3(data).hexdigest() != digest:
        raise DamagedError(path, "has changed: its checksum is not the one in the manifest")
    try:
        data = bytes(seal.unseal(data, place_of(snapshot, NAME)))
    except SealError as error:
        raise DamagedError(path, "was not sealed with this key, or has changed since") from error
    if len(data) < _START.size + _DIGEST or blake3(data[:-_DIGEST]).digest() != data[-_DIGEST:]:
        raise DamagedError(path, "has changed: its checksum is wrong")
    magic, version, length = _START.unpack_from(data)
    if (magic, version) != (_MAGIC, _VERSION):
        raise DamagedError(path, f"is of version {version}, which this criu-train can't read")
    try:
        header = json.loads(data[_START.size : _START.size + length])
        packs = tuple(PackEntry(**entry) for entry in header["packs"])
        images = tuple(ImageEntry(**entry) for entry in header["images"])
        references = _unpacked(data[_START.size + length : -_DIGEST], sum(image.pages for image in images))
        _check(packs, images, references)
    except (ValueError, TypeError, KeyError, ZstdError) as error:
        raise DamagedError(path, f"makes no sense: {error}") from error
    return PagesIndex(packs, images, references)


def _check(packs: tuple[PackEntry, ...], images: tuple[ImageEntry, ...], references: NDArray[np.uint32]) -> None:
    names = [image.name for image in images]
    if len(set(names)) != len(names) or not all(is_large(name) and "/" not in name for name in names):
        raise ValueError("names of images")
    if not all(is_digest(pack.name) for pack in packs):
        raise ValueError("names of packs")
    real = references[references != ZERO]
    if len(real) and int(real.max()) >= sum(pack.pages for pack in packs):
        raise ValueError("a page beyond the packs")


def _packed(references: NDArray[np.uint32]) -> bytes:
    steps = references.astype("<u4")
    steps[1:] -= references[:-1] + np.uint32(1)  # wraps around
    return compress(np.ascontiguousarray(steps.view(np.uint8).reshape(-1, 4).T).data, _LEVEL)


def _unpacked(data: bytes, pages: int) -> NDArray[Any]:
    planes = np.empty((4, pages), np.uint8)
    if decompress_into(data, planes.reshape(-1).data) != planes.size:
        raise ValueError("number of pages")
    steps = np.ascontiguousarray(planes.T).view("<u4").reshape(-1)
    steps[1:] += np.uint32(1)
    return np.cumsum(steps, dtype=np.uint32)
