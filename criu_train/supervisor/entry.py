"""What the command line calls: each function is one command, from a store's path to its result."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

from criu_train.cell.records import Ended
from criu_train.criu.cure import cure
from criu_train.criu.find import Criu, find_criu
from criu_train.doctor import privileges
from criu_train.errors import DumpFailedError, StoreBusyError, StoreError
from criu_train.store.dump_log import read_log
from criu_train.store.events import EventLog
from criu_train.store.guard import swappable
from criu_train.store.lock import StoreLock
from criu_train.store.seal import Key
from criu_train.store.store import Store
from criu_train.supervisor.adopting import can_be_adopted, lost_state, reach, wait_until_gone
from criu_train.supervisor.cause import describe_end, describe_interruption, read_ended
from criu_train.supervisor.control import ask, runtime_directory
from criu_train.supervisor.options import RunOptions
from criu_train.supervisor.outlets import Outlets, outlets
from criu_train.supervisor.reporter import Reporter
from criu_train.supervisor.start import AlreadyEnded, Start, start_of_command, start_of_snapshot
from criu_train.supervisor.state import ALIVE, State, read_state
from criu_train.supervisor.supervisor import Supervisor
from criu_train.workspace.rollback import recover_unfinished


def run_command(
    root: Path, command: tuple[str, ...], options: RunOptions, reporter: Reporter, key: Key | None = None
) -> int:
    """``run``. Returns the exit code; raises CriuTrainError for what can't be done."""
    criu = _fit_machine(options)
    store = _with_key(Store.create_or_open(root, key=key))
    try:
        lock = StoreLock.acquire(store.layout)
    except StoreBusyError:
        if options.fresh or store.run is None or (store.run.command, store.run.cwd) != (command, str(Path.cwd())):
            raise
        if (code := _take_over(store, criu, options, reporter)) is not None:
            return code
        lock = StoreLock.acquire(store.layout)
    try:
        with outlets(store, options, reporter) as told:
            ended_alone = _tell_interruption(store, told.events, reporter)
            start = start_of_command(store, command, str(Path.cwd()), fresh=options.fresh, ended_alone=ended_alone)
            if isinstance(start, AlreadyEnded):
                return _finish_alone(store, start.ended, told.events, reporter)
            return _supervise(store, lock, criu, start, options=options, outlets=told, reporter=reporter)
    finally:
        lock.release()


def attach(root: Path, options: RunOptions, reporter: Reporter, key: Key | None = None) -> int:
    """``attach``. Returns the exit code; raises StoreError when no training of this store has lost its supervisor."""
    criu = _fit_machine(options)
    store = _with_key(Store.open(root, key=key))
    code = _take_over(store, criu, options, reporter)
    if code is None:
        StoreLock.acquire(store.layout).release()  # names whoever has it
        raise StoreError(
            "no training of this store runs without a supervisor",
            tip="`criu-train run` with its command goes on where it was interrupted",
        )
    return code


def restore_snapshot(root: Path, wanted: str, options: RunOptions, reporter: Reporter, key: Key | None = None) -> int:
    """``restore``. Returns the exit code; raises CriuTrainError when that snapshot can't be restored."""
    criu = _fit_machine(options)
    store = _with_key(Store.open(root, key=key))
    lock = StoreLock.acquire(store.layout)
    try:
        snapshot = store.find(wanted)
        start = start_of_snapshot(store, snapshot)
        options = replace(options, on_restore_failure="fail")
        with outlets(store, options, reporter) as told:
            return _supervise(store, lock, criu, start, options=options, outlets=told, reporter=reporter)
    finally:
        lock.release()


async def request_dump(root: Path) -> str:
    """``dump``. Returns the id; raises DumpFailedError or StoreError."""
    state = read_state(Store.open(root).layout.supervisor)
    if state is None or state.control is None or not state.supervisor_alive() or state.state not in ALIVE:
        raise StoreError("no supervisor runs for this store", tip="start one: `criu-train run -- COMMAND`")
    try:
        answer = await ask(Path(state.control), {"ask": "dump"})
    except (OSError, ValueError) as error:
        raise DumpFailedError(
            "the supervisor ended before the snapshot was complete", tip="`criu-train status` tells what became of it"
        ) from error
    if "error" in answer:
        raise DumpFailedError(answer["error"], tip=answer["tip"])
    return str(answer["id"])


def current_status(root: Path) -> dict[str, Any]:
    """``status``: the documented fields of its JSON form."""
    state = read_state(Store.open(root).layout.supervisor)
    if state is None:
        raise StoreError("nothing was ever run in this store", tip="start: `criu-train run -- COMMAND`")
    name = state.state
    if name in ALIVE and not state.supervisor_alive():
        name = "lost"
    cell = state.cell_alive()
    return {
        "state": name,
        "supervisor_pid": state.supervisor_pid if state.supervisor_alive() else None,
        "init_pid": state.init_pid if cell else None,
        "root_pid": state.root_pid if cell else None,
        "run": state.run,
        "restored_from": state.restored_from,
        "last_snapshot": state.last_snapshot,
        "next_dump_at": state.next_dump_at,
        "dumps_failed": state.dumps_failed,
        "restarts": state.restarts,
    }


