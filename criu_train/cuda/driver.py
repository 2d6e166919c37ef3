"""The CUDA driver's own checkpointing of another process, as a library of NVIDIA's driver 570 and newer offers it.

What a locked and checkpointed process had on the GPU lies in its own main memory, and it holds no device any more, so
that it can be dumped like any other (CUDA driver API, "CUDA Checkpointing"). Standard library only.
"""

from __future__ import annotations

import ctypes
from enum import IntEnum

_LIBRARY = "libcuda.so.1"
_NOT_INITIALIZED = 3  # CUDA_ERROR_NOT_INITIALIZED: the process has the library and uses no GPU
_ARGUMENTS_BYTES = 64  # of each of the calls' argument blocks; what is not set must be zero


class State(IntEnum):
    """CUprocessState."""

    RUNNING = 0
    LOCKED = 1
    CHECKPOINTED = 2
    FAILED = 3


class DriverError(Exception):
    """What the driver said, by its own name for it."""


class Driver:
    """Raises OSError where there is no such library, AttributeError where it is older than checkpointing."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(_LIBRARY)
        for name in ("Lock", "Checkpoint", "Restore", "Unlock", "GetState", "GetRestoreThreadId"):
            getattr(self._library, f"cuCheckpointProcess{name}")

    def restore_thread(self, pid: int) -> int | None:
        """The thread of ``pid`` that does the work of the calls below; None where the process uses no GPU."""
        thread = ctypes.c_int()
        code = self._library.cuCheckpointProcessGetRestoreThreadId(pid, ctypes.byref(thread))
        if code == _NOT_INITIALIZED:
            return None
        self._check(code, "looking at it")
        return thread.value

    def state(self, pid: int) -> State:
        state = ctypes.c_int()
        self._check(self._library.cuCheckpointProcessGetState(pid, ctypes.byref(state)), "looking at it")
        return State(state.value)

    def lock(self, pid: int, limit_ms: int) -> None:
        """From here on calls into CUDA wait; returns once the GPU has done what it was given."""
        limit = limit_ms.to_bytes(4, "little").ljust(_ARGUMENTS_BYTES, b"\0")
        self._check(self._library.cuCheckpointProcessLock(pid, limit), "waiting for what the GPU is at")

    def checkpoint(self, pid: int) -> None:
        """Its GPU memory is moved to its main memory. Needs the restore thread to run."""
        self._check(self._library.cuCheckpointProcessCheckpoint(pid, bytes(_ARGUMENTS_BYTES)), "saving GPU memory")

    def restore(self, pid: int) -> None:
        """And back to the GPU. Needs the restore thread to run."""
        self._check(self._library.cuCheckpointProcessRestore(pid, bytes(_ARGUMENTS_BYTES)), "putting GPU memory back")

    def unlock(self, pid: int) -> None:
        self._check(self._library.cuCheckpointProcessUnlock(pid, bytes(_ARGUMENTS_BYTES)), "letting it use the GPU")

    def _check(self, code: int, doing: str) -> None:
        if code != 0:
            name = ctypes.c_char_p()
            self._library.cuGetErrorName(code, ctypes.byref(name))
            raise DriverError(f"{(name.value or str(code).encode()).decode()} while {doing}")
