"""Putting the workspace back to the cut, so that nothing is destroyed and all of it can be undone.

Every step is on disk before the first is done, so whoever comes later, also after a SIGKILL or a power cut in the
middle, can undo the whole from the record alone.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from criu_train.errors import StoreError
from criu_train.moments import reached
from criu_train.store.durable import fsync_dir, fsync_tree, make_private_dir, write_atomic
from criu_train.store.seal import PLAIN, Seal, SealError, place_of, read_sealed
from criu_train.workspace import stash
from criu_train.workspace.blobs import BlobReader
from criu_train.workspace.journal import OURS_MADE, OURS_WROTE, Evidence, Journals, gather
from criu_train.workspace.listing import Listing
from criu_train.workspace.plan import Plan
from criu_train.workspace.reach import StrayedError, reach
from criu_train.workspace.saver import HELD
from criu_train.workspace.steps import Step

_RECORD, _FILES, _DONE, _UNDONE, _PROGRESS = "journal.jsonl", "files", "DONE", "UNDONE", "undone.jsonl"
_SYNC_THREADS = 8
_WORDS = (
    ("cut", "cut"),
    ("replace", "replaced"),
    ("rewrite", "rewritten"),
    ("put", "put back"),
    ("move", "moved away"),
    ("mkdir", "directories made"),
    ("meta", "times or modes set"),
)


class Rollback:
    """A rollback that was done. ``commit`` or ``undo`` follows, or both where what it was for fails later;
    ``recover_unfinished`` where neither could."""

    def __init__(
        self, directory: Path, steps: Sequence[Step], warnings: Sequence[str] = (), remaps: Sequence[str] = ()
    ) -> None:
        self._directory = directory
        self._steps = steps
        self._remaps = remaps
        self.warnings = tuple(warnings)

    @property
    def summary(self) -> str:
        """One phrase, such as "3 cut, 1 put back"; "nothing to do"."""
        counts = Counter(step.verb for step in self._steps)
        return ", ".join(f"{counts[verb]} {word}" for verb, word in _WORDS if counts[verb]) or "nothing to do"  # type: ignore[index]

    def do(self, blobs: BlobReader) -> None:
        """All steps. What the steps destroy is durable under its kept name before the first of them.

        What can't be moved out of the way is told and stays: better than no restore at all.
        """
        files = self._directory / _FILES
        keeping = [step for step in self._steps if step.keeps]
        strayed = {step.path for step in keeping if not self._try(step, partial(step.keep, files))}
        if keeping:
            fsync_tree(files)
        reached("rollback-kept")
        for step in self._steps:
            if step.path not in strayed:
                self._try(step, partial(step.do, files, blobs))
                reached("rollback-step")

    def commit(self) -> None:
        """The restored training runs: what was put back is durable, what was kept stays kept. OSError."""
        for remap in self._remaps:
            with reach(remap) as path:
                stash.remove(path)
        if self._steps:
            with ThreadPoolExecutor(_SYNC_THREADS) as pool:
                list(pool.map(Step.sync, self._steps))
            fsync_dir(self._directory / _FILES)
            write_atomic(self._directory / _DONE, b"")

    def undo(self) -> None:
        """Everything is as it was before the rollback. OSError when that can't be done; it can be called again."""
        if not self._steps:
            return
        if (self._directory / _DONE).exists():  # else nobody would complete it after a crash
            (self._directory / _DONE).unlink()
            fsync_dir(self._directory)
        progress = self._directory / _PROGRESS
        done = len(progress.read_bytes().split()) if progress.exists() else 0
        with progress.open("ab", buffering=0) as file:
            for step in list(reversed(self._steps))[done:]:
                self._try(step, partial(step.undo, self._directory / _FILES))
                file.write(b"1\n")
        write_atomic(self._directory / _UNDONE, b"")

    def _try(self, step: Step, action: Callable[[], None]) -> bool:
        try:
            action()
        except StrayedError:
            self.warnings += (f"left as it is, since something else was put in its way: {step.path}",)
        except OSError as error:
            if step.verb == "move" and error.errno == errno.ENOENT:  # it went by itself, which is as good
                return False
            if step.verb != "move" or error.errno not in (errno.EPERM, errno.EBUSY, errno.EROFS):
                raise
            self.warnings += (f"newer than the snapshot and can't be moved away ({error.strerror}): {step.path}",)
        else:
            return True
        return False


def roll_back(listing: Listing, blobs: BlobReader, journals: Journals, keep_dir: Path) -> Rollback:
    """Put everything back. ``keep_dir`` does not exist yet and is only made when there is something to do.

    OSError when a step can't be done; what was done is undone then.
    """
    evidence = gather(journals, listing.cut_ns)
    _recall_undone(evidence, keep_dir.parent, listing.cut_ns, blobs.seal)
    plan = Plan(listing, evidence, blobs.directory.parent / HELD, blobs.seal)
    remaps = [entry.path for entry in listing.remaps]
    rollback = Rollback(keep_dir, plan.steps, plan.warnings, remaps)
    if plan.steps:
        _record(keep_dir, plan.steps, after=_newest_journal(keep_dir.parent), seal=blobs.seal)
        reached("rollback-recorded")
        try:
            rollback.do(blobs)
        except BaseException:
            rollback.undo()
            raise
    return rollback


