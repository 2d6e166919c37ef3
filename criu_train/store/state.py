"""``store.json``: who the store is, what runs in it, and the marks on its snapshots."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from criu_train.errors import StoreError
from criu_train.store.durable import DISK, Disk, open_private, write_atomic
from criu_train.store.layout import StoreLayout
from criu_train.store.seal import Key

VERSION = 1


@dataclass(frozen=True)
class Run:
    """One training from its cold start to its end; ``how`` it ended is a word or two for people.

    ``instead_of``: runs that could not be gone on with. Until this one has ended well each keeps its newest snapshot.
    """

    id: str
    command: tuple[str, ...]
    cwd: str
    started_at: str
    finished_at: str | None = None
    exit_code: int | None = None
    how: str | None = None
    restores: int = 0
    instead_of: tuple[str, ...] = ()

    @property
    def spares(self) -> tuple[str, ...]:
        """Runs of which a snapshot has to stay."""
        return self.instead_of if self.finished_at is None else ()


@dataclass(frozen=True)
class StoreState:
    """What ``store.json`` holds."""

    id: str
    pid_base: int
    next_sequence: int = 1
    run: Run | None = None
    previous_run: Run | None = None  # comes back when the current one turns out to be none
    abandoned: tuple[str, ...] = ()
    proven: dict[str, bool] = field(default_factory=dict)
    seal_check: str | None = None  # of an encrypted store, see ``seal``

    @property
    def run_id(self) -> str | None:
        """The current run's."""
        return self.run.id if self.run else None

    def to_json(self) -> bytes:
        """The bytes of ``store.json``."""
        facts = {"version": VERSION, **asdict(self)}
        # Older readers know nothing of these.
        if self.seal_check is None:
            del facts["seal_check"]
        for run in filter(None, (facts["run"], facts["previous_run"])):
            for name in ("restores", "instead_of"):
                if not run[name]:
                    del run[name]
        return json.dumps(facts, indent=2).encode() + b"\n"

    def begin(self, run: Run) -> StoreState:
        """``run`` is the current one now."""
        return replace(self, run=run, previous_run=self.run)

    def restored(self, times: int) -> StoreState:
        """The current run has been restored so often."""
        return self if self.run is None else replace(self, run=replace(self.run, restores=times))

    def finish(self, finished_at: str, exit_code: int, how: str) -> StoreState:
        """The current run, if any, came to its end."""
        if self.run is None:
            return self
        return replace(self, run=replace(self.run, finished_at=finished_at, exit_code=exit_code, how=how))

    def forget(self) -> StoreState:
        """The current run was none: the one before is the current one again."""
        return replace(self, run=self.previous_run, previous_run=None)

    def resume(self, run: Run) -> StoreState:
        """``run``, known here or not, is the current one and not finished."""
        if self.run is not None and self.run.id == run.id:
            return replace(self, run=replace(self.run, finished_at=None, exit_code=None, how=None))
        known = self.previous_run if self.previous_run is not None and self.previous_run.id == run.id else run
        return self.begin(replace(known, finished_at=None, exit_code=None, how=None))

    @classmethod
    def from_json(cls, data: bytes) -> StoreState:
        """Raises StoreError for anything but a ``store.json`` of a version known here."""
        try:
            facts: dict[str, Any] = json.loads(data)
            version = facts.pop("version")
            if version != VERSION:
                raise StoreError(
                    f"the store is of version {version}, this criu-train reads {VERSION}",
                    tip="use the criu-train that made it",
                )
            for name in ("run", "previous_run"):
                if facts[name] is not None:
                    lists = {name: tuple(value) for name, value in facts[name].items() if isinstance(value, list)}
                    facts[name] = Run(**facts[name] | lists)
            facts["abandoned"] = tuple(facts["abandoned"])
            return cls(**facts)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise StoreError(
                f"store.json can't be read ({type(error).__name__})",
                tip="move the store away to start anew; its snapshots stay as they are",
            ) from error


Change = Callable[[StoreState], StoreState]


def new_state(key: Key | None = None) -> StoreState:
    """A store that nothing happened in yet; encrypted where there is a key."""
    identity = os.urandom(8).hex()
    return StoreState(identity, _choose_pid_base(), seal_check=key.seal_for(identity).check if key else None)


def load(layout: StoreLayout) -> StoreState:
    """Raises StoreError when there is no readable ``store.json``."""
    try:
        return StoreState.from_json(layout.config.read_bytes())
    except FileNotFoundError:
        raise StoreError(
            f"there is no store at {layout.root}",
            tip="`criu-train run -- COMMAND` makes one; name another with --store",
        ) from None
    except OSError as error:
        raise StoreError(f"store.json can't be read: {error.strerror}", tip="check the disk") from error


def change(layout: StoreLayout, how: Change, disk: Disk = DISK) -> StoreState:
    """Replace the state by what ``how`` makes of it; the caller holds the mutex."""
    before = load(layout)
    after = how(before)
    if after != before:
        write_atomic(layout.config, after.to_json(), disk=disk)
    return after


@contextmanager
def mutex(layout: StoreLayout) -> Iterator[None]:
    """Keep every other process and thread from changing ``store.json`` or the set of snapshots; held only briefly."""
    descriptor = open_private(layout.mutex, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _choose_pid_base() -> int:
    """Where the PIDs of this store's training begin.

    PIDs stand in the names of files (``/dev/shm/torch_PID_…``), so two jobs should not number alike: a multiple of
    100 by chance. The upper part of the range stays free for what the training forks, and ``pid_max`` may be no
    more than 32768.
    """
    import secrets  # takes a while, and is needed once in a store's life

    limit = min(int(Path("/proc/sys/kernel/pid_max").read_text()), 32768) * 6 // 10
    return 1000 + 100 * secrets.randbelow(max(1, (limit - 1000) // 100))
