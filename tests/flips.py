"""Single bytes of a snapshot, by what they are part of, and turning them round."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from criu_train.archive.index import read_index
from criu_train.archive.pack import DIGEST_BYTES, FRAME, PackReader
from criu_train.store.blob import parse

NOTHING_IS_RESTORED_FROM = {
    "dump.log.zst": "what CRIU told while it dumped, for people",
    "images/stats-dump": "CRIU's figures about the dump, written when a last snapshot is complete already",
}


@dataclass(frozen=True)
class Spot:
    """One byte of a file of a snapshot, and what it is part of."""

    kind: str
    name: str
    offset: int

    def flip(self, snapshot: Path, by: int = 0xFF) -> None:
        """The second time puts it back."""
        with open(snapshot / self.name, "r+b") as file:
            file.seek(self.offset)
            byte = file.read(1)[0]
            file.seek(self.offset)
            file.write(bytes([byte ^ by]))


@dataclass(frozen=True)
class Frame:
    """A frame of a pack; ``used``: an image needs it. ``owners``: how many snapshots have the pack."""

    pack: str
    offset: int
    stored: int
    used: bool
    owners: int

    @property
    def kind(self) -> str:
        return f"{'used' if self.used else 'unused'} frame of {'a shared' if self.owners > 1 else 'its own'} pack"

    @property
    def middle(self) -> Spot:
        return Spot(self.kind, self.pack, self.offset + self.stored // 2)


def frames(snapshot: Path) -> Iterator[Frame]:
    """All frames of all packs of a snapshot."""
    index = read_index(snapshot)
    base = 0
    for entry in index.packs:
        with closing(PackReader(snapshot / "packs", entry)) as pack:
            owners = pack.path.stat().st_nlink
            for frame, first, offset in zip(pack.frames, pack.first_pages, pack.offsets, strict=True):
                begin, end = base + int(first), base + int(first) + int(frame["pages"])
                used = bool(((index.references >= begin) & (index.references < end)).any())
                yield Frame(f"packs/{entry.name}", int(offset), int(frame["stored"]), used, owners)
        base += entry.pages


def spots(snapshot: Path, chance: random.Random) -> Iterator[Spot]:
    """The first byte, the last and some in between of every file that counts, and of every part of a pack."""

    def some(kind: str, name: str, begin: int, end: int, count: int) -> Iterator[Spot]:
        within = range(begin + 1, end - 1)
        offsets = {begin, end - 1, *chance.sample(within, min(count, len(within)))}
        return (Spot(kind, name, offset) for offset in sorted(offsets))

    counts = {"manifest.json": 25, "COMPLETE": 20, "listing.json": 15, "pages.index": 25}
    for name in files(snapshot):
        if not name.startswith("packs/"):
            yield from some(_kind(name), name, 0, (snapshot / name).stat().st_size, counts.get(name, 2))
    for frame in frames(snapshot):
        yield from some(frame.kind, frame.pack, frame.offset, frame.offset + frame.stored, 1)
    for entry in read_index(snapshot).packs:
        name = f"packs/{entry.name}"
        with closing(PackReader(snapshot / "packs", entry)) as pack:
            records = int(pack.frames["stored"].sum())
            digests = records + len(pack) * FRAME.itemsize
            footer = digests + DIGEST_BYTES * entry.pages
        yield from some("records of a pack", name, records, digests, 3)
        yield from some("page digests of a pack", name, digests, footer, 3)
        yield from some("footer of a pack", name, footer, entry.size, 3)


def files(snapshot: Path) -> list[str]:
    """Every file with a byte in it that something is restored from."""
    found = (path for path in snapshot.rglob("*") if path.is_file() and path.stat().st_size)
    names = (str(path.relative_to(snapshot)) for path in found)
    return sorted(name for name in names if name not in NOTHING_IS_RESTORED_FROM)


def _kind(name: str) -> str:
    directory, _, rest = name.rpartition("/")
    if directory == "files":
        blob = parse(rest)
        assert blob is not None
        return "compressed blob" if blob.is_compressed else "plain blob"
    return "small image" if directory == "images" else name
