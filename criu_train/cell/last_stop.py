"""Being told that CRIU is about to go while nothing of it is gone.

What a CRIU that dumps holds still goes on in the very instant of its death, and its connections are taken apart still:
a thread that waits in recv(2) on one fails with EPERM before anybody else gets to run. So init traces CRIU, and the
kernel stops it before the first step of its end, whatever ends it (PTRACE_EVENT_EXIT of ptrace(2)). It goes no
further until init has seen to those it holds. Standard library only.
"""

from __future__ import annotations

import ctypes
import os
import signal

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long

_CONT, _GETEVENTMSG, _SEIZE, _LISTEN = 7, 0x4201, 0x4206, 0x4208
_TRACE_EXIT = 0x40
_EVENT_EXIT, _EVENT_STOP = 6, 128


def trace_exit(pid: int) -> bool:
    """Have a child of ours stop before it goes. False: the kernel refuses, and it will go without a word."""
    return bool(_libc.ptrace(_SEIZE, pid, None, _TRACE_EXIT) == 0)


def status_at_exit(pid: int, status: int) -> int | None:
    """``status``: waitpid's, of a stop. The status that it is about to end with, as of wait(2); None: it lives on.

    Raises OSError when it is gone.
    """
    if status >> 16 != _EVENT_EXIT:
        return None
    message = ctypes.c_ulong()
    _ptrace(_GETEVENTMSG, pid, ctypes.addressof(message))
    return int(message.value)


def go_on(pid: int, status: int) -> bool:
    """Let one of ``trace_exit`` do what it would have done alone. Whether it stands now, stopped by somebody's signal.

    Raises OSError when it is gone.
    """
    event, number = status >> 16, os.WSTOPSIG(status)
    if event == _EVENT_STOP and number != signal.SIGTRAP:
        _ptrace(_LISTEN, pid)
        return True
    _ptrace(_CONT, pid, 0 if event else number)  # without an event, a signal is on its way to it
    return False


def _ptrace(request: int, pid: int, data: int = 0) -> None:
    if _libc.ptrace(request, pid, None, data) != 0:
        raise OSError(ctypes.get_errno(), "ptrace")
