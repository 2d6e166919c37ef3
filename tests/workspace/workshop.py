"""A job with real files, a real cell around a worker, and snapshots of its workspace without CRIU."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from cell_driver import Hands, perform

from criu_train.workspace.blobs import BlobReader
from criu_train.workspace.journal import Journals
from criu_train.workspace.listing import Listing, read_listing, write_listing
from criu_train.workspace.rollback import Rollback, roll_back
from criu_train.workspace.tracker import Tracker, WorkspacePolicy

DRIVER = Path(__file__).with_name("cell_driver.py")

State = dict[str, tuple[Any, ...]]


@dataclass(frozen=True)
class Taken:
    """A snapshot of the workspace."""

    path: Path
    journal: Path
    offset: int
    state: State

    @property
    def listing(self) -> Listing:
        return read_listing(self.path / "listing.json")


class Workshop:
    """One job: ``work`` is its working directory; ``ours`` does what the tree does, ``others`` what somebody else."""

    def __init__(self, place: Path) -> None:
        self.work = place / "work"
        self.store = self.work / ".criu-train"
        self.work.mkdir()
        for directory in (self.store, self.store / "journals", self.store / "snapshots", self.store / "rollback"):
            directory.mkdir()
        self.policy = WorkspacePolicy((str(self.work),), exclude=(str(self.store),))
        self.cells = self.taken = self.rolled = 0
        self.hands = Hands()
        self.cell: subprocess.Popen[str] | None = None

    def start(self, listing: Listing | None = None) -> None:
        """A new cell with a journal of its own."""
        self.cells += 1
        self.journal = self.store / "journals" / f"{self.cells:06d}.jsonl"
        settings = {"journal": str(self.journal), "roots": [str(self.work)], "exclude": [str(self.store)]}
        unshare = ["unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc"]
        self.cell = subprocess.Popen(
            [*unshare, sys.executable, str(DRIVER), json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.cell.stdout is not None
        hello = json.loads(self.cell.stdout.readline())
        assert hello["available"], hello["reason"]
        init = psutil.Process(self.cell.pid).children()[0]
        self.init = init.pid
        self.pids = [child.pid for child in init.children()]
        self.tracker = Tracker(self.policy, listing, self.journal, hold=True)

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self.cell is not None and self.cell.stdin is not None and self.cell.stdout is not None
        self.cell.stdin.write(json.dumps(request) + "\n")
        self.cell.stdin.flush()
        answer: dict[str, Any] = json.loads(self.cell.stdout.readline())
        return answer

    def ours(self, *ops: list[Any]) -> None:
        self.ask({"ops": [self._absolute(op) for op in ops]})

    def others(self, *ops: list[Any]) -> None:
        perform(self.hands, [self._absolute(op) for op in ops])

    def sync(self) -> int:
        return int(self.ask({"sync": True})["offset"])

    def go_deaf(self) -> None:
        """From now on the journal gets nothing: the last instants before everything is killed."""
        self.ask({"deaf": True})

    def precopy(self) -> Path:
        self.taken += 1
        path = self.store / "snapshots" / f"{self.taken:06d}"
        (path / "files").mkdir(parents=True)
        self.sync()
        self.tracker.precopy(self.pids, path / "files")
        return path

    def cut(self, path: Path, remaps: Sequence[tuple[str, str]] = ()) -> Taken:
        offset = self.sync()
        self.tracker.cut(self.pids, path / "files", remaps)
        state = self.state()
        write_listing(self.tracker.finish(path / "files"), path / "listing.json")
        return Taken(path, self.journal, offset, state)

    def take(self) -> Taken:
        return self.cut(self.precopy())

    def kill(self, *, at_rest: bool = False) -> None:
        """SIGKILL for everything; ``at_rest``: when what was done has come to the journal."""
        if at_rest:
            self.sync()
        if self.cell is not None:
            for init in psutil.Process(self.cell.pid).children():
                init.kill()
            self.cell.wait(10)
            assert self.cell.stdin is not None and self.cell.stdout is not None
            self.cell.stdin.close()
            self.cell.stdout.close()
            self.cell = None

    def roll_back(self, taken: Taken) -> Rollback:
        self.rolled += 1
        journals = Journals.since(self.store / "journals", taken.journal.name, taken.offset)
        keep = self.store / "rollback" / f"{self.rolled:06d}"
        return roll_back(taken.listing, BlobReader(taken.path / "files"), journals, keep)

    def state(self) -> State:
        """All that can be seen below the working directory, but the times of directories and what the store holds."""
        return self.state_of(self.work)

    def state_of(self, directory: Path) -> State:
        """The same of another directory."""
        return dict(_look(str(directory), len(str(directory)) + 1, str(self.store)))

    def kept(self) -> set[bytes]:
        """The bytes of everything under rollback/."""
        return {path.read_bytes() for path in (self.store / "rollback").rglob("files/**/*") if path.is_file()}

    def path(self, name: str) -> Path:
        return self.work / name

    def _absolute(self, op: list[Any]) -> list[Any]:
        """Names become paths: the first argument always, the second of those that take two names."""
        verb, *arguments = op
        if verb in ("poke", "unmap"):
            return op
        arguments[0] = str(self.work / arguments[0])
        if verb in ("rename", "link"):
            arguments[1] = str(self.work / arguments[1])
        return [verb, *arguments]


def _look(directory: str, strip: int, store: str) -> Iterator[tuple[str, tuple[Any, ...]]]:
    for entry in os.scandir(directory):
        if entry.path == store:
            continue
        info = entry.stat(follow_symlinks=False)
        mode = stat.S_IMODE(info.st_mode)
        name = entry.path[strip:]
        if entry.is_symlink():
            yield name, ("symlink", os.readlink(entry.path))
        elif entry.is_dir():
            yield name, ("dir", mode)
            yield from _look(entry.path, strip, store)
        elif entry.is_file():
            yield name, ("file", mode, Path(entry.path).read_bytes(), info.st_mtime_ns)
        else:
            yield name, ("special", stat.S_IFMT(info.st_mode), mode)
