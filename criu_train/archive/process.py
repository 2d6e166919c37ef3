"""The archive's process: started with the supervisor's own modules, ended, heard when it has died."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Self

from criu_train.cell.wire import Wire
from criu_train.store.durable import open_private

_PACKAGE_PARENT = str(Path(__file__).resolve().parents[2])
# It finds its modules where the supervisor finds them, whatever directory and environment it is started in.
_PROGRAM = (
    "import sys; sys.path[:] = sys.argv[2:]; sys.dont_write_bytecode = True; "
    "from criu_train.archive.worker import main; main(int(sys.argv[1]))"
)
_ENDING_S = 5.0


class WorkerProcess:
    """Ends by itself when our end of its channel is closed."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.pid = process.pid
        self._process = process
        self._log = log
        self._lines: list[str] = []

    @classmethod
    async def start(cls, directory: Path) -> tuple[Self, Wire]:
        """Also returns our end of the channel. ``directory``: where its complaints go. Raises OSError.

        To be called in the main thread: the kernel ends the process with the thread that started it.
        """
        wire, theirs = Wire.pair()
        log = directory / "worker.log"
        try:
            with theirs, os.fdopen(open_private(log, os.O_WRONLY | os.O_EXCL), "wb") as output:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-I", "-S", "-c", _PROGRAM, str(theirs.fileno())),
                    *(_PACKAGE_PARENT, *filter(None, sys.path)),
                    env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # its threads would only cost memory
                    pass_fds=(theirs.fileno(),),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
        except BaseException:
            wire.close()
            raise
        return cls(process, log), wire

    async def ended(self) -> None:
        """Wait for its end, and bring it about when it takes too long."""
        try:
            await asyncio.wait_for(self._process.wait(), _ENDING_S)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        with contextlib.suppress(FileNotFoundError):  # it may be removed from now on
            self._lines = self._log.read_text(errors="replace").strip().splitlines()

    def kill(self) -> None:
        """End it at once."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    def last_words(self) -> str:
        """How it ended, and the last line that it had to say; to be asked once it has ended."""
        code = self._process.returncode or 0
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        return f"{how}: {self._lines[-1]}" if self._lines else how
