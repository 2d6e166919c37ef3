"""Init as a process of the host's: started in namespaces of its own, ended, heard when it could not begin."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Self

from criu_train.cell import processes
from criu_train.cell.door import make_door
from criu_train.cell.records import CellSpec
from criu_train.cell.wire import Wire

_PACKAGE_PARENT = str(Path(__file__).resolve().parents[2])
_PROGRAM = (
    "import sys; sys.path.insert(0, sys.argv[1]); sys.dont_write_bytecode = True; "
    "from criu_train.cell.init import main; main(int(sys.argv[2]))"
)


_NO_MOUNT = "cannot change root filesystem propagation: Invalid argument"  # unshare(1)


def tip_for(last_words: str) -> str:
    """What to do when the namespaces could not be made."""
    if _NO_MOUNT in last_words:
        return "the root directory is no mount point: before chroot, `mount --bind DIR DIR`"
    return "run as root, in a container with --privileged; `criu-train doctor` tells what is missing"


class InitProcess:
    """``pid`` is known once it was ``identified``; ``unshare``, which made the namespaces, waits for it."""

    def __init__(self, unshare: asyncio.subprocess.Process | None, log: Path, said_before: int) -> None:
        self._unshare = unshare
        self._log = log
        self._said_before = said_before
        self._pidfd = -1
        self.pid = 0

    @classmethod
    async def start(cls, spec: CellSpec) -> tuple[Self, Wire, int]:
        """Also returns our end of the control channel, and the number that the door has in there. Raises OSError."""
        wire, theirs = Wire.pair()
        try:
            with theirs, make_door(spec.door) as door, spec.log.open("ab") as log:
                said_before = log.tell()
                unshare = await asyncio.create_subprocess_exec(
                    *("unshare", "--pid", "--fork", "--mount", "--mount-proc"),
                    *(sys.executable, "-I", "-S", "-c", _PROGRAM, _PACKAGE_PARENT, str(theirs.fileno())),
                    pass_fds=(theirs.fileno(), spec.lock_fd, door.fileno()),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
                door_fd = door.fileno()
        except BaseException:
            wire.close()
            raise
        return cls(unshare, spec.log, said_before), wire, door_fd

    @classmethod
    def found(cls, pid: int, log: Path) -> Self:
        """One that another supervisor has started."""
        process = cls(None, log, 0)
        process._identify(pid)
        return process

    def identify(self) -> None:
        """It has said something, so it is there."""
        assert self._unshare is not None
        self._identify(next(iter(processes.children(self._unshare.pid)), 0))

    def _identify(self, pid: int) -> None:
        self.pid = pid
        with contextlib.suppress(OSError):
            self._pidfd = os.pidfd_open(pid)

    def kill(self) -> None:
        """SIGKILL, and never to a later process of the same number."""
        with contextlib.suppress(OSError):
            if self._pidfd >= 0:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            elif self._unshare is not None and self._unshare.returncode is None:
                for pid in processes.children(self._unshare.pid):
                    os.kill(pid, signal.SIGKILL)
                self._unshare.kill()

    async def gone(self, limit_s: float) -> bool:
        """Wait until it has ended, and everything in the cell with it; whether it has."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        try:
            async with asyncio.timeout(limit_s):
                if self._pidfd >= 0:
                    loop.add_reader(self._pidfd, ended.set)
                    await ended.wait()
                if self._unshare is not None:
                    await self._unshare.wait()
        except TimeoutError:
            return False
        finally:
            if self._pidfd >= 0:
                loop.remove_reader(self._pidfd)
        return True

    def forget(self) -> None:
        """It is gone, or nobody will look at it any more."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def last_words(self) -> str:
        """The last line that unshare, the interpreter or init had to say; empty when there is none."""
        with contextlib.suppress(OSError):
            lines = self._log.read_bytes()[self._said_before :].decode(errors="replace").strip().splitlines()
            return lines[-1] if lines else ""
        return ""
