"""Where one capture lies: in the arena, and what does not fit there in a nameless file."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
from pathlib import Path

from criu_train.archive.arena import Arena
from criu_train.archive.captured import PAGE, Extent
from criu_train.store.durable import open_private

# Taken out of a pipe at one go; what the processor's cache holds until it is copied.
_PIECE = 512 << 10
# The disk is looked at after so many bytes, and so many must stay free on it.
_LOOK, _RESERVE = 64 << 20, 64 << 20
# Offsets from here on lie in the file.
_FILE = 1 << 62


class Space:
    """One thread at a time takes in; any may view. ``spill``: the file, None where nothing may go to the disk."""

    def __init__(self, arena: Arena, spill: Path | None) -> None:
        self._arena = arena
        self._used = 0
        self._spill_path = spill
        self._spill_fd = -1
        self._spill: memoryview | None = None
        self._look_at = 0
        self.spilled = 0

    def begin(self) -> None:
        """A new image: it starts on a page."""
        self._used += -self._used % PAGE
        self.spilled += -self.spilled % PAGE

    def take_in(self, pipe: int, side: int) -> Extent | None:
        """Move what waits in the pipe into ``side``, an empty pipe from which it is to be read to the place returned.

        What does not fit into memory goes to the disk at once. None at the end of the pipe. Raises BlockingIOError
        when nothing waits, OSError when the disk is about to be full.
        """
        room = self._arena.room(self._used)
        if not room:
            following = self._arena.following(self._used)
            if not (room := self._arena.room(following)):
                return self._to_disk(pipe)
            self._used = following
        taken = os.splice(pipe, side, min(_PIECE, room), flags=os.SPLICE_F_NONBLOCK)
        extent = Extent(self._used, taken)
        self._used += taken
        return extent if taken else None

    def end(self, last: Extent) -> None:
        """Nothing follows ``last``: the rest of its page holds what an earlier capture has left."""
        after = last.offset + last.length
        if last.offset < _FILE and (rest := -after % PAGE):
            self._arena.view(after, rest)[:] = bytes(rest)

    def place(self, extent: Extent) -> memoryview | None:
        """Memory to read into, None for what lies on the disk already."""
        return None if extent.offset >= _FILE else self._arena.view(extent.offset, extent.length)

    def view(self, extent: Extent) -> memoryview:
        """As ``Memory`` says."""
        place = self.place(extent)
        if place is None:
            place = self._file()[extent.offset - _FILE :][: extent.length]
        return place.toreadonly()

    def close(self) -> None:
        """The file goes as soon as nobody views it any more."""
        self._spill = None
        if self._spill_fd >= 0:
            os.close(self._spill_fd)
            self._spill_fd = -1

    def _to_disk(self, pipe: int) -> Extent | None:
        if self._spill_path is None:
            raise OSError(
                errno.ENOMEM, "not enough memory for the capture, and none of it may go to the disk unencrypted"
            )
        if self._spill_fd < 0:
            self._spill_fd = open_private(self._spill_path, os.O_RDWR | os.O_EXCL)
            with contextlib.suppress(OSError):  # nothing is left of it, however we end
                self._spill_path.unlink()
        if self.spilled >= self._look_at:
            self._check_disk()
        taken = os.splice(pipe, self._spill_fd, _PIECE, offset_dst=self.spilled, flags=os.SPLICE_F_NONBLOCK)
        extent = Extent(_FILE + self.spilled, taken)
        self.spilled += taken
        return extent if taken else None

    def _check_disk(self) -> None:
        status = os.fstatvfs(self._spill_fd)
        if status.f_bavail * status.f_frsize < _LOOK + _RESERVE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._spill_path))
        self._look_at = self.spilled + _LOOK

    def _file(self) -> memoryview:
        if self._spill is None:
            size = self.spilled + -self.spilled % PAGE
            os.ftruncate(self._spill_fd, size)
            self._spill = memoryview(mmap.mmap(self._spill_fd, size, access=mmap.ACCESS_READ))
        return self._spill
