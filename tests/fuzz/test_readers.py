"""Whatever lies in a store, or comes from CRIU: readers tell what is wrong with it, and nothing worse happens.

Ten thousand spoiled inputs a reader, the same ones each time. Where a checksum protects an input it is made to fit, as
somebody would who means harm.
"""

from __future__ import annotations

import json
import random
import resource
import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from blake3 import blake3
from criu_samples import images_directory
from mutations import spoiled_bytes, spoiled_json
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from store_samples import add

from criu_train.archive.damage import DamagedError
from criu_train.archive.index import NAME, PagesIndex, read_index
from criu_train.archive.pack import FRAME_BYTES, PackEntry, PackReader
from criu_train.criu import stream
from criu_train.criu.connections import FILES
from criu_train.criu.find import find_criu
from criu_train.criu.images import Images
from criu_train.errors import CriuTrainError, RestoreFailedError, StoreError
from criu_train.store.events import EventLog
from criu_train.store.layout import StoreLayout
from criu_train.store.manifest import Manifest, Summary
from criu_train.store.seal import KeyedSeal, SealError
from criu_train.store.shape import misfit
from criu_train.store.snapshot import Snapshot
from criu_train.store.state import StoreState
from criu_train.store.store import Store
from criu_train.supervisor.metrics import Metrics
from criu_train.supervisor.reconnecting import reconnect_here
from criu_train.supervisor.state import read_state
from criu_train.workspace.journal import read_records
from criu_train.workspace.listing import Entry, Listing, Part, read_listing, write_listing

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

COUNT = 10_000
MEMORY = 1 << 30


