"""The supervisor's side of the archive: a process that holds captures, packs them, and hands images out."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from criu_train.archive.packed import Packed
from criu_train.archive.process import WorkerProcess
from criu_train.archive.worker_directory import WorkerDirectory
from criu_train.cell.link import Link, Message, one
from criu_train.cell.records import CellLostError
from criu_train.cell.wire import Wire
from criu_train.errors import CriuTrainError, DumpFailedError, RestoreFailedError
from criu_train.store.durable import make_private_dir, open_private

_STARTING_S = 30.0
# A worker hears at once, whatever it is at, unless it gets no processor; one that says nothing for so long stands
# still, and is ended. Once a dump has failed, ending it costs nothing.
_SILENCE_S, _SILENCE_AFTER_FAILURE_S = 120.0, 5.0


@dataclass(frozen=True)
class CaptureSummary:
    """What CRIU gave us that is to be packed, in bytes.

    ``memory_bytes`` of it are pages of processes, the rest is deleted files. ``spilled_bytes`` did not fit into memory.
    """

    raw_bytes: int
    memory_bytes: int
    spilled_bytes: int


class Archivist:
    """One worker process. When it dies, what is under way fails, and ``alive`` is false: start another."""

    def __init__(self, process: WorkerProcess, wire: Wire, place: WorkerDirectory) -> None:
        self.pid = process.pid
        self._process = process
        self._place = place
        self._asked = 0
        self._directory: Path | None = None
        self._images: Path | None = None
        self._on_problem: Callable[[str], None] = lambda _: None
        self._on_loss: Callable[[], None] | None = None
        self._link = Link(wire, {"problem": self._problem}, self._lost)

    @classmethod
    async def start(cls, runtime: Path, *, memory_limit: int | None, secret: str | None = None) -> Archivist:
        """To be called in the main thread. Raises DumpFailedError.

        ``runtime``: a directory with a short path, for sockets. ``memory_limit``: the most bytes that captures may
        take, None for half of what is free when they need it. ``secret``: of the store, as ``seal.told`` has it.
        """
        try:
            place = WorkerDirectory(runtime)
        except OSError as error:
            raise DumpFailedError(
                f"the archive's process has no place for its sockets: {error}", tip="is the disk of /run or /tmp full?"
            ) from error
        try:
            process, wire = await WorkerProcess.start(place.path)
        except BaseException as error:
            place.close()
            if not isinstance(error, OSError):
                raise
            raise DumpFailedError(
                f"the archive's process can't be started: {error}", tip="is memory, or the number of processes, short?"
            ) from error
        archivist = cls(process, wire, place)
        try:
            ready = archivist._link.expect("ready")
            archivist._link.send("settings", memory_limit=memory_limit, secret=secret)
            await one(ready, _STARTING_S)
        except BaseException as error:
            await archivist.close()
            if isinstance(error, CellLostError):
                raise archivist._death(DumpFailedError) from error
            raise
        return archivist

    @property
    def alive(self) -> bool:
        return not self._link.lost

    # --- dumps --------------------------------------------------------------------------------------------------

    async def prepare(self, tree_bytes: int) -> int:
        """Have memory ready for a tree of so many bytes; too little is no error. Returns how many bytes there are.

        Raises DumpFailedError.
        """
        return int((await self._ask("prepare", DumpFailedError, tree_bytes=tree_bytes))["arena_bytes"])

    async def listen(self, spill: Path) -> Path:
        """The images directory for ``criu dump --stream``. ``spill``: a file for what does not fit into memory.

        Raises DumpFailedError.
        """
        self._images = None
        directory = self._new_directory()
        await self._ask("listen", DumpFailedError, directory=str(directory), spill=str(spill))
        return directory

    async def captured(self, images: Path) -> CaptureSummary:
        """CRIU has asked for everything (the cut): wait for the last byte, write the small images into ``images``.

        Raises DumpFailedError.
        """
        self._images = images
        return CaptureSummary(**await self._ask("captured", DumpFailedError, images=str(images)))

    async def pack(self, snapshot: Path, earlier: Sequence[Path], *, deadline_s: float | None = None) -> Packed:
        """Pack the capture into ``snapshot``; see ``packing.pack``. Raises DumpFailedError.

        ``deadline_s``: seconds this may take, at full speed; None: in the background.
        """
        self._take_statistics()
        fields = {"snapshot": str(snapshot), "earlier": [str(path) for path in earlier], "deadline_s": deadline_s}
        packed = Packed(**await self._ask("pack", DumpFailedError, **fields))
        if deadline_s is None:  # else CRIU waits at its cut, and has figures to write
            self._remove_directory()
        return packed

    def hurry(self, seconds: float) -> None:
        """What is being packed, or captured to be packed, has to be done within so many seconds from now."""
        with contextlib.suppress(CellLostError):
            self._link.send("hurry", seconds=seconds)

    async def drop(self) -> None:
        """The dump failed: end what is under way for it and forget the capture. Never fails."""
        self._images = None
        with contextlib.suppress(DumpFailedError):
            await self._ask("drop", DumpFailedError)
        self._remove_directory()

    # --- restores -----------------------------------------------------------------------------------------------

    async def check(self, snapshot: Path, index_digest: str) -> None:
        """Check of the packs whatever is not checked while it is handed out. Raises RestoreFailedError."""
        await self._ask("check", RestoreFailedError, snapshot=str(snapshot), index_digest=index_digest)

    async def serve(
        self,
        snapshot: Path,
        on_problem: Callable[[str], None],
        *,
        index_digest: str | None = None,
        on_loss: Callable[[], None] | None = None,
        replaced: Mapping[str, bytes] | None = None,
    ) -> Path:
        """The images directory for ``criu restore --stream``. Raises RestoreFailedError.

        ``on_problem`` is called when an image can't be handed out, ``on_loss`` (``on_problem`` without one) when the
        worker dies: then the cell must be killed, as the restore would never end, or end with deleted files cut off.
        ``index_digest``: what the manifest says of pages.index; a worker that has not checked the snapshot does so.
        ``replaced``: small images that are handed out instead of those in the snapshot.
        """
        directory = self._new_directory()
        try:
            for name, data in (replaced or {}).items():
                with os.fdopen(open_private(directory / name, os.O_WRONLY | os.O_EXCL), "wb") as file:
                    file.write(data)
        except OSError as error:
            raise RestoreFailedError(
                f"no room for what CRIU needs to read: {error}", tip="is the disk of /run or /tmp full?"
            ) from error
        fields = {"snapshot": str(snapshot), "directory": str(directory), "index_digest": index_digest}
        await self._ask("serve", RestoreFailedError, **fields)
        self._on_problem, self._on_loss = on_problem, on_loss
        return directory

    async def served(self) -> None:
        """Everything that was handed out was whole, and the worker lives; asked once CRIU has ended well.

        Damage can't come this far, since pipes fall silent with it; a worker that died may. Raises RestoreFailedError.
        """
        if not (await self._ask("served", RestoreFailedError))["whole"]:
            raise RestoreFailedError("not every image could be handed out", tip="another snapshot is tried")

    async def end_serving(self) -> None:
        """CRIU has ended, well or not. Never fails."""
        self._on_problem, self._on_loss = lambda _: None, None
        with contextlib.suppress(RestoreFailedError):
            await self._ask("end_serving", RestoreFailedError)
        self._remove_directory()

    # --- the process --------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """End the process."""
        self._on_problem, self._on_loss = lambda _: None, None
        self._link.lose()
        await self._process.ended()
        self._place.close()

    def kill(self) -> None:
        """End the process at once: whoever waits for it is told that it has died."""
        self._process.kill()
        self._link.lose()

    async def _ask(self, kind: str, failure: type[CriuTrainError], **fields: Any) -> Message:
        self._asked += 1
        answer = f"answer {self._asked}"
        try:
            waiting = self._link.expect(answer)
            self._link.send(kind, answer=answer, **fields)
            await self._listen_for_life(waiting, _SILENCE_AFTER_FAILURE_S if kind == "drop" else _SILENCE_S)
            message = await one(waiting)
        except CellLostError as error:
            await self._process.ended()
            raise self._death(failure) from error
        if not message.pop("ok"):
            raise failure(message["problem"], tip=message["tip"])
        return message

    async def _listen_for_life(self, waiting: asyncio.Future[Message], silence_s: float) -> None:
        """Until the answer, or the worker's end, has come. Raises CellLostError."""
        while not waiting.done():
            self._asked += 1
            heard = self._link.expect(f"heard {self._asked}")
            self._link.send("hear", answer=f"heard {self._asked}")
            await asyncio.wait({waiting, heard}, timeout=silence_s, return_when=asyncio.FIRST_COMPLETED)
            if heard.done():
                await asyncio.wait({waiting}, timeout=silence_s)
            elif not waiting.done():
                self.kill()

    def _death(self, failure: type[CriuTrainError]) -> CriuTrainError:
        return failure(
            f"the archive's process ended {self._process.last_words()}",
            tip="was memory short? the kernel's log (dmesg) tells; the next dump starts another",
        )

    def _problem(self, message: Message) -> None:
        self._on_problem(message["message"])

    def _lost(self) -> None:
        if self._on_loss is not None:
            self._on_loss()
        else:
            self._on_problem("the archive's process died")

    def _new_directory(self) -> Path:
        self._remove_directory()
        self._asked += 1
        self._directory = self._place.path / str(self._asked)
        make_private_dir(self._directory)
        return self._directory

    def _remove_directory(self) -> None:
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def _take_statistics(self) -> None:
        """CRIU writes its figures as a file, after the cut."""
        if self._directory is not None and self._images is not None:
            for path in self._directory.glob("stats-*"):
                with contextlib.suppress(OSError):
                    shutil.move(path, self._images / path.name)
