"""What every test of the project shares: places on a real disk, jobs, references, and a look at what stays behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import apart
import netfilter
import psutil
import pytest
from harness import TEST_MARK, Job, Undisturbed, link_remaps, marked, mounts, run_undisturbed, until

from criu_train.store.event_schema import misfits
from criu_train.store.events import EventLog

StartJob = Callable[..., Job]
Reference = Callable[[Sequence[str]], Undisturbed]


def pytest_configure(config: pytest.Config) -> None:
    """Workers that run tests with CRIU at the same time must not see each other."""
    if hasattr(config, "workerinput") and os.environ.get(apart.WANTED):
        apart.enter(os.path.dirname(config.option.basetemp))


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Let fixtures know how the test went, as ``item.failed``."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    item.failed = getattr(item, "failed", False) or report.failed  # type: ignore[attr-defined]


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Iterator[Path]:
    """An empty directory on the disk (pytest's own lie in /tmp, which the product treats apart)."""
    directory = Path(tempfile.mkdtemp(prefix="criu-train-test-", dir="/var/tmp"))
    yield directory
    if not request.node.failed:
        shutil.rmtree(directory)


@pytest.fixture
def small_disk(request: pytest.FixtureRequest, place: Path) -> Iterator[Path]:
    """A file system of its own, of the size that the test names as mount does."""
    disk = place / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={request.param},mode=700", "small", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.fixture(autouse=True)
def nothing_stays_behind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No process, mount, nft table or remap link of a test with real CRIU outlives it; fail it otherwise."""
    if request.node.get_closest_marker("criu") is None:
        yield
        return
    value = uuid.uuid4().hex
    monkeypatch.setenv(TEST_MARK, value)
    mark = f"{TEST_MARK}={value}"
    mounts_before, tables_before, links_before = mounts(), netfilter.tables(), link_remaps()

    def left() -> list[str]:
        return [
            *(f"process {describe(process)}" for process in marked(mark)),
            *(f"mount {mount}" for mount in mounts() - mounts_before),
            *(f"nft table {table}" for table in netfilter.tables() - tables_before if table.startswith("CRIU")),
            *(f"file {path}" for path in link_remaps() - links_before),
        ]

    yield
    if not request.node.failed:
        with contextlib.suppress(AssertionError):
            until(lambda: not left(), "nothing to be left", 5.0)
    remains = left()
    end_everything(mark)
    for path in link_remaps() - links_before:
        Path(path).unlink(missing_ok=True)
    assert not remains or request.node.failed, "left behind: " + "; ".join(remains)


def describe(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return f"{process.pid} ({process.status()}) {' '.join(process.cmdline())[:120]}"
    return str(process.pid)


def end_everything(mark: str) -> None:
    while remaining := marked(mark):
        for process in remaining:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(remaining, timeout=0.2)


@pytest.fixture
def start_job(request: pytest.FixtureRequest, place: Path, nothing_stays_behind: None) -> Iterator[StartJob]:
    """Starts jobs in directories of their own; ends those that still run after the test.

    Whatever a job does, its events are as they are documented.
    """
    jobs: list[Job] = []

    def start(command: Sequence[str], *options: str, name: str = "job", **settings: object) -> Job:
        job = Job(place / name, command, *options, **settings)  # type: ignore[arg-type]
        jobs.append(job)
        return job.start()

    yield start
    for job in jobs:
        job.close()
        if not request.node.failed:
            events = EventLog(job.store / "events.jsonl").read()
            assert not [problem for event in events for problem in misfits(event)], "see docs/events.md"


@pytest.fixture(scope="session")
def undisturbed() -> Iterator[Reference]:
    """What a command leaves without us; each command is run once a session."""
    known: dict[tuple[str, ...], Undisturbed] = {}
    with tempfile.TemporaryDirectory(prefix="criu-train-reference-", dir="/var/tmp") as top:

        def reference(command: Sequence[str]) -> Undisturbed:
            key = tuple(command)
            if key not in known:
                known[key] = run_undisturbed(Path(top) / str(len(known)), key)
            return known[key]

        yield reference
