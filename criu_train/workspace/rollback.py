"""Putting the workspace back to the cut, so that nothing is destroyed and all of it can be undone.

Every step is on disk before the first is done, so whoever comes later, also after a SIGKILL or a power cut in the
middle, can undo the whole from the record alone.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from criu_train.store.durable import make_private_dir, write_atomic
from criu_train.workspace import stash
from criu_train.workspace.journal import OURS_MADE, OURS_WROTE, Evidence, Journals, gather
from criu_train.workspace.listing import Listing
from criu_train.workspace.plan import Plan
from criu_train.workspace.saver import HELD
from criu_train.workspace.steps import Step

_RECORD, _FILES, _DONE, _UNDONE, _PROGRESS = "journal.jsonl", "files", "DONE", "UNDONE", "undone.jsonl"
_WORDS = (
    ("cut", "cut"),
    ("replace", "replaced"),
    ("put", "put back"),
    ("move", "moved away"),
    ("mkdir", "directories made"),
    ("meta", "times or modes set"),
)


class Rollback:
    """A rollback that was done. Exactly one of ``commit`` and ``undo`` follows; ``recover_unfinished`` where neither
    could."""

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

    def do(self, step: Step, blobs: Path) -> None:
        """One step. What can't be moved out of the way is told and stays: better than no restore at all."""
        try:
            step.do(self._directory / _FILES, blobs)
        except OSError as error:
            if step.verb != "move" or error.errno not in (errno.EPERM, errno.EBUSY, errno.EROFS):
                raise
            self.warnings += (f"newer than the snapshot and can't be moved away ({error.strerror}): {step.path}",)

    def commit(self) -> None:
        """The restored training runs: what was kept stays kept."""
        for path in self._remaps:
            stash.remove(path)
        if self._steps:
            write_atomic(self._directory / _DONE, b"")

    def undo(self) -> None:
        """Everything is as it was before the rollback. OSError when that can't be done; it can be called again."""
        if not self._steps:
            return
        progress = self._directory / _PROGRESS
        done = len(progress.read_bytes().split()) if progress.exists() else 0
        with progress.open("ab", buffering=0) as file:
            for step in list(reversed(self._steps))[done:]:
                step.undo(self._directory / _FILES)
                file.write(b"1\n")
        write_atomic(self._directory / _UNDONE, b"")


def roll_back(listing: Listing, blobs: Path, journals: Journals, keep_dir: Path) -> Rollback:
    """Put everything back. ``keep_dir`` does not exist yet and is only made when there is something to do.

    OSError when a step can't be done; what was done is undone then.
    """
    evidence = gather(journals, listing.cut_ns)
    _recall_undone(evidence, keep_dir.parent, listing.cut_ns)
    plan = Plan(listing, evidence, blobs.parent / HELD)
    remaps = [entry.path for entry in listing.remaps]
    rollback = Rollback(keep_dir, plan.steps, plan.warnings, remaps)
    if plan.steps:
        _record(keep_dir, plan.steps)
        try:
            for step in plan.steps:
                rollback.do(step, blobs)
        except BaseException:
            rollback.undo()
            raise
    return rollback


def recover_unfinished(rollback_root: Path) -> list[Path]:
    """Undo, newest first, what was neither committed nor undone; returns the directories concerned."""
    if not rollback_root.is_dir():
        return []
    recovered = []
    for directory in sorted(rollback_root.iterdir(), reverse=True):
        record = directory / _RECORD
        if record.exists() and not (directory / _DONE).exists() and not (directory / _UNDONE).exists():
            steps = [Step(**json.loads(line)) for line in record.read_text().splitlines()]
            Rollback(directory, steps).undo()
            recovered.append(directory)
    return recovered


def set_aside(paths: Iterable[Path], rollback_root: Path) -> Path | None:
    """Before a cold start: move files out of the way. Returns where they are, None when there are none."""
    present = [path for path in paths if os.path.lexists(path)]
    if not present:
        return None
    directory = rollback_root / time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    number = 1
    while directory.exists():
        directory = rollback_root / f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{number}"
        number += 1
    steps = [Step("move", str(path), path.name) for path in present]
    _record(directory, steps)
    for step in steps:
        step.do(directory / _FILES, directory)
    Rollback(directory, steps).commit()
    return directory


def _recall_undone(evidence: Evidence, rollback_root: Path, cut_ns: int) -> None:
    """What rollbacks since the cut took for the tree's doing: undoing them has changed the times that told so."""
    for marker in rollback_root.glob(f"*/{_UNDONE}"):
        if marker.stat().st_mtime_ns > cut_ns:
            for line in (marker.parent / _RECORD).read_text().splitlines():
                step = json.loads(line)
                evidence.recall(step["path"], OURS_MADE if step["verb"] == "move" else OURS_WROTE)


def _record(directory: Path, steps: Sequence[Step]) -> None:
    for made in (directory.parent, directory, directory / _FILES):
        if not made.is_dir():
            make_private_dir(made)
    write_atomic(directory / _RECORD, "".join(json.dumps(step.to_json()) + "\n" for step in steps).encode())
