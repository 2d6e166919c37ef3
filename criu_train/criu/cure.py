"""Putting a tree right again after a CRIU that was killed, or left, in the middle of its dump.

Such a CRIU leaves four things behind: TCP sockets in repair mode (they neither send nor receive), a rule set that
drops their packets, links to deleted files, and, when it was killed at a bad moment, stopped tasks. Each alone can hang
a training for ever without a word. Everything is found anew in the kernel; the log only tells what the rules are
called, so that those of another CRIU at work on this machine stay.

Until the cure is done everybody has to be held (``cell/hold.py``): the tasks of a CRIU that dies run on in that
instant, and one that then reads from a socket in repair mode gets EPERM, which few programs survive. Held ones notice
nothing.

Limits: a task that had been stopped on purpose before the dump goes on as well, and a socket that came out of repair
mode has SO_REUSEADDR set, whatever it was before: repair mode overwrites it.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from criu_train.criu.nftables import delete_inet_table, inet_tables

_PIDFD_GETFD = 438  # the same on every architecture
_TCP_REPAIR = 19
_TABLE_LENGTH = 31 - len("inet ")  # CRIU keeps family and name in 32 bytes
_RUN_ID = re.compile(r"CRIU run id = ([0-9a-fA-F-]+)")
_IPTABLES = re.compile(r"Running iptables \[(ip6?tables) +((?:-w)?) *-t filter -I ([A-Z]+ [^\]]*-j DROP)\]")
_CALL_LIMIT_S = 10.0
_LINK = re.compile(r"link_remap\.\d+")

_libc = ctypes.CDLL(None, use_errno=True)


def cure(pids: Sequence[int], *, log: str) -> list[str]:
    """Undo what a dead CRIU left in and around these tasks; tells what was done, one line each, nothing twice.

    ``pids`` are those of the tree as the host numbers them, ``log`` is the text of that CRIU's log. Safe to call when
    there is nothing to do, and again. What went away meanwhile is passed over; nothing is raised for it.
    """
    done: list[str] = []
    # First the rules: a socket that wakes up in front of a closed door waits for its next retransmission.
    done += _remove_rules(log)
    done += _repair_off(pids)
    done += _remove_links(pids)
    done += _wake(pids)
    return done


def _remove_rules(log: str) -> Iterator[str]:
    present = inet_tables()
    for run_id in dict.fromkeys(_RUN_ID.findall(log)):
        table = f"CRIU-{run_id}"[:_TABLE_LENGTH]
        if table in present:
            with suppress(OSError):
                delete_inet_table(table)
                yield f"removed the nftables table {table}"
    for program, wait, rule in dict.fromkeys(_IPTABLES.findall(log)):
        argv = [program, *wait.split(), "-t", "filter", "-D", *rule.split()]
        with suppress(OSError, subprocess.TimeoutExpired):
            if subprocess.run(argv, capture_output=True, timeout=_CALL_LIMIT_S, check=False).returncode == 0:
                yield f"removed an {program} rule that dropped packets"


def _repair_off(pids: Sequence[int]) -> Iterator[str]:
    seen: set[str] = set()
    for pid in pids:
        for fd, target in _descriptors(pid):
            if not target.startswith("socket:") or target in seen:
                continue
            seen.add(target)
            with suppress(OSError):
                if _end_repair(pid, fd):
                    yield f"took a TCP connection of process {pid} out of repair mode"


def _end_repair(pid: int, fd: int) -> bool:
    """Whether it was a TCP socket in repair mode."""
    pidfd = os.pidfd_open(pid)
    try:
        copy = _libc.syscall(_PIDFD_GETFD, pidfd, fd, 0)
        if copy < 0:
            raise OSError(ctypes.get_errno(), "pidfd_getfd")
    finally:
        os.close(pidfd)
    with socket.socket(fileno=copy) as link:
        if link.family not in (socket.AF_INET, socket.AF_INET6) or link.type != socket.SOCK_STREAM:
            return False
        if not link.getsockopt(socket.IPPROTO_TCP, _TCP_REPAIR):
            return False
        link.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 0)
        # Leaving repair mode clears it, and then the listener on that port could not be made again.
        link.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return True


def _remove_links(pids: Sequence[int]) -> Iterator[str]:
    """``link_remap.N`` beside a deleted file that one of the tasks holds, and only if it is that very file."""
    for directory, identities in _places_of_links(pids).items():
        for link in directory.glob("link_remap.*"):
            with suppress(OSError):
                if _identity(link.lstat()) in identities:
                    link.unlink()
                    yield f"removed {link.name} beside a deleted file"


class WaysOfLinks:
    """The directories in which CRIU will link deleted files of these tasks; ``clear`` works also when they are gone.

    Used before a dump and after one that broke off: CRIU fails on a link of the number that it has come to.
    """

    def __init__(self, pids: Sequence[int]) -> None:
        self._directories: list[int] = []
        for path in _places_of_links(pids):
            with suppress(OSError):
                self._directories.append(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))

    def clear(self) -> list[str]:
        """Remove ``link_remap.N``; tells what was removed.

        The caller makes sure that no other CRIU is at work. The file may well live on by another name: semaphores of
        multiprocessing have one until the last process that uses them has ended, and for good where all were killed.
        """
        removed = []
        for directory in self._directories:
            for name in filter(_LINK.fullmatch, os.listdir(directory)):  # noqa: PTH208
                with suppress(OSError):
                    if stat.S_ISREG(os.lstat(name, dir_fd=directory).st_mode):
                        os.unlink(name, dir_fd=directory)
                        removed.append(name)
        return removed

    def close(self) -> None:
        """Let go of the directories."""
        while self._directories:
            os.close(self._directories.pop())


def _places_of_links(pids: Sequence[int]) -> dict[Path, set[tuple[int, int]]]:
    """Directories in which CRIU links deleted files of these tasks, and which files those are."""
    held: dict[Path, set[tuple[int, int]]] = {}
    for pid in pids:
        for path, identity in _deleted_files(pid):
            for directory in path.parents:  # a parent that is gone too is passed over upwards
                held.setdefault(directory, set()).add(identity)
                if directory.is_dir():
                    break
    return held


def _deleted_files(pid: int) -> Iterator[tuple[Path, tuple[int, int]]]:
    suffix = " (deleted)"
    for kind in ("fd", "map_files"):
        for name, target in _links(Path(f"/proc/{pid}/{kind}")):
            if target.startswith("/") and target.endswith(suffix):
                with suppress(OSError):
                    info = Path(f"/proc/{pid}/{kind}/{name}").stat()
                    # As the task itself sees it: something else may be mounted there in its namespace.
                    yield Path(f"/proc/{pid}/root{target.removesuffix(suffix)}"), _identity(info)


def _wake(pids: Sequence[int]) -> Iterator[str]:
    for pid in pids:
        with suppress(OSError):
            if _state(pid) == "T":
                os.kill(pid, signal.SIGCONT)
                yield f"continued process {pid}, which had been left stopped"


def _state(pid: int) -> str:
    line = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    return line.rpartition(")")[2].split()[0]  # the name before it may hold anything


def _descriptors(pid: int) -> Iterator[tuple[int, str]]:
    return ((int(name), target) for name, target in _links(Path(f"/proc/{pid}/fd")))


def _links(directory: Path) -> Iterator[tuple[str, str]]:
    """Names and targets of the links in a directory of /proc; none when the task is gone."""
    try:
        links = list(directory.iterdir())
    except OSError:
        return
    for link in links:
        with suppress(OSError):
            yield link.name, str(link.readlink())


def _identity(info: os.stat_result) -> tuple[int, int]:
    return info.st_dev, info.st_ino
