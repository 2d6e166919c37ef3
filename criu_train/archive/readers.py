"""Threads that bring large images from CRIU's pipes into memory as fast as the machine copies.

A pipe's bytes have an order, so one thread at a time decides where the next piece goes: it moves the piece, without
copying it, into a pipe of its own. The copying then goes on beside the next thread's turn.
"""

from __future__ import annotations

import os
import select
import threading
from queue import SimpleQueue

from criu_train.archive.captured import CapturedImage, Extent
from criu_train.archive.pipes import StoppedError, StopSign, enlarge
from criu_train.archive.space import Space

_THREADS = 3


class Readers:
    """They start at once and wait; the images come one after another."""

    def __init__(self, space: Space, stop: StopSign) -> None:
        self._space = space
        self._stop = stop
        self._turn = threading.Lock()
        self._queue: SimpleQueue[tuple[str, int] | None] = SimpleQueue()
        self._current: _Filling | None = None
        self._images: list[CapturedImage] = []
        self._threads = [threading.Thread(target=self._work, name="reader", daemon=True) for _ in range(_THREADS)]
        self.failure: OSError | None = None
        for thread in self._threads:
            thread.start()

    def add(self, name: str, pipe: int) -> None:
        """An image to read; the pipe is ours from now on."""
        enlarge(pipe)
        self._queue.put((name, pipe))

    def finish(self) -> tuple[CapturedImage, ...]:
        """Wait until every image was read to its end. After a stop, or a failure, some are missing."""
        self._queue.put(None)
        for thread in self._threads:
            thread.join()
        while not self._queue.empty():
            if (waiting := self._queue.get()) is not None:
                os.close(waiting[1])
        if self._current is not None:
            os.close(self._current.pipe)
        return tuple(self._images)

    def _work(self) -> None:
        ours, side = os.pipe()
        enlarge(ours)
        try:
            while (piece := self._next(side)) is not None:
                place = self._space.place(piece)
                while place:
                    place = place[os.readv(ours, [place]) :]
        except StoppedError:
            pass
        except OSError as error:
            self.failure = error
            self._stop.set()
        finally:
            self._queue.put(None)  # nobody waits for more
            os.close(ours)
            os.close(side)

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
