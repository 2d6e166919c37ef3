"""The archive's process as the supervisor keeps it, with a client that speaks as CRIU does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
from criu_client import Dumping, Restoring

from criu_train.archive.archivist import Archivist, CaptureSummary
from criu_train.archive.captured import PAGE
from criu_train.archive.worker import _told
from criu_train.errors import DumpFailedError, RestoreFailedError
from criu_train.store.digest import digest_file

MIB = 1 << 20


@asynccontextmanager
async def working(place: Path, *, memory_limit: int | None = 64 * MIB) -> AsyncIterator[Archivist]:
    archivist = await Archivist.start(place, memory_limit=memory_limit)
    try:
        yield archivist
    finally:
        await archivist.close()
        assert not psutil.pid_exists(archivist.pid)
        assert {path.name for path in place.iterdir() if path.is_dir()} <= {"1", "2"}  # what we made


def snapshot_at(place: Path, name: str) -> Path:
    for part in ("images", "files"):
        (place / name / part).mkdir(parents=True)
    return place / name


async def take(archivist: Archivist, snapshot: Path, images: dict[str, bytes]) -> CaptureSummary:
    directory = await archivist.listen(snapshot / ".spill")
    with Dumping(directory) as criu:
        for name, data in images.items():
            await asyncio.to_thread(criu.image, name, data)
        summary = await archivist.captured(snapshot / "images")
    (directory / "stats-dump").write_bytes(b"figures")
    return summary


async def hand_out(archivist: Archivist, snapshot: Path, names: list[str]) -> list[bytes | None]:
    directory = await archivist.serve(snapshot, pytest.fail)
    with Restoring(directory) as criu:
        given = [await asyncio.to_thread(criu.image, name) for name in names]
    await archivist.served()
    await archivist.end_serving()
    return given


def images() -> dict[str, bytes]:
    return {
        "inventory.img": b"small",
        "pages-1.img": os.urandom(3 * MIB),
        "ghost-file-1.img": b"g" * 5000,
        "pages-2.img": bytes(MIB),
    }


async def test_what_was_captured_is_handed_out_again_byte_for_byte(tmp_path: Path) -> None:
    async with working(tmp_path) as archivist:
        snapshot, before = snapshot_at(tmp_path, "1"), images()
        await archivist.prepare(8 * MIB)
        summary = await take(archivist, snapshot, before)
        packed = await archivist.pack(snapshot, [])
        assert not [path for path in tmp_path.glob("a-*/*") if path.is_dir()]
        given = await hand_out(archivist, snapshot, [*before, "none.img"])
    assert summary == CaptureSummary(raw_bytes=4 * MIB + 5000, memory_bytes=4 * MIB, spilled_bytes=0)
    assert packed.raw_bytes == summary.raw_bytes
    assert dict(zip(before, given, strict=False)) == before
    assert given[-1] is None
    assert {path.name for path in (snapshot / "images").iterdir()} == {"inventory.img", "stats-dump"}
    assert {path.name for path in snapshot.iterdir()} == {"images", "files", "packs", "pages.index"}


async def test_a_second_snapshot_adds_only_what_is_new(tmp_path: Path) -> None:
    async with working(tmp_path) as archivist:
        first, second, before = snapshot_at(tmp_path, "1"), snapshot_at(tmp_path, "2"), images()
        await take(archivist, first, before)
        await archivist.pack(first, [])
        after = {**before, "pages-1.img": os.urandom(PAGE) + before["pages-1.img"][PAGE:]}
        await take(archivist, second, after)
        packed = await archivist.pack(second, [first])
        assert packed.new_pages == 1
        assert await hand_out(archivist, second, list(after)) == list(after.values())


async def test_what_memory_can_not_hold_is_packed_from_the_disk(tmp_path: Path) -> None:
    async with working(tmp_path, memory_limit=2 * MIB) as archivist:
        snapshot, before = snapshot_at(tmp_path, "1"), images()
        await archivist.prepare(100 * MIB)
        summary = await take(archivist, snapshot, before)
        assert summary.spilled_bytes > 2 * MIB
        await archivist.pack(snapshot, [])
        assert await hand_out(archivist, snapshot, list(before)) == list(before.values())


async def test_a_dropped_capture_gives_way_to_the_next(tmp_path: Path) -> None:
    async with working(tmp_path) as archivist:
        directory = await archivist.listen(tmp_path / ".spill")
        with Dumping(directory) as criu:
            pipe = criu.open("pages-1.img")
            waiting = asyncio.create_task(archivist.captured(tmp_path))
            await asyncio.sleep(0.1)
            await archivist.drop()
            with pytest.raises(DumpFailedError, match="given up"):
                await waiting
            with pytest.raises(BrokenPipeError):
                os.write(pipe, b"x")
            os.close(pipe)
        assert not directory.exists()
        snapshot, before = snapshot_at(tmp_path, "1"), images()
        await take(archivist, snapshot, before)
        await archivist.pack(snapshot, [])
        assert await hand_out(archivist, snapshot, list(before)) == list(before.values())


async def test_a_packing_that_is_not_wanted_any_more_ends(tmp_path: Path) -> None:
    async with working(tmp_path, memory_limit=None) as archivist:
        snapshot = snapshot_at(tmp_path, "1")
        await take(archivist, snapshot, {"pages-1.img": os.urandom(MIB) * 200})
        packing = asyncio.create_task(archivist.pack(snapshot, []))
        await asyncio.sleep(0.05)
        await asyncio.wait_for(archivist.drop(), 5)
        with pytest.raises(DumpFailedError, match="given up"):
            await packing


async def test_a_packing_that_fails_says_why_and_the_worker_lives_on(tmp_path: Path) -> None:
    async with working(tmp_path) as archivist:
        snapshot = snapshot_at(tmp_path, "1")
        await take(archivist, snapshot, images())
        (snapshot / "packs").touch()
        with pytest.raises(DumpFailedError, match="packs"):
            await archivist.pack(snapshot, [])
        await archivist.drop()
        assert archivist.alive


@pytest.mark.parametrize("where", ["capture", "pack"])
async def test_a_worker_that_is_killed_fails_what_is_under_way_and_breaks_its_pipes(tmp_path: Path, where: str) -> None:
    async with working(tmp_path, memory_limit=None) as archivist:
        snapshot = snapshot_at(tmp_path, "1")
        if where == "capture":
            directory = await archivist.listen(tmp_path / ".spill")
            with Dumping(directory) as criu:
                pipe = criu.open("pages-1.img")
                waiting = asyncio.create_task(archivist.captured(snapshot / "images"))
                await asyncio.sleep(0.1)
                os.kill(archivist.pid, signal.SIGKILL)
                with pytest.raises(DumpFailedError, match="SIGKILL"):
                    await waiting
                with pytest.raises(BrokenPipeError):
                    os.write(pipe, b"x")
                os.close(pipe)
        else:
            await take(archivist, snapshot, {"pages-1.img": os.urandom(MIB) * 200})
            packing = asyncio.create_task(archivist.pack(snapshot, []))
            await asyncio.sleep(0.05)
            os.kill(archivist.pid, signal.SIGKILL)
            with pytest.raises(DumpFailedError, match="SIGKILL"):
                await packing
        assert not archivist.alive
        await archivist.drop()
        await archivist.end_serving()
        archivist.hurry(1.0)
        with pytest.raises(DumpFailedError):
            await archivist.listen(tmp_path / ".spill")


async def test_a_word_to_hurry_that_comes_before_the_packing_begins_counts(tmp_path: Path) -> None:
    async with working(tmp_path) as archivist:
        snapshot, text = snapshot_at(tmp_path, "1"), {"pages-1.img": b"".join(b"%4096d" % n for n in range(2000))}
        await take(archivist, snapshot, text)
        archivist.hurry(0.0)
        assert not (await archivist.pack(snapshot, [])).compressed
        snapshot = snapshot_at(tmp_path, "2")
        await take(archivist, snapshot, text)
        assert (await archivist.pack(snapshot, [])).compressed  # it was not meant for the next one


async def test_a_fresh_worker_checks_what_it_is_asked_to_hand_out(tmp_path: Path) -> None:
    async with working(tmp_path) as archivist:
        snapshot = snapshot_at(tmp_path, "1")
        await take(archivist, snapshot, images())
        await archivist.pack(snapshot, [])
    async with working(tmp_path) as archivist:
        with pytest.raises(RestoreFailedError, match=r"corrupt: .*pages\.index"):
            await archivist.serve(snapshot, pytest.fail, index_digest="0" * 64)
        with pytest.raises(RestoreFailedError, match=r"corrupt: .*pages\.index"):
            await archivist.serve(snapshot, pytest.fail, index_digest="0" * 64)
        await archivist.end_serving()


async def test_after_a_check_without_a_serving_no_pack_stays_open(tmp_path: Path) -> None:
    async with working(tmp_path) as archivist:
        snapshot = snapshot_at(tmp_path, "1")
        await take(archivist, snapshot, images())
        await archivist.pack(snapshot, [])

        def open_packs() -> list[str]:
            return [file.path for file in psutil.Process(archivist.pid).open_files() if "/packs/" in file.path]

        await archivist.check(snapshot, digest_file(snapshot / "pages.index"))
        assert open_packs()
        await archivist.end_serving()
        assert not open_packs()


async def test_damage_is_told_and_keeps_the_pipes_open_and_silent(tmp_path: Path) -> None:
    async with working(tmp_path) as archivist:
        snapshot = snapshot_at(tmp_path, "1")
        await take(archivist, snapshot, images())
        await archivist.pack(snapshot, [])
        pack = next((snapshot / "packs").iterdir())
        data = bytearray(pack.read_bytes())
        data[1000] ^= 1
        pack.write_bytes(data)
        problems: asyncio.Queue[str] = asyncio.Queue()
        directory = await archivist.serve(snapshot, problems.put_nowait)
        with Restoring(directory) as criu:
            pipe = criu.open("pages-1.img")
            assert pipe is not None
            assert pack.name in await asyncio.wait_for(problems.get(), 10)
            os.set_blocking(pipe, False)
            with pytest.raises(BlockingIOError):
                os.read(pipe, 100)
            with pytest.raises(RestoreFailedError):
                await archivist.served()
            await archivist.end_serving()
            assert os.read(pipe, 100) == b""
            os.close(pipe)
        assert problems.empty()


async def test_a_damaged_index_is_found_before_anything_is_handed_out(tmp_path: Path) -> None:
    async with working(tmp_path) as archivist:
        snapshot = snapshot_at(tmp_path, "1")
        await take(archivist, snapshot, images())
        await archivist.pack(snapshot, [])
        with pytest.raises(RestoreFailedError, match=r"corrupt: .*pages\.index"):
            await archivist.check(snapshot, "0" * 64)


async def test_a_worker_that_dies_while_it_hands_out_is_a_problem(tmp_path: Path) -> None:
    async with working(tmp_path) as archivist:
        snapshot = snapshot_at(tmp_path, "1")
        await take(archivist, snapshot, images())
        await archivist.pack(snapshot, [])
        problems: asyncio.Queue[str] = asyncio.Queue()
        with Restoring(await archivist.serve(snapshot, problems.put_nowait)) as criu:
            pipe = criu.open("pages-1.img")
            os.kill(archivist.pid, signal.SIGKILL)
            assert "died" in await asyncio.wait_for(problems.get(), 10)
            assert pipe is not None
            os.close(pipe)
        with pytest.raises(RestoreFailedError):
            await archivist.served()
        await archivist.end_serving()


async def test_a_death_can_be_told_apart_from_damage(tmp_path: Path) -> None:
    async with working(tmp_path) as archivist:
        snapshot = snapshot_at(tmp_path, "1")
        await take(archivist, snapshot, images())
        await archivist.pack(snapshot, [])
        lost = asyncio.Event()
        await archivist.serve(snapshot, pytest.fail, on_loss=lost.set)
        os.kill(archivist.pid, signal.SIGKILL)
        await asyncio.wait_for(lost.wait(), 10)


async def test_memory_that_was_prepared_is_told(tmp_path: Path) -> None:
    async with working(tmp_path) as archivist:
        assert await archivist.prepare(8 * MIB) == 64 * MIB
        assert await archivist.prepare(1 << 40) == 64 * MIB


async def test_signals_of_the_terminal_do_not_reach_it(tmp_path: Path) -> None:
    async with working(tmp_path) as archivist:
        assert os.getpgid(archivist.pid) == os.getsid(archivist.pid) == archivist.pid
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            os.kill(archivist.pid, number)
        await archivist.prepare(MIB)
        assert archivist.alive


async def test_the_worker_goes_first_when_memory_runs_out(tmp_path: Path) -> None:
    async with working(tmp_path) as archivist:
        assert int(Path(f"/proc/{archivist.pid}/oom_score_adj").read_text()) == 1000


SUPERVISOR = """
import asyncio, json, sys
from pathlib import Path
from criu_train.archive.archivist import Archivist

