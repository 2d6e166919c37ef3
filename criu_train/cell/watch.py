"""What the tree did to files, and what others did beside it: fanotify inside the cell, written to the journal.

The listener lives in init, so it outlives the supervisor, and in the cell's PID namespace, so the kernel itself tells
the tree's doings from everybody else's: an event of a process outside carries pid 0. A journal is JSON lines:

    {"what": ["start"], "at": NS, "boot": ID, "watched": true, "reason": "", "blind": ["/mnt/x", ...]}
    {"who": "ours" | "other", "what": ["make", "write", "attrib", "gone"], "dir": true, "path": "/..."}
    {"what": ["overflow"]}

``make``: created, or renamed or linked to this name; ``gone``: deleted, or renamed away. The same thing said twice
between two ``sync()`` is written once, so a file that is rewritten each step does not fill the journal; nor do files in
/tmp and /dev/shm that live for less than a second. The journal's
modification time is the cell's last sign of life.

Guarantee: what is not in the journal when everything is killed was done in the last instant before; it can still be
told from the file's change time. Standard library only: this runs as PID 1.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Sequence

from criu_train.cell import fanotify
from criu_train.cell.directories import Directories
from criu_train.cell.journal_file import JournalFile
from criu_train.cell.muted import Muted
from criu_train.cell.passing import Passing

_MAKE, _WRITE, _ATTRIB, _GONE, _DIR = 1, 2, 4, 8, 16
_OVER = 32  # made by renaming, maybe over another
_NEW = 64  # the first that was heard of it in a batch is that it was created
_SAID = _MAKE | _WRITE | _ATTRIB | _GONE
_WORDS = ((_MAKE, "make"), (_WRITE, "write"), (_ATTRIB, "attrib"), (_GONE, "gone"))
_BITS = (
    (fanotify.CREATE | fanotify.MOVED_TO, _MAKE),
    (fanotify.CLOSE_WRITE | fanotify.MODIFY, _WRITE),
    (fanotify.ATTRIB, _ATTRIB),
    (fanotify.DELETE | fanotify.MOVED_FROM, _GONE),
)
_DIRECTORY_MOVED = fanotify.RENAME | fanotify.MOVED_FROM | fanotify.MOVED_TO | fanotify.DELETE
# Names that CRIU gives to files of its own beside the tree's.
_CRIUS = re.compile(rb"link_remap\.\d+\Z|\.criu\.|.*\.cr\.[0-9a-f]+\.ghost\Z")
# Directories that everybody shares: that the tree wrote there is no reason to note what others do there.
_SHARED = {"/", "/tmp", "/run", "/dev/shm", "/var/tmp", "/home", "/root", "/etc", "/var", "/var/log"}  # noqa: S108
_READ_BYTES = 256 * 1024
# Letting events gather for an instant: a training that writes a thousand lines a second wakes init 200 times, not 1000.
_GATHER_S = 0.005
# So many events at most between two looks at what else init has to do.
_AT_A_TIME = 50_000
# Enough for every path of a large run; beyond it a line may be written twice.
_SEEN_MAX = 200_000
# Beyond so many directories outside of the roots those that are gone are forgotten.
_OUR_DIRS_MAX = 1_000


class Watch:
    """Watches every writable filesystem of the cell; ``roots`` also for others' doings and unfinished writes.

    ``exclude``: directories of ours (the store), never journaled. ``include``: files in there that belong to the
    tree; they need no watching, since the tracker looks at them at every cut. ``available`` is False, with a
    ``reason``, where the kernel doesn't allow watching; the journal then holds its first line and the heartbeat only.
    """

    def __init__(
        self, journal: str, roots: Sequence[str], *, exclude: Sequence[str] = (), include: Sequence[str] = ()
    ) -> None:
        self._journal_path = journal
        self._roots = [os.path.realpath(root) for root in roots]
        self._exclude = tuple(os.path.realpath(path) for path in exclude)
        self._inside = tuple(root.rstrip("/") + "/" for root in self._roots)
        self._outside = tuple(path + "/" for path in self._exclude)
        self._group = -1
        self._journal: JournalFile | None = None
        self._seen: dict[tuple[str, str], int] = {}
        self._passing = Passing(self._inside)
        self._our_dirs: set[str] = set()
        self._ignored: set[int] = set()
        self.available = False
        self.reason = "not armed yet"

    def arm(self) -> None:
        """Open the journal, write its first line, start watching. Only a journal that can't be written raises."""
        self._journal = journal = JournalFile(self._journal_path)
        blind: list[str] = []
        try:
            self._group = fanotify.init()
            self._muted = Muted(self._group)
            self._directories = Directories(self._group, self._roots, self._exclude)
            blind = self._directories.arm()
            with contextlib.suppress(OSError):  # each sign of life would be an event, and wake us for another
                fanotify.mute(self._group, journal.fileno())
            self.available, self.reason = True, ""
        except OSError as error:
            self.reason = f"{error.filename or 'fanotify'}: {error.strerror}"
            self._close_group()
        with open("/proc/sys/kernel/random/boot_id") as file:  # noqa: PTH123
            boot = file.read().strip()
        start = {"at": time.time_ns(), "boot": boot, "watched": self.available, "reason": self.reason, "blind": blind}
        journal.write([json.dumps({"what": ["start"], **start})])
        self._tell_missed()

    def fileno(self) -> int:
        """Readable when there are events to ``handle()``; -1 when not available."""
        return self._group

    @property
    def offset(self) -> int:
        """Bytes written to the journal so far."""
        return self._journal.offset if self._journal is not None else 0

    def handle(self) -> None:
        """Called when ``fileno()`` is readable: journal what has happened."""
        if self.available:
            time.sleep(_GATHER_S)
            self._drain(_AT_A_TIME)

    def sync(self) -> int:
        """Journal everything that has happened up to now and return the offset; what happens from now on is written
        again even if it was written before, so that the offset divides before from after."""
        if self.available:
            # Not until the queue is empty: on a busy machine it may never be.
            self._drain(fanotify.queued_at_most(self._group))
        self._say(self._passing.due(everything=True))
        self._seen.clear()
        if self.available:
            self._muted.forget_below(None)
        if len(self._our_dirs) > _OUR_DIRS_MAX:
            self._our_dirs = {path for path in self._our_dirs if os.path.isdir(path)}  # noqa: PTH112
        return self.offset

    def heartbeat(self) -> None:
        """The cell is alive now."""
        if self._journal is not None:
            self._journal.heartbeat()
            self._say(self._passing.due())
            if self.available:
                self._muted.refresh()

    def ignore(self, pid: int) -> None:
        """What this process of the cell does is neither the tree's nor anybody's: CRIU. Until ``heed``."""
        self._ignored.add(pid)

    def heed(self, pid: int) -> None:
        """The ignored process has been reaped: its number may soon be the tree's again."""
        if self.available:
            self._drain(fanotify.queued_at_most(self._group))
        self._ignored.discard(pid)

    def close(self) -> None:
        """Stop watching; the journal stays."""
        self._close_group()
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def _close_group(self) -> None:
        if self.available:
            self._muted.forget_below(None)
        self.available = False
        if self._group >= 0:
            os.close(self._group)
            self._group = -1

    def _drain(self, events: int) -> None:
        """Read at least that many events, or all that are queued."""
        while events > 0:
            try:
                data = os.read(self._group, _READ_BYTES)
            except BlockingIOError:
                return
            batch: dict[tuple[str, str], int] = {}
            for event in fanotify.parse(data):
                self._note(event, batch)
                events -= 1
            self._tell(batch)

    def _note(self, event: fanotify.Event, batch: dict[tuple[str, str], int]) -> None:
        if event.mask & fanotify.Q_OVERFLOW:
            self._overflow()
            return
        if event.pid == 1 or event.pid in self._ignored:
            return
        who = "ours" if event.pid else "other"
        common = _DIR if event.mask & fanotify.ONDIR else 0
        for kernel, bit in _BITS:
            if event.mask & kernel:
                common |= bit
        renamed: list[str | None] = [None, None]
        for info, key, name in event.names:
            bits = common
            path = self._directories.path(key, name)
            if info == fanotify.INFO_OLD_NAME:
                bits |= _GONE
                renamed[0] = path
            elif info == fanotify.INFO_NEW_NAME:
                bits |= _MAKE | _OVER
                renamed[1] = path
            if path is not None and bits & (_GONE | _MAKE):
                self._muted.forget(path)
            if path is not None and not _CRIUS.match(name) and self._concerns(who, path, bits):
                known = batch.get((who, path))
                if known is None and bits & (_MAKE | _OVER) == _MAKE:
                    bits |= _NEW
                batch[who, path] = (known or 0) | bits
        if common & _DIR and event.mask & _DIRECTORY_MOVED:
            self._directories.forget(renamed[0], renamed[1])
            if event.mask & ~fanotify.DELETE & _DIRECTORY_MOVED:  # one that was deleted was empty
                self._muted.forget_below(renamed[0])

    def _tell_missed(self) -> None:
        if self.available and self._directories.missed:
            self._directories.missed = False
            self._overflow()

    def _concerns(self, who: str, path: str, bits: int) -> bool:
        """Whether anybody will ever ask for this."""
        if path.startswith(self._outside):
            return False
        inside = path.startswith(self._inside)
        if inside and bits & _DIR and bits & _MAKE:
            self._directories.adopt(path)
            self._tell_missed()
        parent = path[: path.rfind("/")] or "/"
        if who == "other":
            return inside or parent in self._our_dirs
        if not inside and parent not in _SHARED:
            self._our_dirs.add(parent)
        return True

    def _tell(self, batch: dict[tuple[str, str], int]) -> None:
        for key, bits in list(batch.items()):
            new, gone = bool(bits & _NEW) and key not in self._seen, bool(bits & _GONE)
            # What came and went between two looks was never there for anybody who reads the journal.
            if self._passing.holds(key, bits, new=new, gone=gone) or (new and gone and not os.path.lexists(key[1])):
                del batch[key]
        self._say(batch)

    def _say(self, doings: dict[tuple[str, str], int]) -> None:
        lines = []
        for key, bits in doings.items():
            seen = self._seen.get(key, 0)
            if bits & _SAID & ~seen == 0:
                if bits & (_SAID | _DIR) == _WRITE and key[0] == "ours":
                    self._muted.add(key[1])
                continue
            if len(self._seen) > _SEEN_MAX:
                self._seen.clear()
            self._seen[key] = seen | bits
            record: dict[str, object] = {"who": key[0], "what": [word for bit, word in _WORDS if bits & bit]}
            if bits & _DIR:
                record["dir"] = True
            lines.append(json.dumps({**record, "path": key[1]}, separators=(",", ":")))
        if lines and self._journal is not None and not self._journal.write(lines):
            self._seen.clear()  # who knows what of it was told

    def _overflow(self) -> None:
        if self._journal is not None:
            self._journal.write_overflow()
