"""Handing images to a restore: small ones as they lie there, large ones out of the packs, checked piece by piece."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Protocol

from criu_train.archive.pipes import StoppedError, StopSign, enlarge, lend_all, write_all
from criu_train.criu import stream
from criu_train.store.seal import PLAIN, Seal, read_sealed

# Read from a small image at one go.
_PIECE = 1 << 20
_READABLE = select.POLLIN


class Pages(Protocol):
    """The large images of a snapshot."""

    @property
    def names(self) -> Mapping[str, int]: ...

    def stream(self, name: str, write: Callable[[memoryview], None]) -> None: ...


class Serving:
    """One restore. CRIU connects to the socket in ``directory``; ``pages`` hold the large images.

    A small image that lies in ``directory`` is handed out instead of the one in ``images``.

    ``names``: the small ones that have to be in ``images``, so that one that is lost is no answer that there is none;
    None for those that are. ``seal``: the store's.

    A pipe that ended early would be taken for the end of a deleted file. So when anything is wrong, ``on_problem`` is
    told, once, and from then on every pipe stays open and silent until ``close``: the restore can't end.
    """

    def __init__(
        self,
        images: Path,
        pages: Pages,
        directory: Path,
        on_problem: Callable[[str], None],
        *,
        names: Collection[str] | None = None,
        seal: Seal = PLAIN,
    ) -> None:
        self._images = images
        self._names = names
        self._seal = seal
        self._pages = pages
        self._replaced = directory
        self._on_problem = on_problem
        self._listener = stream.listen(directory, stream.SERVE_SOCKET)
        self._stop = StopSign()
        self._silent = threading.Event()
        self._lock = threading.Lock()
        self._connection: socket.socket | None = None
        self._threads = [threading.Thread(target=self._run, name="serve", daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        """CRIU has ended, or shall: let go of every pipe."""
        self._stop.set()
        for thread in self._threads:  # the first one adds no more once it has ended
            thread.join()
        self._listener.close()
        if self._connection is not None:
            self._connection.close()

    @property
    def whole(self) -> bool:
        """Nothing was wrong so far."""
        return not self._silent.is_set()

    def _run(self) -> None:
        try:
            self._stop.wait(self._listener.fileno(), _READABLE)
            self._connection = connection = self._listener.accept()[0]
            while self._take_request(connection):
                pass
        except (StoppedError, ConnectionError):
            pass  # CRIU has ended, and its log tells why
        except Exception as error:  # whatever it was, no pipe may end early
            self._fail(str(error))

    def _take_request(self, connection: socket.socket) -> bool:
        self._stop.wait(connection.fileno(), _READABLE)
        name = stream.receive_name(connection)
        if name is None:
            return False
        if self._silent.is_set():
            self._stop.wait()
        small = (self._images / name).is_file() if self._names is None else name in self._names
        exists = small or name in self._pages.names
        stream.send_answer(connection, exists)
        pipe = stream.receive_pipe(connection) if exists else None
        if pipe is not None:
            thread = threading.Thread(target=self._hand_out, args=(name, pipe), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        return True

    def _hand_out(self, name: str, pipe: int) -> None:
        os.set_blocking(pipe, False)

        def write(data: memoryview) -> None:
            if self._silent.is_set():
                self._stop.wait()
            (write_all if data.readonly else lend_all)(pipe, data, self._stop)

        try:
            if name in self._pages.names:
                enlarge(pipe)
                self._pages.stream(name, write)
            else:
                replaced = self._replaced / name
                if replaced.exists() or self._seal.is_plain:
                    self._read(replaced if replaced.exists() else self._images / name, write)
                else:
                    write(memoryview(read_sealed(self._images.parent, f"{self._images.name}/{name}", self._seal)))
        except (StoppedError, BrokenPipeError):
            pass  # nobody reads any more
        except Exception as error:  # whatever it was, no pipe may end early
            self._fail(str(error))
            with contextlib.suppress(StoppedError):
                self._stop.wait()
        os.close(pipe)

    def _read(self, path: Path, write: Callable[[memoryview], None]) -> None:
        with path.open("rb", buffering=0) as file:
            while piece := file.read(_PIECE):
                write(memoryview(piece))

    def _fail(self, problem: str) -> None:
        with self._lock:
            if self._silent.is_set():
                return
            self._silent.set()
        self._on_problem(problem)