@pytest.fixture(autouse=True)
def bounded_memory() -> Iterator[None]:
    """What would take more than a GiB beyond what there is fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def survives(read: Callable[[bytes], object], inputs: Iterable[bytes], *told: type[Exception]) -> None:
    """Each input is read, or refused by one of these."""
    refused = 0
    for data in inputs:
        try:
            read(data)
        except told:
            refused += 1
        except Exception as error:
            pytest.fail(f"{type(error).__name__}: {error}\n{data[:2000]!r}")
    assert refused > COUNT // 100, "hardly anything was refused: were the inputs spoiled at all?"


@pytest.fixture
def snapshot(tmp_path: Path) -> Snapshot:
    return add(Store.create_or_open(tmp_path / "store"))


def test_manifests(snapshot: Snapshot) -> None:
    def read(data: bytes) -> None:
        Summary.from_json(data)
        told = Manifest.from_json(data)
        if misfit(told) is None:
            told.to_json()

    valid = (snapshot.path / "manifest.json").read_bytes()
    survives(read, spoiled_json(valid, COUNT, 1), StoreError)


def test_the_stores_own_state(snapshot: Snapshot) -> None:
    valid = (snapshot.path.parents[1] / "store.json").read_bytes()
    survives(StoreState.from_json, spoiled_json(valid, COUNT, 2), StoreError)


def test_what_a_supervisor_said_of_itself(tmp_path: Path) -> None:
    path = tmp_path / "supervisor.json"
    valid = b'{"state": "running", "supervisor_pid": 12, "init_pid": 13, "supervisor_started": 1.5, "control": "/x"}'
    for data in spoiled_json(valid, COUNT, 3):
        path.write_bytes(data)
        if (state := read_state(path)) is not None:
            state.supervisor_alive()
            state.cell_alive()


def test_the_log_of_events_that_metrics_are_counted_from(tmp_path: Path) -> None:
    layout = StoreLayout(tmp_path)
    valid = (
        b'{"at": "2026-11-21T20:45:22.345Z", "event": "dumped", "run": "a", "snapshot": "20261121T204520Z-000001", '
        b'"trigger": "timer", "step": 7, "seconds": 2.5, "frozen_time_us": 120000, "memory_bytes": 9}'
    )
    for number, data in enumerate(spoiled_json(valid, COUNT // 20, 20)):
        layout.events.write_bytes(data + b'\n{"event": "finished", "exit_code": 0}\n')
        metrics = Metrics(layout)
        for event in EventLog(layout.events).read():
            metrics.hear(event)
        told = generate_latest(metrics.registry).decode()
        assert "criu_train_snapshots_total" in told, (number, data)
        for _ in text_string_to_metric_families(told):
            pass


def test_listings(tmp_path: Path) -> None:
    path = tmp_path / "listing.json"
    entry = Entry("/a/b", "file", "workspace", 0o644, 0, 0, 7, 1, 2, 3, 4, (Part("0" * 64, 7),))
    write_listing(Listing(1, "boot", ("/a",), (entry,), (replace(entry, path="/dev/shm/link_remap.1"),)), path)

    def read(data: bytes) -> None:
        path.write_bytes(data)
        read_listing(path)

    survives(read, spoiled_json(path.read_bytes(), COUNT, 4), StoreError)


def test_journals(tmp_path: Path) -> None:
    path = tmp_path / "000001.jsonl"
    valid = (
        b'{"what": ["start"], "at": 1, "boot": "x"}\n{"who": "ours", "what": ["make"], "path": "/a", "dir": true}\n' * 5
    )
    for data in spoiled_bytes(valid, COUNT, 5):
        path.write_bytes(data)
        for record in read_records(path, 0):
            assert isinstance(record["what"], list)


def test_sealed_pieces() -> None:
    seal = KeyedSeal(bytes(32))
    valid = bytes(seal.seal(b"a page of the training" * 20, "here"))

    def read(data: bytes) -> None:
        assert seal.unseal(data, "here") == b"a page of the training" * 20

    survives(read, spoiled_bytes(valid, COUNT, 20), SealError)


@pytest.fixture
def archived(tmp_path: Path) -> Path:
    from archive_samples import packed, pages

    directory = tmp_path / "snapshot"
    packed(directory, {"pages-1.img": pages(*range(40), 3, 4, 0, 0), "ghost-file-1.img": pages(5, 77, "x")})
    return directory


def test_indexes_whose_checksum_fits(archived: Path) -> None:
    path = archived / NAME
    valid = path.read_bytes()[:-32]

    def read(data: bytes) -> None:
        path.write_bytes(data + blake3(data).digest())
        found: PagesIndex = read_index(archived)
        found.by_image()

    survives(read, spoiled_bytes(valid, COUNT, 6), DamagedError)


def test_packs_whose_checksums_fit(archived: Path) -> None:
    (entry,) = read_index(archived).packs
    path = archived / "packs" / entry.name
    valid, buffer = path.read_bytes(), memoryview(bytearray(FRAME_BYTES))
    chance = random.Random(7)

    def read(data: bytes) -> None:
        path.write_bytes(data)
        tail = data[-min(len(data), chance.choice((entry.size, 2000, 900, 700, 100))) :]
        claimed = PackEntry(**asdict(entry) | {"size": len(data), "tail": blake3(tail).hexdigest()[: len(entry.tail)]})
        for one in (claimed, replace(entry, size=len(data))):
            with closing(PackReader(path.parent, one)) as reader:
                for number in range(len(reader)):
                    reader.load(number, buffer)

    survives(read, spoiled_bytes(valid, COUNT, 7), DamagedError)


def test_requests_of_criu() -> None:
    body = b"\x0a\x09pages.img"
    valid = (struct.pack("<I", len(body)) + body) * 2

    def read(data: bytes) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.sendall(data)
            theirs.shutdown(socket.SHUT_WR)
            while (name := stream.receive_name(ours)) is not None:
                assert "/" not in name

    survives(read, spoiled_bytes(valid, COUNT, 8), stream.StreamError)


@pytest.mark.criu
@pytest.mark.parametrize("name", ["files", "pstree", "mm", "core", "ids", "fdinfo", "remap-fpath"])
def test_images(tmp_path: Path, name: str) -> None:
    directory = images_directory(tmp_path)
    path = min(directory.glob(f"{name}*.img"))
    pycriu = find_criu().pycriu

    def read(data: bytes) -> None:
        path.write_bytes(data)
        images = Images(directory, pycriu)
        for task in images.tasks():
            images.maps(task.pid)
            images.descriptors(task.pid)
        images.files(), images.link_remaps(), images.unix_paths(), images.dump_stats()
        assert isinstance(images.devices(), tuple) and isinstance(images.dirs, tuple)

    survives(read, spoiled_bytes(path.read_bytes(), COUNT // 5, 9), CriuTrainError)


@pytest.mark.criu
def test_files_that_are_rewritten_for_a_restore(tmp_path: Path, snapshot: Snapshot) -> None:
    directory = images_directory(tmp_path)
    valid, pycriu = (directory / FILES).read_bytes(), find_criu().pycriu

    def read(data: bytes) -> None:
        (snapshot.images / FILES).write_bytes(data)
        reconnect_here(snapshot, pycriu, "close-external", {"/a": "/b"})

    survives(read, spoiled_bytes(valid, COUNT // 5, 10), RestoreFailedError)


def test_what_is_spoiled_is_spoiled() -> None:
    valid = json.dumps({"a": [1, 2, {"b": "c"}]}).encode()
    assert sum(data != valid for data in spoiled_json(valid, 100, 1)) > 90
    assert sum(data != valid for data in spoiled_bytes(valid, 100, 1)) > 90
