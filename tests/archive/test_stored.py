"""Whatever is wrong in a snapshot's packs is noticed before a wrong byte is handed out."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from archive_samples import noise, pack_files, packed, page, pages, read_back, stream

from criu_train.archive import stored as stored_module
from criu_train.archive.captured import PAGE
from criu_train.archive.damage import DamagedError
from criu_train.archive.frame_file import FrameFile
from criu_train.archive.index import ZERO, read_index
from criu_train.archive.pack import FRAME_BYTES, PACKS, PackReader
from criu_train.archive.rebuild import rebuild
from criu_train.archive.stored import StoredPages
from criu_train.store.digest import digest_file
from criu_train.store.seal import PLAIN, KeyedSeal, Seal

IMAGES = {
    "pages-1.img": noise("a", 1500) + pages(*range(1, 2000, 2)),
    "pages-2.img": pages(1, 0, 3, 5) + noise("a", 700) + bytes(300 * PAGE),
    "ghost-file-1.img": noise("g", 1)[:1234],
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A snapshot with two packs, of the first of which some frames are not used any more."""
    top = tmp_path_factory.mktemp("sound")
    packed(top / "1", IMAGES | {"pages-3.img": noise("gone", 2200)})
    later = IMAGES | {"pages-3.img": noise("new", 10) + pages(3, 3, 0)}
    packed(top / "2", later, [top / "1"])
    assert read_back(top / "2") == later
    assert len(pack_files(top / "2")) == 2
    return top / "2"


@pytest.fixture
def snapshot(sound: Path, tmp_path: Path) -> Path:
    return shutil.copytree(sound, tmp_path / "snapshot")


def every_region(snapshot: Path) -> Iterator[tuple[Path, str, int, int]]:
    """(file, what lies there, from, to) over every byte of the packs and the index."""
    index = snapshot / "pages.index"
    yield index, "start", 0, 16
    yield index, "header and references", 16, index.stat().st_size - 32
    yield index, "digest", index.stat().st_size - 32, index.stat().st_size
    contents = read_index(snapshot)
    references = contents.references[contents.references != ZERO]
    base = 0
    for entry in contents.packs:
        reader = PackReader(snapshot / PACKS, entry)
        end = 0
        for frame, first, offset in zip(reader.frames, reader.first_pages, reader.offsets, strict=True):
            places = base + int(first), base + int(first) + int(frame["pages"])
            used = bool(((references >= places[0]) & (references < places[1])).any())
            end = int(offset) + int(frame["stored"])
            yield reader.path, "frame used" if used else "frame unused", int(offset), end
        yield reader.path, "index", end, entry.size - 32
        yield reader.path, "footer", entry.size - 32, entry.size
        base += entry.pages
        reader.close()


def test_a_flipped_byte_anywhere_is_noticed_before_a_wrong_byte_is_written(snapshot: Path, sound: Path) -> None:
    right = read_back(sound)
    chance, kinds, flips = random.Random(1), set(), 0
    for path, kind, start, end in list(every_region(snapshot)):
        kinds.add(kind)
        whole = path.read_bytes()
        for at in {start, end - 1, *(chance.randrange(start, end) for _ in range(24))}:
            flips += 1
            with path.open("r+b") as file:
                file.seek(at)
                file.write(bytes([whole[at] ^ 1 << chance.randrange(8)]))
            assert noticed(snapshot, right), f"byte {at} of {path.name} ({kind})"
            with path.open("r+b") as file:
                file.seek(at)
                file.write(whole[at : at + 1])
    assert kinds == {"start", "header and references", "digest", "frame used", "frame unused", "index", "footer"}
    assert flips >= 200
    assert read_back(snapshot) == right


def noticed(snapshot: Path, right: dict[str, bytes]) -> bool:
    """Whether DamagedError is raised by opening, checking or streaming, and all that is written before is right."""
    try:
        stored = StoredPages.open(snapshot)
    except DamagedError:
        return True
    with closing(stored):
        try:
            stored.check_unused()
        except DamagedError:
            return True
        found = False
        for name in stored.names:
            data = bytearray()
            try:
                stored.stream(name, data.extend)
            except DamagedError:
                found = True
            assert right[name].startswith(bytes(data))
            assert found or data == right[name]
        return found


@pytest.mark.parametrize("size", [0, 1, 31, 32, 5000, -1, -32, -5000])
def test_a_truncated_pack_is_refused(snapshot: Path, size: int) -> None:
    for path in pack_files(snapshot):
        data = path.read_bytes()
        path.write_bytes(data[:size])
        with pytest.raises(DamagedError) as refused:
            StoredPages.open(snapshot)
        assert str(path) in str(refused.value)
        path.write_bytes(data)
    StoredPages.open(snapshot).close()


def test_an_extended_pack_is_refused(snapshot: Path) -> None:
    for path in pack_files(snapshot):
        with path.open("ab") as file:
            file.write(b"x")
        with pytest.raises(DamagedError, match="bytes instead of"):
            StoredPages.open(snapshot)
        os.truncate(path, path.stat().st_size - 1)


def test_swapped_and_missing_packs_are_refused(snapshot: Path) -> None:
    one, two = pack_files(snapshot)
    one.rename(snapshot / "aside")
    with pytest.raises(DamagedError, match="No such file"):
        StoredPages.open(snapshot)
    two.rename(one)
    (snapshot / "aside").rename(two)
    with pytest.raises(DamagedError):
        StoredPages.open(snapshot)


