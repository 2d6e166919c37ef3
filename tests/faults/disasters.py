"""What befalls a job at a moment: each strikes while somebody has halted there, and may have something to heal."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import psutil
from harness import JOB_MARK, Job, Undisturbed, marked

STOPPED_S = 1.0
Heal = Callable[[], None]
StartJob = Callable[..., Job]
Reference = Callable[[Sequence[str]], Undisturbed]


def nothing_to_heal() -> None:
    pass


def processes(job: Job, *words: str) -> list[psutil.Process]:
    """Those of the job whose command line has one of these words."""
    found = []
    for process in marked(f"{JOB_MARK}={job.env[JOB_MARK]}"):
        with contextlib.suppress(psutil.Error):
            if any(word in part for part in process.cmdline() for word in words):
                found.append(process)
    return found


def somebody(job: Job, who: Callable[[Job], list[psutil.Process]]) -> list[psutil.Process]:
    found = who(job)
    assert found, f"there is no {who.__name__} to be struck"
    return found


def supervisor(job: Job) -> list[psutil.Process]:
    return [psutil.Process(job.process.pid)] if job.process else []


def init(job: Job) -> list[psutil.Process]:
    return [one for one in processes(job, "criu_train.cell.init") if "unshare" not in one.name()]


def archivist(job: Job) -> list[psutil.Process]:
    return processes(job, "criu_train.archive.worker")


def criu(job: Job) -> list[psutil.Process]:
    return [one for one in processes(job, "sbin/criu") if "criu" in one.name() or "ld-linux" in one.name()]


def root(job: Job) -> list[psutil.Process]:
    """The training's first process, which the others are children of."""
    return [one for one in training(job) if not any(parent in training(job) for parent in one.parents()[:1])]


def worker(job: Job) -> list[psutil.Process]:
    return [one for one in training(job) if one not in root(job)]


def training(job: Job) -> list[psutil.Process]:
    script = next(word for word in job.command if word.endswith(".py"))
    ours = supervisor(job)
    return [one for one in processes(job, script) if one not in ours and "criu_train" not in one.cmdline()]


@dataclass(frozen=True)
class Disaster:
    """``strike`` returns what heals. ``harmless``: the training must not notice. ``ends_supervisor``: run it again."""

    name: str
    what: str
    strike: Callable[[Job], Heal] = field(repr=False)
    harmless: bool
    ends_supervisor: bool = False
    needs_disk: bool = False
    silent: bool = False  # nothing of it can be written down

    def __str__(self) -> str:
        return self.name


def kill(who: Callable[[Job], list[psutil.Process]]) -> Callable[[Job], Heal]:
    def strike(job: Job) -> Heal:
        for process in somebody(job, who):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        return nothing_to_heal

    return strike


def stop(who: Callable[[Job], list[psutil.Process]]) -> Callable[[Job], Heal]:
    def strike(job: Job) -> Heal:
        stopped = somebody(job, who)
        for process in stopped:
            process.suspend()

        def go_on() -> None:
            time.sleep(STOPPED_S)
            for process in stopped:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.resume()

        return go_on

    return strike


def kill_everything(job: Job) -> Heal:
    job.kill_everything()
    return nothing_to_heal


def fill_the_disk(job: Job) -> Heal:
    filler = job.store.parent / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 16))
    return filler.unlink


def take_the_store_away(job: Job) -> Heal:
    away = job.store.with_name("away")
    job.store.rename(away)

    def bring_it_back() -> None:
        time.sleep(STOPPED_S)
        if job.store.exists():  # what was made anew in its place meanwhile
            job.store.rename(job.store.with_name(f"beside-{time.monotonic_ns()}"))
        away.rename(job.store)

    return bring_it_back


def use_up_descriptors(who: Callable[[Job], list[psutil.Process]]) -> Callable[[Job], Heal]:
    def strike(job: Job) -> Heal:
        before = []
        for process in somebody(job, who):
            highest = max(int(name) for name in os.listdir(f"/proc/{process.pid}/fd"))
            before.append((process, process.rlimit(resource.RLIMIT_NOFILE)))
            process.rlimit(resource.RLIMIT_NOFILE, (highest + 1, before[-1][1][1]))

        def give_back() -> None:
            time.sleep(STOPPED_S)
            for process, limits in before:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.rlimit(resource.RLIMIT_NOFILE, limits)

        return give_back

    return strike


def _each() -> Iterator[Disaster]:
    yield Disaster("kill-supervisor", "SIGKILL of the supervisor", kill(supervisor), True, True)
    yield Disaster("kill-init", "SIGKILL of init", kill(init), False)
    yield Disaster("kill-archivist", "SIGKILL of the archivist", kill(archivist), True)
    yield Disaster("kill-root", "SIGKILL of the root task", kill(root), False)
    yield Disaster("kill-worker", "SIGKILL of a child of the training", kill(worker), False)
    yield Disaster("kill-everything", "SIGKILL of everything", kill_everything, False, True)
    yield Disaster("stop-supervisor", "SIGSTOP of the supervisor, 1 s", stop(supervisor), True)
    yield Disaster("stop-archivist", "SIGSTOP of the archivist, 1 s", stop(archivist), True)
    yield Disaster("stop-init", "SIGSTOP of init, 1 s", stop(init), True)
    yield Disaster("no-descriptors", "no descriptor left for the supervisor, 1 s", use_up_descriptors(supervisor), True)
    yield Disaster("store-away", "the store renamed away, 1 s", take_the_store_away, True, silent=True)
    yield Disaster("full-disk", "no room left on the store's disk", fill_the_disk, True, needs_disk=True)
    yield Disaster("kill-criu", "SIGKILL of CRIU", kill(criu), False)
    yield Disaster("stop-criu", "SIGSTOP of CRIU", stop(criu), True)


DISASTERS: Sequence[Disaster] = tuple(_each())
NAMED = {one.name: one for one in DISASTERS}
