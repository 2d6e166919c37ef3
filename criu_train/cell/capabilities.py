"""Which of root's capabilities a training goes without: those that reach the machine rather than its own work.

They are taken out of every set, the bounding one too, so that nothing it executes gets them back. That guards against
accidents and narrows what a flaw in the training is worth; it does not contain a hostile root, see docs/security.md.
``no_new_privs`` stays unset: a training may use sudo. Standard library only: part of init, between fork and exec.
"""

from __future__ import annotations

import ctypes
import os
import struct

_libc = ctypes.CDLL(None, use_errno=True)

# Numbers of linux/capability.h. What is not here trainings are known to use: file rights, users, networks, locked
# memory, priorities, limits, debuggers and profilers (SYS_PTRACE, PERFMON), mounts and sandboxes (SYS_ADMIN).
DROPPED = {
    "SYS_MODULE": 16,  # load code into the kernel
    "SYS_RAWIO": 17,  # ports, /dev/mem, commands straight to disks
    "SYS_PACCT": 20,  # the machine's accounting
    "SYS_BOOT": 22,  # reboot, another kernel
    "SYS_TIME": 25,  # the machine's clock
    "SYS_TTY_CONFIG": 26,  # other people's terminals
    "AUDIT_CONTROL": 30,
    "MAC_OVERRIDE": 32,
    "MAC_ADMIN": 33,
    "SYSLOG": 34,  # the kernel's messages and addresses
    "WAKE_ALARM": 35,
    "BLOCK_SUSPEND": 36,
    "AUDIT_READ": 37,
    "BPF": 39,
    "CHECKPOINT_RESTORE": 40,
}

_PR_CAPBSET_READ, _PR_CAPBSET_DROP = 23, 24
_VERSION_3 = 0x20080522
_SETS = struct.Struct("=6I")  # effective, permitted, inheritable: the lower 32 of each, then the upper


def drop_capabilities() -> None:
    """Give up those of DROPPED that this process has; its ambient set follows the others.

    A capability that it has not, or that this kernel does not know, is none to be dropped. OSError when one that is
    there can't be: taking it from the bounding set needs CAP_SETPCAP.
    """
    for number in DROPPED.values():
        if _libc.prctl(_PR_CAPBSET_READ, number, 0, 0, 0) == 1:
            _check(_libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0))
    keep = ~sum(1 << number for number in DROPPED.values())
    sets = _get()
    if (kept := tuple(one & keep for one in sets)) != sets:
        _set(kept)


def leave_nothing_to_inherit() -> None:
    """Empty the inheritable set, and the ambient one with it: becoming another user leaves it as it is."""
    effective, permitted, inheritable = _get()
    if inheritable:
        _set((effective, permitted, 0))


def _get() -> tuple[int, ...]:
    """Effective, permitted, inheritable."""
    header, data = _header(), ctypes.create_string_buffer(_SETS.size)
    _check(_libc.capget(header, data))
    words = _SETS.unpack(data.raw)
    return tuple(low | high << 32 for low, high in zip(words[:3], words[3:], strict=True))


def _set(sets: tuple[int, ...]) -> None:
    data = _SETS.pack(*(one & 0xFFFFFFFF for one in sets), *(one >> 32 for one in sets))
    _check(_libc.capset(_header(), data))


def _header() -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(struct.pack("=Ii", _VERSION_3, 0), 8)


def _check(answer: int) -> None:
    if answer != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
