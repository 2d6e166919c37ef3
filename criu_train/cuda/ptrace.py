"""Single threads of other processes, by ptrace(2) on x86-64: one runs while its process is stopped, or makes system
calls for us. Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self, TypeVar

_CONT, _SINGLESTEP, _GETREGS, _SETREGS, _DETACH = 7, 9, 12, 13, 17
_SEIZE, _INTERRUPT, _GETSIGMASK, _SETSIGMASK = 0x4206, 0x4207, 0x420A, 0x420B
_WALL = 0x40000000  # waitpid(2): threads too
_SIGSET_BYTES = 8
_SYSCALL = b"\x0f\x05"
_NO_CALL = (1 << 64) - 1  # orig_rax: nothing is to be begun again
_LOOK_EVERY_S = 0.001

T = TypeVar("T")

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


class _Registers(ctypes.Structure):
    """struct user_regs_struct of sys/user.h."""

    _fields_ = [
        (name, ctypes.c_ulonglong)
        for name in (
            *("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi"),
            *("orig_rax", "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs"),
        )
    ]


class Seized:
    """A thread that stands, with all signals held back, until this ends; then it is as it was. One for each of our
    threads at a time. Raises OSError when it is gone, or is somebody else's."""

    def __init__(self, thread: int) -> None:
        self._thread = thread
        self._mask = ctypes.c_uint64()
        self._stop_wanted = False

    def __enter__(self) -> Self:
        _ptrace(_SEIZE, self._thread)
        try:
            # One whose process is stopped stands already, and would count the wish as a second stop.
            if not _is_stopped(self._thread):
                _ptrace(_INTERRUPT, self._thread)
            self._wait()
            _ptrace(_GETSIGMASK, self._thread, _SIGSET_BYTES, ctypes.addressof(self._mask))
            everything = ctypes.c_uint64(_NO_CALL)
            _ptrace(_SETSIGMASK, self._thread, _SIGSET_BYTES, ctypes.addressof(everything))
        except BaseException:
            with contextlib.suppress(OSError):
                _ptrace(_DETACH, self._thread)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):  # it is gone
            _ptrace(_SETSIGMASK, self._thread, _SIGSET_BYTES, ctypes.addressof(self._mask))
            _ptrace(_DETACH, self._thread)
        if self._stop_wanted:  # by somebody, while we had it
            with contextlib.suppress(OSError):
                os.kill(self._thread, signal.SIGSTOP)

    def run(self, work: Callable[[], T]) -> T:
        """Let it run for as long as ``work`` takes, even where its process is stopped. Raises what ``work`` raises."""
        came: list[T] = []
        raised: list[BaseException] = []

        def do() -> None:
            try:
                came.append(work())
            except BaseException as error:
                raised.append(error)

        worker = threading.Thread(target=do, daemon=True)
        _ptrace(_CONT, self._thread)
        worker.start()
        while worker.is_alive():
            # A dump leaves a second SIGSTOP behind in a stopped process, which no mask holds back.
            if (status := self._news()) is not None:
                if os.WIFEXITED(status) or os.WIFSIGNALED(status):
                    raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
                _ptrace(_CONT, self._thread)
            worker.join(_LOOK_EVERY_S)
        _ptrace(_INTERRUPT, self._thread)
        self._wait()
        if raised:
            raise raised[0]
        return came[0]

    @contextlib.contextmanager
    def calls(self) -> Iterator[Callable[..., int]]:
        """Within it, the thread makes system calls: number and up to six arguments. They raise OSError as ours do."""
        then, now = _Registers(), _Registers()
        _ptrace(_GETREGS, self._thread, None, ctypes.addressof(then))
        entry = vdso(self._thread) + _in_vdso(self._thread, _SYSCALL)

        def call(number: int, *arguments: int) -> int:
            ctypes.memmove(ctypes.addressof(now), ctypes.addressof(then), ctypes.sizeof(then))
            now.rip, now.rax, now.orig_rax = entry, number, _NO_CALL
            for name, value in zip(("rdi", "rsi", "rdx", "r10", "r8", "r9"), (*arguments, *(0,) * 6), strict=False):
                setattr(now, name, value & _NO_CALL)
            _ptrace(_SETREGS, self._thread, None, ctypes.addressof(now))
            self._step()
            _ptrace(_GETREGS, self._thread, None, ctypes.addressof(now))
            result = int(ctypes.c_longlong(now.rax).value)
            if -4096 < result < 0:
                raise OSError(-result, os.strerror(-result))
            return result

        try:
            yield call
        finally:
            with contextlib.suppress(ProcessLookupError):
                _ptrace(_SETREGS, self._thread, None, ctypes.addressof(then))

    def _step(self) -> None:
        while True:
            _ptrace(_SINGLESTEP, self._thread)
            status = self._wait()
            if os.WSTOPSIG(status) == signal.SIGTRAP and status >> 16 == 0:
                return
            if os.WSTOPSIG(status) == signal.SIGSTOP and status >> 16 == 0:
                self._stop_wanted = True

    def _wait(self) -> int:
        _, status = os.waitpid(self._thread, _WALL)
        if not os.WIFSTOPPED(status):
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        return status

    def _news(self) -> int | None:
        found, status = os.waitpid(self._thread, _WALL | os.WNOHANG)
        return status if found else None


def vdso(pid: int) -> int:
    """Where the kernel's code is mapped, which begins with an ELF header and holds a ``syscall`` instruction."""
    return next(start for start, _, name in _maps(pid) if name == "[vdso]")


def _in_vdso(pid: int, wanted: bytes) -> int:
    start, end = next((start, end) for start, end, name in _maps(pid) if name == "[vdso]")
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:  # noqa: PTH123
        memory.seek(start)
        offset = memory.read(end - start).find(wanted)
    if offset < 0:
        raise OSError(errno.ENOEXEC, "there is no syscall instruction in the vDSO")
    return offset


def _maps(pid: int) -> Iterator[tuple[int, int, str]]:
    with open(f"/proc/{pid}/maps", errors="replace") as file:  # noqa: PTH123
        for line in file:
            columns = line.split(maxsplit=5)
            start, _, end = columns[0].partition("-")
            yield int(start, 16), int(end, 16), columns[5].rstrip("\n") if len(columns) > 5 else ""


def _is_stopped(thread: int) -> bool:
    with open(f"/proc/{thread}/stat", "rb") as file:  # noqa: PTH123
        return file.read().rpartition(b")")[2].split()[0] in (b"T", b"t")


def _ptrace(request: int, thread: int, address: int | None = None, data: int | None = None) -> None:
    if _libc.ptrace(request, thread, address, data) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