def _with_key(store: Store) -> Store:
    """Raises StoreError for an encrypted one without its key."""
    _ = store.seal
    return store


def _fit_machine(options: RunOptions) -> Criu:
    privileges.require(another_user=options.user is not None)
    return find_criu()


def _supervise(
    store: Store,
    lock: StoreLock,
    criu: Criu,
    start: Start,
    *,
    options: RunOptions,
    outlets: Outlets,
    reporter: Reporter,
) -> int:
    if how := swappable(store.layout.root):
        reporter.warning(
            f"others can put another store in place of {store.layout.root}: {how}",
            "if you don't trust them, name one elsewhere with --store: what is restored runs with our rights",
        )
    try:
        recover_unfinished(store.layout.rollback, store.seal)
    except OSError as error:
        raise StoreError(
            f"an interrupted rollback could not be undone: {error}",
            tip=f"see to the cause and run again; what was taken away is under {store.layout.rollback}",
        ) from error
    wanted = start.candidates[0].id if start.candidates and options.tcp == "keep" else None
    _tidy_up(store, tree=[], wanted=wanted)
    supervisor = Supervisor(
        store=store,
        lock=lock,
        criu=criu,
        options=options,
        reporter=reporter,
        runtime=runtime_directory(),
        outlets=outlets,
    )
    return asyncio.run(supervisor.supervise(start))


def _take_over(store: Store, criu: Criu, options: RunOptions, reporter: Reporter) -> int | None:
    """Watch over a training that lost its supervisor; its exit code. None where there is none, or none any more."""
    state = lost_state(store)
    if state is None:
        return None
    if not can_be_adopted(state):
        wait_until_gone(state, kill=True)
        return None
    code = asyncio.run(_adopt(store, criu, state, options=options, reporter=reporter))
    if code is None:
        wait_until_gone(state, kill=False)
    return code


async def _adopt(store: Store, criu: Criu, state: State, *, options: RunOptions, reporter: Reporter) -> int | None:
    runtime = runtime_directory()
    if (orphan := await reach(store, state, runtime)) is None:
        return None
    lock = StoreLock(orphan.lock_fd)
    try:
        # Else no CRIU was at work, and whoever stands still in the tree was stopped on purpose.
        left_by_a_dump = orphan.cell.tree() if state.state in ("dumping", "stopping") else []
        await asyncio.to_thread(_tidy_up, store, tree=left_by_a_dump, wanted=None)
        with outlets(store, options, reporter) as told:
            supervisor = Supervisor(
                store=store,
                lock=lock,
                criu=criu,
                options=options,
                reporter=reporter,
                runtime=runtime,
                outlets=told,
                before=state,
            )
            return await supervisor.supervise(orphan)
    finally:
        lock.release()


def _tidy_up(store: Store, *, tree: list[int], wanted: str | None) -> None:
    """What an interruption left behind.

    ``tree``: that a dump may have left in disorder; ``wanted``: the snapshot to be restored with its connections.
    """
    for snapshot in store.snapshots():
        # If its CRIU was killed, its packet rules are still there; or they keep peers waiting for a restore.
        preempted = snapshot.manifest is not None and snapshot.manifest.trigger == "preempt"
        if snapshot.status == "incomplete" or (preempted and snapshot.id != wanted):
            cure(tree, log=read_log(snapshot.path))
    store.sweep()
    store.layout.cell.unlink(missing_ok=True)  # it has been read, and tells nothing about what comes now


def _tell_interruption(store: Store, events: EventLog, reporter: Reporter) -> Ended | None:
    """Tell and record why an unfinished run was interrupted. Returns how the training ended if nobody watched."""
    run = store.run
    if run is None or run.finished_at is not None:
        return None
    state = read_state(store.layout.supervisor)
    ended = read_ended(store.layout.cell, run.id)
    cause = describe_interruption(state, ended)
    events.run = run.id
    events.append("interrupted", cause=cause)
    reporter.interrupted(cause)
    # Once asked to stop, a training that ends itself with 0 has not come to its end.
    unwatched = state is None or state.state in (ALIVE | {"lost"}) - {"stopping"}
    return ended if unwatched else None


def _finish_alone(store: Store, ended: Ended, events: EventLog, reporter: Reporter) -> int:
    """The training came to its end while its supervisor was lost: that is told once, and then the run is over."""
    store.finish_run(ended.exit_code, describe_end(ended))
    events.append("finished", exit_code=ended.exit_code)
    reporter.ended(ended)
    return ended.exit_code
