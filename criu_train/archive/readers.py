"""Threads that bring large images from CRIU's pipes into memory as fast as the machine copies.

A pipe's bytes have an order, so one thread at a time decides where the next piece goes: it moves the piece, without
copying it, into a pipe of its own. The copying then goes on beside the next thread's turn.
"""

from __future__ import annotations

import errno
import os
import select
import threading
from queue import SimpleQueue

from criu_train.archive.captured import CapturedImage, Extent
from criu_train.archive.pipes import StoppedError, StopSign, enlarge
from criu_train.archive.space import Space

_THREADS = 3


class Readers:
    """They start at once and wait; the images come one after another. Raises OSError when they can't be started."""

    def __init__(self, space: Space, stop: StopSign) -> None:
        self._space = space
        self._stop = stop
        self._turn = threading.Lock()
        self._queue: SimpleQueue[tuple[str, int] | None] = SimpleQueue()
        self._current: _Filling | None = None
        self._images: list[CapturedImage] = []
        self._added = 0
        self._taken = 0  # bytes; taken by one thread at a time,
        self._placed: list[int] = []  # and placed by all, one entry a thread
        self.failure: OSError | None = None
        self._threads: list[threading.Thread] = []
        try:
            for _ in range(_THREADS):
                self._start()
        except BaseException:
            self._join()
            raise

    def add(self, name: str, pipe: int) -> None:
        """An image to read; the pipe is ours from now on."""
        enlarge(pipe)
        self._added += 1
        self._queue.put((name, pipe))

    def finish(self) -> tuple[CapturedImage, ...]:
        """Wait until every image was read to its end.

        After a stop some are missing; whenever any is, or a byte of one, ``failure`` tells.
        """
        self._join()
        while not self._queue.empty():
            if (waiting := self._queue.get()) is not None:
                os.close(waiting[1])
        if self._current is not None:
            os.close(self._current.pipe)
        if self.failure is None and not self._stop.is_set:
            if len(self._images) != self._added:
                self._fail(OSError(f"only {len(self._images)} of {self._added} images came to an end"))
            elif sum(self._placed) != self._taken:
                self._fail(OSError(f"only {sum(self._placed)} of {self._taken} bytes were read"))
        return tuple(self._images)

    def _start(self) -> None:
        pipe = os.pipe()
        thread = threading.Thread(target=self._work, args=pipe, name="reader", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            for end in pipe:
                os.close(end)
            raise OSError(errno.EAGAIN, str(error)) from error
        self._threads.append(thread)

    def _join(self) -> None:
        self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _fail(self, error: BaseException) -> None:
        self.failure = error if isinstance(error, OSError) else OSError(f"reading CRIU's images failed: {error!r}")
        self._stop.set()

    def _work(self, ours: int, side: int) -> None:
        placed = 0
        try:
            enlarge(ours)
            while (piece := self._next(side)) is not None:
                placed += self._put(piece, ours)
        except StoppedError:
            pass
        except BaseException as error:  # a thread that is lost takes bytes along: no capture without them is whole
            self._fail(error)
        finally:
            self._placed.append(placed)
            self._queue.put(None)  # nobody waits for more
            os.close(ours)
            os.close(side)

    def _put(self, piece: Extent, pipe: int) -> int:
        """Read a piece to its place; its bytes."""
        place = self._space.place(piece)
        while place:
            if not (count := os.readv(pipe, [place])):
                raise OSError(errno.EIO, "a pipe ended early")
            place = place[count:]
        return piece.length

    def _next(self, side: int) -> Extent | None:
        """The next piece of the current image; None when there are no more images."""
        with self._turn:
            while True:
                if self._current is None:
                    waiting = self._queue.get()
                    if waiting is None:
                        return None
                    self._current = _Filling(*waiting)
                    self._space.begin()
                image = self._current
                try:
                    piece = self._space.take_in(image.pipe, side)
                except BlockingIOError:
                    self._stop.wait(image.pipe, select.POLLIN)
                    continue
                if piece is not None:
                    self._taken += piece.length
                    image.add(piece)
                    return piece
                self._end(image)

    def _end(self, image: _Filling) -> None:
        if image.extents:
            self._space.end(image.extents[-1])
        self._images.append(CapturedImage(image.name, image.size, tuple(image.extents)))
        self._current = None
        os.close(image.pipe)


class _Filling:
    """An image on its way."""

    def __init__(self, name: str, pipe: int) -> None:
        self.name = name
        self.pipe = pipe
        self.size = 0
        self.extents: list[Extent] = []

    def add(self, piece: Extent) -> None:
        self.size += piece.length
        last = self.extents[-1] if self.extents else None
        if last is not None and last.offset + last.length == piece.offset:
            self.extents[-1] = Extent(last.offset, last.length + piece.length)
        else:
            self.extents.append(piece)
