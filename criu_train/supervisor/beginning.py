"""Beginning one life of the training: restored from a snapshot that works, else from the beginning."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

from criu_train.cell import processes
from criu_train.cell.cell import Cell
from criu_train.cell.records import CellSpec
from criu_train.cuda.command import load_driver
from criu_train.errors import (
    CommandNotRunnableError,
    RestoreFailedError,
    StoreError,
)
from criu_train.store.lock import StoreLock
from criu_train.store.snapshot import Snapshot
from criu_train.store.state import Run
from criu_train.supervisor.adopting import Orphan, door_of
from criu_train.supervisor.hook_files import HookFiles, admit, close
from criu_train.supervisor.meeting_place import MeetingPlace, environment_of
from criu_train.supervisor.output import our_terminal_size
from criu_train.supervisor.requests import ignored_signals
from criu_train.supervisor.restore_context import RestoreContext
from criu_train.supervisor.restoring import Restorer
from criu_train.supervisor.run_context import RunContext
from criu_train.supervisor.start import Start
from criu_train.supervisor.state import boot_id
from criu_train.supervisor.user import UserIds
from criu_train.workspace.listing import Listing
from criu_train.workspace.place import names_of_store
from criu_train.workspace.policy import WorkspacePolicy
from criu_train.workspace.rollback import set_aside


@dataclass(frozen=True)
class Life:
    """A cell in which the training runs, and the snapshot that it goes on from, None after a cold start.

    ``listing``: of the workspace as last known. ``adopted``: it was found running, its supervisor gone. ``hooks``: None
    where they can't be used.
    """

    run: Run
    cell: Cell
    snapshot: Snapshot | None = None
    listing: Listing | None = None
    adopted: bool = False
    hooks: HookFiles | None = None


class Beginner:
    """Makes cells with the training in them, one at a time."""

    def __init__(self, context: RunContext, lock: StoreLock) -> None:
        self._context = context
        self._lock = lock
        self._ignored = ignored_signals()
        user = context.options.user
        self._user = UserIds.of(user) if user else None
        self._journal = Path()
        self._place = MeetingPlace(context.store, self._user, context.reporter)

    async def begin(self, start: Start) -> Life:
        """Raises RestoreFailedError where a failed restore is to be the end, SurroundingsError where a later one may
        well succeed, CommandNotRunnableError, StoreError."""
        if start.run is not None and start.candidates:
            if (life := await self._restore(start, start.run)) is not None:
                return life
            if self._context.options.on_restore_failure == "fail":
                raise RestoreFailedError(
                    "no snapshot could be restored",
                    tip="mend what the table names and run again, or start over with --fresh",
                )
            start = replace(start, reason="no snapshot could be restored")
        try:
            return await self._start_cold(start)
        except OSError as error:
            raise StoreError(
                f"the training could not be begun: {error.strerror or error}",
                tip="see that the disk of the store has room and works, then run the same command again",
            ) from error

    def policy(self, run: Run) -> WorkspacePolicy:
        """What belongs to the workspace of this run."""
        layout = self._context.store.layout
        return WorkspacePolicy(
            roots=(run.cwd, *(str(path) for path in self._context.options.workspace)),
            exclude=(*names_of_store(layout.root, run.cwd), str(self._place.ours)),
            include=(str(layout.output_log),),
            file_limit=self._context.options.file_limit,
        )

    async def _restore(self, start: Start, run: Run) -> Life | None:
        self._context.state.change(state="restoring", run=run.id)
        self._context.events.run, began = run.id, time.monotonic()
        context = RestoreContext(
            store=self._context.store,
            criu=self._context.criu,
            keeper=self._context.keeper,
            options=self._context.options,
            runtime=self._context.runtime,
            new_cell=lambda: self._new_cell(run),
            new_hooks=lambda snapshot, listing: self._place.for_snapshot(run, snapshot, listing),
            tell=self._context.reporter.restoring,
        )
        restorer = Restorer(context)
        restored = await restorer.restore_first_that_works(start.candidates)
        self._context.events.append("restore", attempts=[vars(attempt) for attempt in restorer.attempts])
        self._context.reporter.attempts(restorer.attempts)
        if restored is None:
            if (error := restorer.why_not_begin_anew()) is not None:
                raise error
            return None
        snapshot = restored.snapshot
        if start.branch:
            try:
                self._context.store.resume_run(run.id, run.command, run.cwd)
                self._context.store.abandon_after(snapshot.id)
            except BaseException:
                await restored.cell.kill()
                raise
        if restored.hooks is not None:
            self._place.note_restore(restored.hooks.generation)
        self._context.reporter.restored(snapshot, restored.rollback_summary, restored.notes, restored.warnings)
        self._context.events.append(
            "restored",
            snapshot=snapshot.id,
            step=snapshot.manifest.step if snapshot.manifest else None,
            seconds=round(time.monotonic() - began, 3),
            notes=list(restored.notes),
            warnings=list(restored.warnings),
        )
        return self._living(Life(run, restored.cell, snapshot, restored.listing, hooks=restored.hooks), snapshot.id)

    async def _start_cold(self, start: Start) -> Life:
        instead = self._context.options.cold_command if start.run is not None else None
        self._context.reporter.cold_start(start.reason, instead)
        layout = self._context.store.layout
        aside = set_aside([layout.output_log], layout.rollback, self._context.store.seal)
        run = self._context.store.begin_run(start.command, start.cwd, instead_of=start.run)
        if start.run is not None and (left := self._context.store.left_by(run)):
            self._context.reporter.warning(
                f"the newest snapshot of the run so far, {left.id}, stays until this one has come to its end",
                f"`criu-train restore {left.id}` goes back to it, once what kept it from being restored is mended",
            )
        self._context.state.change(state="starting", run=run.id, restored_from=None)
        try:
            life = await self._launched(run, instead or start.command)
        except BaseException as error:  # most of all a command that can't be executed: no run is left behind
            self._context.store.forget_run()
            if aside is not None:
                aside.undo()
            self._context.state.change(run=start.run.id if start.run else None)
            if instead and isinstance(error, CommandNotRunnableError):
                raise CommandNotRunnableError(
                    f"--cold-command: {error}", tip=f"{error.tip}; the run is as it was", exit_code=error.exit_code
                ) from error
            raise
        self._context.events.run = run.id
        self._context.events.append("started", command=list(instead or start.command), reason=start.reason)
        return self._living(life, None)

    async def _launched(self, run: Run, command: tuple[str, ...]) -> Life:
        layout = self._context.store.layout
        self._place.leave()
        cell = await self._new_cell(run)
        hooks = self._place.for_new_run()
        admit(hooks, cell.init_pid)
        try:
            await cell.launch(
                command,
                output=layout.output_log,
                first_pid=self._context.store.pid_base,
                umask=self._context.options.umask,
                ignored=self._ignored,
                ids=self._user.ids if self._user else None,
                environment={**(self._user.environment if self._user else {}), **environment_of(hooks)},
                size=our_terminal_size() if self._context.options.tty else None,
                drop_capabilities=self._context.options.capabilities == "drop",
            )
        except BaseException:
            await cell.kill()
            close(hooks, remove=True)
            raise
        return Life(run, cell, hooks=hooks)

    def adopt(self, orphan: Orphan) -> Life:
        """Take over a training that lost its supervisor: nothing about it changes."""
        self._context.events.run = orphan.run.id
        lost = orphan.state.supervisor_pid
        self._context.events.append("adopted", init_pid=orphan.cell.init_pid, lost_supervisor_pid=lost)
        self._context.reporter.adopted(orphan.cell.init_pid)
        hooks = self._place.for_adopted(orphan.run, orphan.snapshot)
        admit(hooks, orphan.cell.init_pid)
        life = Life(orphan.run, orphan.cell, orphan.snapshot, orphan.listing, adopted=True, hooks=hooks)
        return self._living(life, orphan.state.restored_from)

    def _living(self, life: Life, restored_from: str | None) -> Life:
        self._context.state.change(state="running", root_pid=life.cell.root_pid, restored_from=restored_from)
        if life.cell.watch_problem:
            self._context.reporter.warning(
                f"what the training does to files can't be watched ({life.cell.watch_problem})",
                "the working directory is listed at every dump instead; name others with --workspace",
            )
        elif not self._context.options.workspace and "/" in _unwatched(self._journal):
            self._context.reporter.warning(
                f"this kind of root filesystem can't be watched as a whole: files outside of {life.run.cwd} are only "
                "saved while they are open",
                "name directories that the training writes to with --workspace; volumes are watched",
            )
        return life

    async def _new_cell(self, run: Run) -> Cell:
        layout, policy, options = self._context.store.layout, self.policy(run), self._context.options
        layout.cell.unlink(missing_ok=True)
        await asyncio.to_thread(load_driver)
        self._journal = self._context.store.next_journal()
        cell = await Cell.start(
            CellSpec(
                lock_fd=self._lock.fd,
                door=door_of(self._context.store, self._context.runtime),
                cell_file=layout.cell,
                journal=self._journal,
                roots=policy.roots,
                exclude=policy.exclude,
                include=policy.include,
                facts={"run": run.id, "boot_id": boot_id()},
                log=layout.init_log,
                stop_after_s=options.grace if options.on_supervisor_loss == "stop" else None,
            )
        )
        self._context.state.change(init_pid=cell.init_pid, init_started=processes.start_time(cell.init_pid))
        return cell


def _unwatched(journal: Path) -> list[str]:
    """Mount points that can't be watched as a whole, as a cell's journal tells in its first line."""
    with contextlib.suppress(OSError, ValueError, LookupError), journal.open() as file:
        return list(json.loads(file.readline())["blind"])
    return []
