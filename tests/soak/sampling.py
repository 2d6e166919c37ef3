"""What a job holds of the machine: its three processes, its mounts, its store, and what lies about for it."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import netfilter
import psutil
from faults.disasters import archivist, init, supervisor
from harness import Job, link_remaps

WATCHED = {"supervisor": supervisor, "init": init, "archivist": archivist}
RUNTIME = Path("/run/criu-train")
# These tell what has happened, and so they grow: the one by a line a dump, the other by what the training prints.
LOGS = ("events.jsonl", "output.log")


@dataclass(frozen=True)
class Reading:
    """One value. ``life``: the process whose it is, "" for what outlives every process."""

    value: float
    life: str = ""


class Sampler:
    """Looks at a job whose temporary files go to ``temporary``."""

    def __init__(self, job: Job, temporary: Path) -> None:
        self._job = job
        self._temporary = temporary
        self._runtime_before = set(os.listdir(RUNTIME)) if RUNTIME.exists() else set()

    def look(self) -> dict[str, Reading] | None:
        """Every value by its name; None unless nothing goes on but the training, from the first to the last of them."""
        before = self._job.newest()
        if not self._at_rest():
            return None
        try:
            readings = dict(self._read())
        except (psutil.Error, OSError, LookupError):  # somebody has just ended
            return None
        return readings if self._at_rest() and self._job.newest() == before else None

    def _at_rest(self) -> bool:
        """No dump and no restore, and nobody new who does not know yet what to do."""
        return bool(self._job.supervisor().get("state") == "running")

    def _read(self) -> Iterator[tuple[str, Reading]]:
        for name, who in WATCHED.items():
            (process,) = self._one(who)
            life = f"{process.pid} {started(process.pid)}"
            yield f"{name}: descriptors", Reading(process.num_fds(), life)
            yield f"{name}: threads", Reading(process.num_threads(), life)
            yield f"{name}: memory, MiB", Reading(process.memory_info().rss / (1 << 20), life)
            if who is init:
                yield "mounts of the cell", Reading(lines(f"/proc/{process.pid}/mountinfo"), life)
            if who is supervisor:
                yield "mounts of the host", Reading(lines(f"/proc/{process.pid}/mountinfo"))
        yield from self._read_store()
        yield "temporary files", Reading(len(list(self._temporary.rglob("*"))) + len(self._lying_about()))
        yield "links of CRIU's", Reading(len(link_remaps()))
        yield "tables of nftables", Reading(sum(name.startswith("CRIU") for name in netfilter.tables()))

    def _one(self, who: Callable[[Job], list[psutil.Process]]) -> list[psutil.Process]:
        """As a list of one; LookupError while there is another number of them."""
        found = who(self._job)
        if len(found) != 1:
            raise LookupError(f"{len(found)} of {who.__name__}")
        return found

    def _read_store(self) -> Iterator[tuple[str, Reading]]:
        rollback = self._job.store / "rollback"
        kept = list(rollback.iterdir()) if rollback.exists() else []
        saved = list(self._job.store.glob("snapshots/*/files"))
        snapshots = len(saved) or 1
        parts, _ = extent(*saved)
        files, size = extent(self._job.store, without=(rollback, *(self._job.store / name for name in LOGS)))
        yield "store: snapshots", Reading(len(saved))
        yield "a snapshot: parts of saved files", Reading(parts / snapshots)
        yield "a snapshot: other files", Reading((files - parts) / snapshots)
        yield "store: MiB", Reading(size / (1 << 20))
        if kept:
            files, size = extent(rollback)
            yield "a rollback: files", Reading(files / len(kept))
            yield "a rollback: KiB", Reading(size / len(kept) / (1 << 10))

    def _lying_about(self) -> list[str]:
        """New things in the runtime directory that are this job's, or nobody's: other jobs may run on the machine."""
        ours = str(self._job.supervisor().get("control", "")).rpartition("/")[2].removesuffix(".sock")
        new = set(os.listdir(RUNTIME)) - self._runtime_before
        return [name for name in new if name.startswith(ours) or (name.startswith("a-") and not locked(RUNTIME / name))]


def started(pid: int) -> str:
    """In ticks since the machine's start: the clock, which psutil counts from, is set now and then."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def lines(path: str) -> int:
    return Path(path).read_bytes().count(b"\n")


def locked(path: Path) -> bool:
    """Whether somebody who lives holds its lock."""
    with contextlib.suppress(FileNotFoundError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
    return False


def extent(*directories: Path, without: Collection[Path] = ()) -> tuple[int, int]:
    """Files below these directories and their bytes; a file with several names counts once."""
    sizes: dict[int, int] = {}
    for top, below, names in itertools.chain(*map(os.walk, directories)):
        below[:] = [name for name in below if Path(top, name) not in without]
        for path in (Path(top, name) for name in names):
            with contextlib.suppress(FileNotFoundError):
                if path not in without:
                    sizes[path.stat().st_ino] = path.stat().st_size
    return len(sizes), sum(sizes.values())
