"""What the archive's process can be asked to do."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from criu_train.archive.arena import Arena
from criu_train.archive.blobs import compress_blobs
from criu_train.archive.capture import Capture
from criu_train.archive.captured import Captured
from criu_train.archive.digests import Recall
from criu_train.archive.packed import Packed
from criu_train.archive.packing import pack
from criu_train.archive.priority import Pacer
from criu_train.archive.serve import Serving
from criu_train.archive.stored import StoredPages
from criu_train.store.durable import open_private
from criu_train.store.manifest import Manifest
from criu_train.store.seal import PLAIN, Seal, place_of


class Jobs:
    """One at a time, but for ``interrupt`` and ``hurry``. ``problem`` is called with what goes wrong in a serving.

    ``seal``: the store's.
    """

    def __init__(self, limit: int | None, problem: Callable[[str], None], seal: Seal = PLAIN) -> None:
        self._arena = Arena(limit)
        self._seal = seal
        self._problem = problem
        self._capture: Capture | None = None
        self._captured: Captured | None = None
        self._last_bytes = 0
        self._recall = Recall()
        self._pacer: Pacer | None = None
        self._hurried: float | None = None  # when the packing has to be done, on the monotonic clock
        self._pages: tuple[str, StoredPages] | None = None
        self._serving: Serving | None = None

    def prepare(self, tree_bytes: int) -> dict[str, Any]:
        """Have memory for a capture of so many bytes, or of as many as the last had, and a little more."""
        wanted = max(tree_bytes, self._last_bytes)  # nobody can tell beforehand how much lies in deleted files
        self._arena.grow(wanted + wanted // 20)
        return {"arena_bytes": self._arena.size}

    def listen(self, directory: str, spill: str) -> None:
        """Begin a capture."""
        self.drop()
        self._capture = Capture(Path(directory), self._arena, Path(spill) if self._seal.is_plain else None)

    def captured(self, images: str) -> dict[str, Any]:
        """Wait for the last byte, and write what is not packed."""
        assert self._capture is not None
        self._captured = captured = self._capture.finish()
        directory = Path(images)
        for name, data in captured.small.items():
            about = place_of(directory.parent, f"{directory.name}/{name}")
            with os.fdopen(open_private(directory / name, os.O_WRONLY | os.O_TRUNC), "wb") as file:
                file.write(self._seal.seal(data, about))
        self._last_bytes = sum(image.size for image in captured.large)
        return {
            "raw_bytes": self._last_bytes,
            "memory_bytes": sum(image.size for image in captured.large if image.name.startswith("pages-")),
            "spilled_bytes": captured.spilled,
        }

    def pack(self, snapshot: str, earlier: Sequence[str], deadline_s: float | None) -> dict[str, Any]:
        """Pack what was captured, and forget it."""
        captured = self._captured
        assert captured is not None
        self._pacer = pacer = Pacer(sum(image.size for image in captured.large), deadline_s)
        if (hurried := self._hurried) is not None:  # said before there was anything to hurry
            pacer.hurry(hurried - time.monotonic())
        try:
            packed = _in_thread(lambda: self._pack(captured, Path(snapshot), earlier, pacer, blobs=deadline_s is None))
        finally:
            pacer.end()
            self._pacer = None
        self.drop()
        return asdict(packed)

    def _pack(self, captured: Captured, snapshot: Path, earlier: Sequence[str], pacer: Pacer, *, blobs: bool) -> Packed:
        pacer.in_thread()
        older = [Path(path) for path in earlier]
        packed = pack(
            captured, snapshot, older, pace=pacer, may_hash=pacer.hashing, recall=self._recall, seal=self._seal
        )
        if blobs:
            compress_blobs(snapshot / "files", pacer, self._seal)
        return packed

    def hurry(self, seconds: float) -> None:
        """What is being packed, or captured to be packed, has to be done within so many seconds."""
        self._hurried = time.monotonic() + seconds
        if (pacer := self._pacer) is not None:
            pacer.hurry(seconds)

    def interrupt(self) -> None:
        """End what is under way for the dump."""
        if (pacer := self._pacer) is not None:
            pacer.stop()
        if (capture := self._capture) is not None:
            capture.abort()

    def drop(self) -> None:
        """Forget the capture; its memory is kept for the next."""
        if self._capture is not None:
            self._capture.close()
        self._capture = self._captured = None
        self._hurried = None

    def check(self, snapshot: str, index_digest: str | None) -> None:
        """Read what can be checked before a restore; the rest is checked as it is handed out."""
        self._close_pages()
        pages = StoredPages.open(Path(snapshot), index_digest, self._seal)
        try:
            pages.check_unused()
        except BaseException:
            pages.close()
            raise
        self._pages = snapshot, pages

    def serve(self, snapshot: str, directory: str, index_digest: str | None) -> None:
        """Hand out the images of a snapshot."""
        self._stop_serving()
        if self._pages is None or self._pages[0] != snapshot:
            self.check(snapshot, index_digest)
        assert self._pages is not None
        names, pages = _small_images(Path(snapshot)), self._pages[1]
        self._serving = Serving(
            Path(snapshot, "images"), pages, Path(directory), self._problem, names=names, seal=self._seal
        )

    def served(self) -> dict[str, Any]:
        """Whether nothing was wrong so far."""
        return {"whole": self._serving is not None and self._serving.whole}

    def end_serving(self) -> None:
        """Let go of every pipe and every pack."""
        self._stop_serving()
        self._close_pages()

    def _stop_serving(self) -> None:
        if self._serving is not None:
            self._serving.close()
            self._serving = None

    def _close_pages(self) -> None:
        if self._pages is not None:
            self._pages[1].close()
            self._pages = None


def _small_images(snapshot: Path) -> frozenset[str] | None:
    """The images that the manifest says lie there as files; None where there is no manifest. Raises StoreError."""
    try:
        manifest = Manifest.from_json((snapshot / "manifest.json").read_bytes())
    except FileNotFoundError:
        return None
    return frozenset(path.removeprefix("images/") for path in manifest.files if path.startswith("images/"))


def _in_thread(work: Callable[[], Packed]) -> Packed:
    """Do it in a thread of its own: a thread that was made nice may not be able to become normal again."""
    results: list[Packed | BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=run, name="pack")
    thread.start()
    thread.join()
    if isinstance(results[0], BaseException):
        raise results[0]
    return results[0]