def recover_unfinished(rollback_root: Path, seal: Seal = PLAIN) -> list[Path]:
    """Undo, newest first, what was neither committed nor undone; returns the directories concerned.

    StoreError when a training went on after one of them: undoing that would mix the files of two times; and, in a store
    with a key (``seal``), for a record that others put there.
    """
    if not rollback_root.is_dir():
        return []
    recovered = []
    for directory in sorted(rollback_root.iterdir(), reverse=True):
        if not (directory / _RECORD).exists() or _is_over(directory):
            continue
        try:
            after, steps = _read_record(directory, seal)
        except SealError as error:
            raise StoreError(
                f"{directory} was put there by others: it was not sealed with this key",
                tip=f"look at it, remove it, and run again; {directory / _FILES} may hold what is yours",
            ) from error
        # The first cell after it is the one that it was done for.
        if len([path for path in _journals(rollback_root) if path.name > after]) > 1:
            raise StoreError(
                f"{directory.name} was neither finished nor undone, and a later snapshot was restored since",
                tip=f"take from {directory / _FILES} what you miss, then remove {directory} and run again",
            )
        Rollback(directory, [Step(**step) for step in steps]).undo()
        recovered.append(directory)
    return recovered


def forget_old(rollback_root: Path, *, older_than_s: float, keep: int) -> list[Path]:
    """Remove what rollbacks that are over have kept, but for the newest ``keep`` and those younger than that.

    ``older_than_s`` must be more than the age of the oldest snapshot that may yet be restored. Returns what was
    removed. OSError.
    """
    if not rollback_root.is_dir():
        return []
    removed, until = [], time.time() - older_than_s
    for directory in sorted(rollback_root.iterdir(), reverse=True)[keep:]:
        over = _is_over(directory) or not (directory / _RECORD).exists()
        if over and directory.stat().st_mtime < until:
            # First the record: what is removed by halves must not be taken for a rollback that broke off.
            (directory / _RECORD).unlink(missing_ok=True)
            fsync_dir(directory)
            shutil.rmtree(directory)
            removed.append(directory)
    return removed


def set_aside(paths: Iterable[Path], rollback_root: Path, seal: Seal = PLAIN) -> Rollback | None:
    """Before a cold start: move files out of the way. Returns what brings them back, None when there are none."""
    present = [path for path in paths if os.path.lexists(path)]
    if not present:
        return None
    directory = rollback_root / time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    number = 1
    while directory.exists():
        directory = rollback_root / f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{number}"
        number += 1
    steps = [Step("move", f"{path.parent.resolve()}/{path.name}", path.name) for path in present]
    _record(directory, steps, after=_newest_journal(rollback_root), seal=seal)
    rollback = Rollback(directory, steps)
    rollback.do(BlobReader(directory))
    rollback.commit()
    return rollback


def _recall_undone(evidence: Evidence, rollback_root: Path, cut_ns: int, seal: Seal) -> None:
    """What rollbacks since the cut took for the tree's doing: undoing them has changed the times that told so."""
    for marker in rollback_root.glob(f"*/{_UNDONE}"):
        if marker.stat().st_mtime_ns > cut_ns and (marker.parent / _RECORD).exists():
            with contextlib.suppress(SealError):  # it tells nothing that we did
                for step in _read_record(marker.parent, seal)[1]:
                    evidence.recall(step["path"], OURS_MADE if step["verb"] == "move" else OURS_WROTE)


def _is_over(directory: Path) -> bool:
    return (directory / _DONE).exists() or (directory / _UNDONE).exists()


def _journals(rollback_root: Path) -> list[Path]:
    return sorted((rollback_root.parent / "journals").glob("*.jsonl"))


def _newest_journal(rollback_root: Path) -> str:
    journals = _journals(rollback_root)
    return journals[-1].name if journals else ""


def _record(directory: Path, steps: Sequence[Step], *, after: str, seal: Seal) -> None:
    """``after``: name of the newest journal. Sealed, since whoever finds it does as root what it says."""
    for made in (directory.parent, directory, directory / _FILES):
        if not made.is_dir():
            make_private_dir(made)
    lines = [{"after": after}, *(step.to_json() for step in steps)]
    record = "".join(json.dumps(line) + "\n" for line in lines).encode()
    write_atomic(directory / _RECORD, bytes(seal.seal(record, place_of(directory, _RECORD))))
    fsync_dir(directory.parent)


def _read_record(directory: Path, seal: Seal) -> tuple[str, list[dict[str, Any]]]:
    """Raises SealError, OSError."""
    head, *steps = [json.loads(line) for line in read_sealed(directory, _RECORD, seal).decode().splitlines()]
    return head["after"], steps