async def main():
    archivist = await Archivist.start(Path(sys.argv[1]), memory_limit=None)
    heavy = [name for name in ("numpy", "blake3") if name in sys.modules]
    print(json.dumps([archivist.pid, heavy]), flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


async def begin_and_end(place: Path) -> None:
    async with working(place):
        pass


async def test_two_archivists_in_one_place_leave_each_other_alone(tmp_path: Path) -> None:
    async with working(tmp_path) as one:
        other = await Archivist.start(tmp_path, memory_limit=0)
        for archivist in (one, other):
            directory = await archivist.listen(tmp_path / ".spill")
            assert directory.is_dir()
        await other.close()
        assert (await one.prepare(MIB)) > 0
        await one.drop()


def test_a_worker_does_not_outlive_its_supervisor_which_stays_light(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", SUPERVISOR, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as supervisor:
        assert supervisor.stdout is not None
        pid, heavy = json.loads(supervisor.stdout.readline())
        worker = psutil.Process(pid)
        supervisor.kill()
    gone, _ = psutil.wait_procs([worker], timeout=5)
    assert gone
    assert os.listdir(tmp_path)
    asyncio.run(begin_and_end(tmp_path))
    assert not os.listdir(tmp_path)  # what the killed one left is gone as well
    assert heavy == []


async def test_a_worker_that_can_not_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["/nowhere"])
    with pytest.raises(DumpFailedError, match="ModuleNotFoundError"):
        await Archivist.start(tmp_path, memory_limit=None)


def test_a_failure_is_told_even_where_its_details_can_not_be_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    full = open("/dev/full", "w", buffering=1)  # noqa: SIM115 - it can't be closed without an error
    monkeypatch.setattr(sys, "stderr", full)
    told = _told(ValueError("a mistake of ours"))
    with contextlib.suppress(OSError):
        full.close()
    assert told["problem"] == "a mistake of ours"
