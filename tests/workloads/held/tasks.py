"""Memory, and the tasks themselves."""

from __future__ import annotations

import ctypes
import mmap
import multiprocessing
import os
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from held.common import NEWNET, NEWNS, NEWPID, Use, child, kept, libc, must, nothing

IPC_NOWAIT = 0o4000


def secret_memory(_: str) -> Use:
    secret = must(libc.syscall(447, 0))
    os.ftruncate(secret, 4096)
    kept.append(mmap.mmap(secret, 4096))
    return nothing


def sysv_memory(_: str) -> Use:
    segment = must(libc.shmget(0, 4096, 0o1600))
    assert libc.shmat(segment, None, 0)
    must(libc.shmctl(segment, 0, None))
    return nothing


def sysv_semaphore(_: str) -> Use:
    held = must(libc.semget(0, 1, 0o1600))

    def use(_: int) -> None:
        must(libc.semop(held, struct.pack("=Hhh", 0, 1, 0), 1))

    return use


def sysv_messages(_: str) -> Use:
    held = must(libc.msgget(0, 0o1600))

    def use(_: int) -> None:
        must(libc.msgsnd(held, struct.pack("=qc", 1, b"x"), 1, 0))
        # Not waited for: what was taken between a dump and a kill is not there a second time.
        libc.msgrcv(held, ctypes.create_string_buffer(16), 8, 0, IPC_NOWAIT)

    return use


def shared_memory(_: str) -> Use:
    """Of all kinds that have no lasting name."""
    descriptor = os.memfd_create("shared")
    os.ftruncate(descriptor, 4096)
    maps = [mmap.mmap(descriptor, 4096), mmap.mmap(-1, 4096)]
    must(libc.mlock(ctypes.c_char_p(ctypes.addressof(ctypes.c_char.from_buffer(maps[1]))), 4096))

    def use(step: int) -> None:
        for one in maps:
            assert step == 0 or one[0] == (step - 1) % 256
            one[0] = step % 256

    return use


def huge_memory(_: str) -> Use:
    held = mmap.mmap(-1, 2 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000)
    held[0] = 1
    kept.append(held)
    return nothing


def aio_ring(_: str) -> Use:
    context = ctypes.c_ulong()
    must(libc.syscall(206, 8, ctypes.byref(context)))
    kept.append(context)
    return nothing


def child_apart(flags: int) -> Use:
    """A child in a namespace of its own."""
    child(lambda: must(libc.unshare(flags)))
    return nothing


def grandchild_apart(_: str) -> Use:
    """A child whose own child is in another PID namespace."""

    def life() -> None:
        must(libc.unshare(NEWPID))
        child(lambda: None)

    child(life)
    return nothing


def root_apart(flags: int) -> Use:
    must(libc.unshare(flags))
    return nothing


def sandboxed(_: str) -> Use:
    """Mount, PID and network namespaces at once, as a sandbox makes them."""

    def life() -> None:
        must(libc.unshare(NEWNS | NEWPID | NEWNET))
        child(lambda: None)

    child(life)
    return nothing


def traced(_: str) -> Use:
    tracee = child(lambda: None)
    child(lambda: must(libc.ptrace(0x4206, tracee, 0, 0)))
    return nothing


def dead_leader(_: str) -> Use:
    """A process whose first thread has ended, long before the others."""
    if os.fork() == 0:
        threading.Thread(target=time.sleep, args=(600,)).start()
        libc.syscall(60, 0)
    time.sleep(0.2)
    return nothing


def by_vfork(_: str) -> Use:
    """Who has started a child by vfork waits for it, and can't be stopped meanwhile."""

    def life() -> None:
        if os.fork() == 0 and libc.syscall(56, 0x4000 | 17, 0, 0, 0, 0) == 0:
            time.sleep(600)
            os._exit(0)

    child(life)
    time.sleep(0.2)
    return nothing


def own_session(_: str) -> Use:
    child(os.setsid)
    return nothing


def orphaned_session(_: str) -> Use:
    """A process whose session's leader has ended."""

    def life() -> None:
        must(libc.prctl(36, 1, 0, 0, 0))  # orphans stay below us
        if (leader := os.fork()) == 0:
            os.setsid()
            child(lambda: None)
            os._exit(0)
        os.waitpid(leader, 0)

    child(life)
    return nothing


def jailed(_: str) -> Use:
    Path("jail").mkdir(exist_ok=True)

    def life() -> None:
        os.chroot("jail")
        os.chdir("/")
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        must(libc.prctl(38, 1, 0, 0, 0))

    child(life)
    return nothing


def real_time(_: str) -> Use:
    child(lambda: os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1)))
    return nothing


def stopped(_: str) -> Use:
    os.kill(child(lambda: None), signal.SIGSTOP)
    return nothing


def threads(_: str) -> Use:
    for _number in range(3):
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    return lambda _: threading.active_count() == 4 or sys.exit("threads were lost")


def _square(number: int) -> int:
    return number * number


def spawn_pool(_: str) -> Use:
    pool = multiprocessing.get_context("spawn").Pool(2)
    kept.append(pool)
    return lambda step: pool.map(_square, [step, step + 1])


MODES: dict[str, Callable[[str], Use]] = {
    "secret-memory": secret_memory,
    "sysv-memory": sysv_memory,
    "sysv-semaphore": sysv_semaphore,
    "sysv-messages": sysv_messages,
    "shared-memory": shared_memory,
    "huge-memory": huge_memory,
    "aio-ring": aio_ring,
    "child-apart": lambda flags: child_apart(int(flags)),
    "grandchild-apart": grandchild_apart,
    "root-apart": lambda flags: root_apart(int(flags)),
    "sandboxed": sandboxed,
    "traced": traced,
    "dead-leader": dead_leader,
    "by-vfork": by_vfork,
    "own-session": own_session,
    "orphaned-session": orphaned_session,
    "jailed": jailed,
    "real-time": real_time,
    "stopped": stopped,
    "threads": threads,
    "spawn-pool": spawn_pool,
}