def test_a_pack_of_the_same_form_with_other_pages_is_refused(tmp_path: Path) -> None:
    packed(tmp_path / "1", {"pages-1.img": noise("a", 5)})
    packed(tmp_path / "2", {"pages-1.img": noise("b", 5)})
    (mine,), (other,) = pack_files(tmp_path / "1"), pack_files(tmp_path / "2")
    shutil.copy(other, mine)
    with pytest.raises(DamagedError, match="checksum of its index"):
        StoredPages.open(tmp_path / "1")


@pytest.mark.parametrize("size", [0, 10, 47, -1])
def test_a_truncated_index_is_refused(snapshot: Path, size: int) -> None:
    path = snapshot / "pages.index"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DamagedError, match=r"pages\.index"):
        StoredPages.open(snapshot)


def test_an_index_that_the_manifest_does_not_know_is_refused(sound: Path) -> None:
    StoredPages.open(sound, digest_file(sound / "pages.index")).close()
    with pytest.raises(DamagedError, match="not the one in the manifest"):
        StoredPages.open(sound, "0" * 64)


@pytest.mark.parametrize("room", [True, False])
def test_an_image_that_is_a_shuffled_copy_streams_back_without_unpacking_a_frame_for_each_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: bool
) -> None:
    monkeypatch.setattr(stored_module, "_MEMORY", 3 * FRAME_BYTES)  # twelve are hopped between
    order = list(range(12_000))
    straight = noise("straight", len(order))
    random.Random(5).shuffle(order)
    mixed = b"".join(straight[at * PAGE : (at + 1) * PAGE] for at in order[:700])
    images = {"pages-1.img": straight, "pages-2.img": mixed}
    packed(tmp_path / "1", images)
    loads, load = Counter[int](), PackReader.load

    def counted(reader: PackReader, number: int, out: memoryview) -> int:
        loads[number] += 1
        return load(reader, number, out)

    monkeypatch.setattr(PackReader, "load", counted)
    if not room:
        monkeypatch.setattr(FrameFile, "keep", lambda *_: False)
    assert read_back(tmp_path / "1") == images
    assert len(loads) == 12
    assert (max(loads.values()) <= 8) == room


@pytest.mark.parametrize("seal", [PLAIN, KeyedSeal(bytes(32))], ids=["plain", "sealed"])
def test_pages_kept_on_the_disk_are_checked_and_leave_no_file(tmp_path: Path, seal: Seal) -> None:
    kept, stored = FrameFile(tmp_path, size=FRAME_BYTES, seal=seal), PAGE + seal.overhead
    frame = memoryview(noise("a", 1000))
    assert 3 not in kept
    assert kept.keep(3, frame)
    assert 3 in kept
    assert kept.read(3, 7 * PAGE, 2 * PAGE) == frame[7 * PAGE : 9 * PAGE]
    assert list(tmp_path.iterdir()) == []
    assert kept._file is not None
    assert (bytes(frame[:64]) in os.pread(kept._file.fileno(), FRAME_BYTES, 3 * 1024 * stored)) == seal.is_plain
    os.pwrite(kept._file.fileno(), b"?", (3 * 1024 + 8) * stored + 5)
    assert kept.read(3, 9 * PAGE, PAGE) == frame[9 * PAGE : 10 * PAGE]
    with pytest.raises(DamagedError):
        kept.read(3, 7 * PAGE, 2 * PAGE)
    kept.close()


def test_many_streams_at_once_give_each_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_module, "_MEMORY", 4 * FRAME_BYTES)
    shared = noise("shared", 6000)
    images = {f"pages-{n}.img": noise(n, 10) + shared[n * PAGE * 100 :] + pages(n, 0) for n in range(1, 9)}
    packed(tmp_path / "1", images)
    back: dict[str, bytes] = {}
    with closing(StoredPages.open(tmp_path / "1")) as stored:
        threads = [
            threading.Thread(target=lambda name=name: back.update({name: stream(stored, name)})) for name in images
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert back == images


def test_a_write_that_fails_ends_the_stream_and_nothing_else(sound: Path) -> None:
    def broken(data: memoryview) -> None:
        raise BrokenPipeError

    with closing(StoredPages.open(sound)) as stored:
        with pytest.raises(BrokenPipeError):
            stored.stream("pages-1.img", broken)
        assert stream(stored, "pages-1.img") == IMAGES["pages-1.img"]


def test_descriptors_are_closed_whatever_happens(snapshot: Path) -> None:
    before = os.listdir("/proc/self/fd")
    StoredPages.open(snapshot).close()
    os.truncate(pack_files(snapshot)[-1], 100)
    with contextlib.suppress(DamagedError):
        StoredPages.open(snapshot)
    assert os.listdir("/proc/self/fd") == before


def test_images_are_rebuilt_as_plain_files(sound: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    rebuild(sound, tmp_path, lambda done, total: told.append((done, total)))
    rebuilt = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert rebuilt == read_back(sound)
    assert told[-1][0] == told[-1][1] == sum(map(len, rebuilt.values()))
    assert page(3) in rebuilt["pages-1.img"]


def test_rebuilding_replaces_no_file(sound: Path, tmp_path: Path) -> None:
    (tmp_path / "pages-1.img").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        rebuild(sound, tmp_path)
    assert (tmp_path / "pages-1.img").read_bytes() == b"mine"
