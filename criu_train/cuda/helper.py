"""The program that runs in the cell beside CRIU: ``aside`` moves GPU memory out of the way, ``back`` returns it.

It knows nothing from one time to the next: whose GPU memory is aside, the driver tells. So ``back`` is right at any
time, also where ``aside`` was killed half-way, and where a restored tree is seen for the first time.

A process is stopped (SIGSTOP) while its memory is aside, as its threads must not touch mappings that come and go; only
the driver's own thread in it runs. It is dumped and restored so. Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from criu_train.cuda import inherited
from criu_train.cuda.driver import Driver, DriverError, State
from criu_train.cuda.ptrace import Seized

DONE, FAILED, PASSING = 0, 1, 3  # exit codes
# What the GPU may need for the work that it was given; longer only where somebody else keeps it from ending.
_LOCK_MS = 10_000
_STOPPING_S = 5.0
_LIBRARY = "/libcuda.so"
_WATCHER = "/libnvidia-ml.so"

T = TypeVar("T")


class RefusalError(Exception):
    """``code``: PASSING where another moment may do."""

    def __init__(self, text: str, code: int = FAILED) -> None:
        super().__init__(text)
        self.code = code


def main(action: str) -> None:
    """Exits with one of the codes above; stdout has a line for people when it is not DONE."""
    try:
        {"aside": aside, "back": back}[action]()
    except RefusalError as error:
        _say_and_exit(str(error), error.code)
    except (DriverError, OSError) as error:
        _say_and_exit(str(error), FAILED)


def aside() -> None:
    """All or nothing, but for being killed. Raises RefusalError, DriverError, OSError."""
    pids = list(processes())
    users = [pid for pid in pids if _maps(pid, _LIBRARY)]
    try:
        driver = Driver()
    except (OSError, AttributeError):
        raise RefusalError("this NVIDIA driver can't move GPU memory aside: 570 or newer is needed") from None
    owners = _owners(driver, users)
    _refuse_watchers(pids, owners, users)
    for pid in owners:
        if _state(pid) == "T":
            raise RefusalError(f"{name(pid)} is stopped, so that its GPU can't be asked", PASSING)
        if driver.state(pid) is not State.RUNNING:
            raise RefusalError(f"{name(pid)} is being checkpointed by another program", PASSING)
    try:
        for pid in owners:
            driver.lock(pid, _LOCK_MS)
        for pid in owners:
            _stop(pid)
        for pid in set(users) - set(owners):
            if not inherited.is_all_inherited(pid):
                raise RefusalError(f"{name(pid)} is just beginning to use a GPU", PASSING)
            inherited.let_go(pid)
        _each(owners, lambda pid: _awake(driver, pid, driver.checkpoint))
        for pid in owners:
            if inherited.descriptors(pid) or inherited.mappings(pid):
                raise RefusalError(f"{name(pid)} holds GPUs by other means than CUDA")
    except BaseException as error:
        with contextlib.suppress(DriverError, OSError, RefusalError):  # it is asked for again
            back()
        if isinstance(error, DriverError):
            raise RefusalError(str(error), PASSING) from error
        raise


def back() -> None:
    """Whatever is aside returns, and its owner goes on; whoever has ended is passed over.

    Raises DriverError, OSError, RefusalError; what could be done is done then.
    """
    try:
        driver = Driver()
    except (OSError, AttributeError):
        return  # nobody has anything aside where that can't be done
    owners = _owners(driver, [pid for pid in processes() if _maps(pid, _LIBRARY)])
    _each(owners, lambda pid: _give_back_unless_gone(driver, pid))


def _owners(driver: Driver, users: Sequence[int]) -> list[int]:
    """Those of the library's users that use a GPU; whoever has ended meanwhile is none of them."""
    found = []
    for pid in users:
        try:
            if driver.restore_thread(pid) is not None:
                found.append(pid)
        except DriverError:
            if not _is_gone(pid):
                raise
    return found


def _give_back_unless_gone(driver: Driver, pid: int) -> None:
    try:
        _give_back(driver, pid)
    except (DriverError, OSError, RefusalError):
        if not _is_gone(pid):
            raise


def _give_back(driver: Driver, pid: int) -> None:
    """Nothing is asked of a process that is stopped: its restore thread would have to answer."""
    if _state(pid) != "T":
        if driver.state(pid) is State.RUNNING:
            return
        _stop(pid)
    if _awake(driver, pid, lambda pid: _put_back(driver, pid)):
        os.kill(pid, signal.SIGCONT)


def _put_back(driver: Driver, pid: int) -> bool:
    """Whether anything was aside: who was stopped by somebody else stays so."""
    if (state := driver.state(pid)) is State.RUNNING:
        return False
    if state is State.CHECKPOINTED:
        driver.restore(pid)
    driver.unlock(pid)
    return True


def processes() -> Iterator[int]:
    """Everybody in this PID namespace but PID 1 and ourselves."""
    for entry in os.listdir("/proc"):  # noqa: PTH208
        if entry.isdecimal() and int(entry) not in (1, os.getpid()):
            yield int(entry)


def name(pid: int) -> str:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/comm", errors="replace") as file:  # noqa: PTH123
        return f"{file.read().strip()} ({pid})"
    return str(pid)


def _refuse_watchers(pids: Sequence[int], owners: Sequence[int], users: Sequence[int]) -> None:
    """A process that looks at GPUs without computing on them has open devices that nobody can take from it."""
    for pid in set(pids) - set(users):
        if inherited.descriptors(pid) and pid not in owners:
            how = "by NVML" if _maps(pid, _WATCHER) else "without CUDA"
            raise RefusalError(f"{name(pid)} has GPUs open {how}: start it outside of the training")


def _awake(driver: Driver, pid: int, work: Callable[[int], T]) -> T:
    thread = driver.restore_thread(pid)
    if thread is None:
        raise RefusalError(f"{name(pid)} has just let go of its GPU", PASSING)
    with Seized(thread) as seized:
        return seized.run(lambda: work(pid))


def _each(pids: Sequence[int], work: Callable[[int], None]) -> None:
    """At the same time, as cards are independent. Raises the first error once all are done."""
    if pids:
        with ThreadPoolExecutor(len(pids)) as pool:
            for future in [pool.submit(work, pid) for pid in pids]:
                future.result()


def _stop(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + _STOPPING_S
    while not all(state in "TtZX" for state in _states(pid)):
        if time.monotonic() > deadline:
            raise RefusalError(f"{name(pid)} does not stop: a call of it to a disk or a device takes long", PASSING)
        time.sleep(0.001)


def _state(pid: int) -> str:
    with open(f"/proc/{pid}/stat", errors="replace") as file:  # noqa: PTH123
        return file.read().rpartition(")")[2].split()[0]


def _is_gone(pid: int) -> bool:
    try:
        return _state(pid) in "ZX"
    except OSError:
        return True


def _states(pid: int) -> Iterator[str]:
    """Of all its threads."""
    for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            yield _state(int(thread))


def _maps(pid: int, library: str) -> bool:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/maps", errors="replace") as file:  # noqa: PTH123
        return library in file.read()
    return False


def _say_and_exit(text: str, code: int) -> None:
    print(text)
    sys.exit(code)
