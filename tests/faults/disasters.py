"""What befalls a job at a moment: each strikes while somebody has halted there, and may have something to heal."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import psutil
from harness import Job, Undisturbed

from criu_train.moments import DUMP, RESTORE
from faults.machine import (
    STRUCK_S,
    SYNCING,
    WRITING,
    Heal,
    Strike,
    fail_with_eio,
    make_read_only,
    many_files_are_there,
    mount_another_disk,
    put_many_files,
    run_out_of_memory,
    turn_clock,
)
from faults.victims import Who, archivist, criu, init, root, somebody, supervisor, worker

StartJob = Callable[..., Job]
Reference = Callable[[Sequence[str]], Undisturbed]


def nothing_to_heal() -> None:
    pass


@dataclass(frozen=True)
class Disaster:
    """``strike`` returns what heals. ``harmless``: the training must not notice. ``ends_supervisor``: run it again.

    ``dumps``, ``restores``: the moments at which it makes sense.
    """

    name: str
    what: str
    strike: Strike = field(repr=False)
    harmless: bool
    ends_supervisor: bool = False
    needs_disk: bool = False
    sets_clock: bool = False
    silent: bool = False  # nothing of it can be written down
    dumps: Sequence[str] = DUMP
    restores: Sequence[str] = ()
    leaves: Callable[[Job], None] = field(default=lambda job: None, repr=False)  # what must be so in the end

    def __str__(self) -> str:
        return self.name


def kill(who: Who) -> Strike:
    def strike(job: Job) -> Heal:
        for process in somebody(job, who):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        return nothing_to_heal

    return strike


def stop(who: Who) -> Strike:
    def strike(job: Job) -> Heal:
        stopped = somebody(job, who)
        for process in stopped:
            process.suspend()

        def go_on() -> None:
            time.sleep(STRUCK_S)
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
        time.sleep(STRUCK_S)
        if job.store.exists():  # what was made anew in its place meanwhile
            job.store.rename(job.store.with_name(f"beside-{time.monotonic_ns()}"))
        away.rename(job.store)

    return bring_it_back


def use_up_descriptors(who: Who) -> Strike:
    def strike(job: Job) -> Heal:
        before = []
        for process in somebody(job, who):
            highest = max(int(name) for name in os.listdir(f"/proc/{process.pid}/fd"))
            before.append((process, process.rlimit(resource.RLIMIT_NOFILE)))
            process.rlimit(resource.RLIMIT_NOFILE, (highest + 1, before[-1][1][1]))

        def give_back() -> None:
            time.sleep(STRUCK_S)
            for process, limits in before:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.rlimit(resource.RLIMIT_NOFILE, limits)

        return give_back

    return strike


_FROZEN = ("dump-frozen", "dump-captured", "dump-saved")  # where there is a CRIU
_WITH_CELL = RESTORE[RESTORE.index("cell-ready") :]
# Of many moments that are alike a few.
_SOME = ("dump-begins", "dump-frozen", "dump-packing", "before-marker", "after-marker")
_RESTORING = ("restore-chosen", "rolled-back", "restored")
# Where the archivist is at work, the tree runs, the supervisor is about to sync, and others look at the store.
_PACKS = ("dump-frozen", "dump-packing")
_RUNS = ("dump-begins", "dump-thawed", "dump-packing", "after-marker")
_SYNCS = ("dump-packed", "images-synced", "before-marker", "after-marker")
_SYNCED = ("restore-chosen", "rollback-kept", "rollback-step", "restored")
_SHOWN = ("dump-begins", "dump-packing", "before-sweep")
DAY_S = 86400


def _struck_processes() -> Iterator[Disaster]:
    yield Disaster("kill-supervisor", "SIGKILL of the supervisor", kill(supervisor), True, True, restores=RESTORE)
    yield Disaster("kill-init", "SIGKILL of init", kill(init), False, restores=_WITH_CELL)
    yield Disaster("kill-archivist", "SIGKILL of the archivist", kill(archivist), True, restores=RESTORE)
    yield Disaster("kill-root", "SIGKILL of the root task", kill(root), False)
    yield Disaster("kill-worker", "SIGKILL of a child of the training", kill(worker), False)
    yield Disaster("kill-everything", "SIGKILL of everything", kill_everything, False, True, restores=RESTORE)
    yield Disaster("stop-supervisor", "SIGSTOP of the supervisor, 1 s", stop(supervisor), True, restores=RESTORE)
    yield Disaster("stop-archivist", "SIGSTOP of the archivist, 1 s", stop(archivist), True, restores=_RESTORING)
    yield Disaster("stop-init", "SIGSTOP of init, 1 s", stop(init), True, restores=_WITH_CELL)
    yield Disaster("kill-criu", "SIGKILL of CRIU", kill(criu), False, dumps=_FROZEN)
    yield Disaster("stop-criu", "SIGSTOP of CRIU", stop(criu), True, dumps=_FROZEN)


def _struck_machine() -> Iterator[Disaster]:
    some = {"dumps": _SOME, "restores": _RESTORING}
    for name, by_s in (("clock-back", -DAY_S), ("clock-forward", DAY_S)):
        yield Disaster(name, f"the clock set {by_s:+} s, for 1 s", turn_clock(by_s), True, sets_clock=True, **some)
    yield Disaster("oom-archivist", "no memory for the archivist", run_out_of_memory(archivist), True, dumps=_PACKS)
    yield Disaster("oom-root", "no memory for the root task", run_out_of_memory(root), False, dumps=_RUNS)


def _struck_store() -> Iterator[Disaster]:
    more = {"restores": _RESTORING}
    some = {"dumps": _SOME}
    no_descriptor = use_up_descriptors(supervisor)
    yield Disaster("no-descriptors", "no descriptor left for the supervisor, 1 s", no_descriptor, True, **more)
    yield Disaster("store-away", "the store renamed away, 1 s", take_the_store_away, True, silent=True, **more)
    yield Disaster("full-disk", "no room left on its disk", fill_the_disk, True, needs_disk=True, **more)
    sync = fail_with_eio(supervisor, SYNCING)
    yield Disaster("eio", "EIO for whatever the supervisor syncs, 1 s", sync, True, dumps=_SYNCS, restores=_SYNCED)
    late = fail_with_eio(supervisor, SYNCING, after=1)
    yield Disaster("eio-late", "EIO once a file has its name", late, True, dumps=("images-synced", "before-marker"))
    write = fail_with_eio(archivist, WRITING, after=1)
    yield Disaster("eio-archivist", "EIO for whatever the archivist writes, 1 s", write, True, dumps=_PACKS)
    yield Disaster("read-only", "the store read-only, 1 s", make_read_only, True, silent=True, **some)
    yield Disaster("other-disk", "another disk mounted over it, 1 s", mount_another_disk, True, silent=True, **some)
    yield Disaster(
        "many-files", "10,000 files of others in it", put_many_files, True, leaves=many_files_are_there, dumps=_SHOWN
    )


DISASTERS: Sequence[Disaster] = (*_struck_processes(), *_struck_machine(), *_struck_store())
NAMED = {one.name: one for one in DISASTERS}
