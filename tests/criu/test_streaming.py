"""Real trees, dumped into the archive's process and restored out of it."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from trial import LIMIT_S, ROOT_PID, cell, lines, python, until

from criu_train.archive.archivist import Archivist
from criu_train.criu.command import dump_command, restore_command
from criu_train.criu.find import Criu

pytestmark = [pytest.mark.criu, pytest.mark.slow]

# Counts into a file, and sees at each count that its memory and its deleted file are still what they were.
TREE = """
import hashlib, os, random, sys, tempfile, time
memory = random.Random(1).randbytes(int(sys.argv[2]) << 20)
ghost = tempfile.TemporaryFile(dir=sys.argv[3])
ghost.write(random.Random(2).randbytes(int(sys.argv[4]) << 10))
ghost.flush()
def digest():
    return hashlib.blake2b(memory + os.pread(ghost.fileno(), 1 << 30, 0)).hexdigest()
right = digest()
count = 0
while True:
    count += 1
    word = count if digest() == right else "wrong"
    with open(sys.argv[1], "a") as log:
        log.write(f"{word}\\n")
    time.sleep(0.02)
"""


@asynccontextmanager
async def working(place: Path) -> AsyncIterator[Archivist]:
    (runtime := place / "run").mkdir()
    archivist = await Archivist.start(runtime, memory_limit=256 << 20)
    try:
        yield archivist
    finally:
        await archivist.close()


def tree(place: Path, *, memory_mib: int = 8, ghost_kib: int = 1000) -> list[str]:
    return python(TREE, str(place / "log"), str(memory_mib), str(place), str(ghost_kib))


async def test_a_tree_with_a_deleted_file_is_streamed_packed_and_streamed_back(criu: Criu, place: Path) -> None:
    log = place / "log"
    images = snapshot_at(place)
    async with working(place) as archivist:
        with cell("run", *tree(place)) as trial:
            await asyncio.to_thread(until, lambda: lines(log) > 3)
            directory = await archivist.listen(place / "spill")
            command = dump_command(
                criu,
                root_pid=ROOT_PID,
                images=directory,
                log=place / "dump.log",
                leave_running=False,
                lock_network=False,
                stream=True,
            )
            assert await asyncio.to_thread(trial.criu, command) == 0
            summary = await archivist.captured(images)
        assert summary.memory_bytes > 8 << 20
        assert summary.raw_bytes - summary.memory_bytes >= 1000 << 10
        await archivist.pack(place / "snapshot", [])
        assert (images / "stats-dump").exists()
        assert not list(images.glob("pages-*"))
        before = lines(log)

        directory = await archivist.serve(place / "snapshot", pytest.fail)
        command = restore_command(criu, images=directory, log=place / "restore.log", stream=True)
        with cell("restore", *command):
            await asyncio.to_thread(until, lambda: lines(log) > before + 3)
            await archivist.served()
            await archivist.end_serving()
    assert "wrong" not in log.read_text()


@pytest.mark.parametrize(
    ("memory_mib", "ghost_kib", "where"), [(64, 0, "page-xfer"), (1, 40_000, "ghost")], ids=["memory", "deleted file"]
)
async def test_a_dump_whose_reader_dies_fails_by_itself_and_the_tree_goes_on(
    criu: Criu, place: Path, memory_mib: int, ghost_kib: int, where: str
) -> None:
    log = place / "log"
    async with working(place) as archivist:
        with cell("run", *tree(place, memory_mib=memory_mib, ghost_kib=ghost_kib)) as trial:
            await asyncio.to_thread(until, lambda: lines(log) > 1)
            directory = await archivist.listen(place / "spill")
            os.kill(archivist.pid, signal.SIGSTOP)  # the pipe fills, and CRIU waits in the middle of an image
            command = dump_command(
                criu,
                root_pid=ROOT_PID,
                images=directory,
                log=place / "dump.log",
                leave_running=True,
                lock_network=False,
                stream=True,
            )
            with trial.start_criu(command) as nsenter:
                await asyncio.to_thread(until, lambda: stands_still(place / "dump.log"))
                os.kill(archivist.pid, signal.SIGKILL)
                assert await asyncio.to_thread(nsenter.wait, LIMIT_S) == 1
            stood_at = lines(log)
            await asyncio.to_thread(until, lambda: lines(log) > stood_at + 2)
    said = (place / "dump.log").read_text()
    assert "Broken pipe" in said
    assert where in said.split("Broken pipe")[0].splitlines()[-1]
    assert "wrong" not in log.read_text()


async def test_a_restore_whose_bytes_are_damaged_never_ends(criu: Criu, place: Path) -> None:
    log = place / "log"
    images = snapshot_at(place)
    async with working(place) as archivist:
        with cell("run", *tree(place)) as trial:
            await asyncio.to_thread(until, lambda: lines(log) > 3)
            directory = await archivist.listen(place / "spill")
            command = dump_command(
                criu,
                root_pid=ROOT_PID,
                images=directory,
                log=place / "dump.log",
                leave_running=False,
                lock_network=False,
                stream=True,
            )
            assert await asyncio.to_thread(trial.criu, command) == 0
            await archivist.captured(images)
        await archivist.pack(place / "snapshot", [])
        (pack,) = (place / "snapshot" / "packs").iterdir()
        with pack.open("r+b") as file:
            file.seek(1 << 20)
            file.write(b"rot")
        before = lines(log)
        problems: asyncio.Queue[str] = asyncio.Queue()
        directory = await archivist.serve(place / "snapshot", problems.put_nowait)
        command = restore_command(criu, images=directory, log=place / "restore.log", stream=True)
        with cell("restore", *command) as trial:
            assert pack.name in await asyncio.wait_for(problems.get(), LIMIT_S)
            await asyncio.sleep(0.3)
            assert any(process.name().startswith(("criu", "ld-linux")) for process in trial.init.children())
        assert lines(log) == before
        await archivist.end_serving()


def snapshot_at(place: Path) -> Path:
    """Its images directory."""
    for part in ("images", "files"):
        (place / "snapshot" / part).mkdir(parents=True)
    return place / "snapshot" / "images"


def stands_still(log: Path) -> bool:
    """CRIU has begun and says nothing more."""
    before = log.stat().st_size if log.exists() else 0
    time.sleep(0.3)
    return before > 0 and log.stat().st_size == before
