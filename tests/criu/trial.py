"""A cell of the least kind, to try CRIU on small trees: an init, the tree as PID 1000, CRIU entering from outside."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil

ROOT_PID = 1000
LIMIT_S = 30.0

_INIT = """
import os, subprocess, sys
mode, command = sys.argv[1], sys.argv[2:]
subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/dev/shm"], check=True)  # names there are nobody else's
if mode == "run":
    open("/proc/sys/kernel/ns_last_pid", "w").write("999")
    if os.fork() == 0:
        os.closerange(0, 1024)
        for flags in (os.O_RDONLY, os.O_WRONLY, os.O_WRONLY):
            os.open(os.devnull, flags)
        os.setsid()
        os.execvp(command[0], command)
else:
    if code := subprocess.call(command):
        sys.exit(code)
while True:
    pid, status = os.wait()
    if pid == 1000:
        sys.exit(os.waitstatus_to_exitcode(status) & 255)
"""


class Cell:
    """``init`` and ``pids`` are as the host numbers them."""

    def __init__(self, mode: str, command: Sequence[str]) -> None:
        argv = ["unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc"]
        self._unshare = psutil.Popen([*argv, sys.executable, "-c", _INIT, mode, *command], stdin=subprocess.DEVNULL)
        # One that fails at once may be gone before it is seen; then unshare, which ends with it, stands for it.
        self.init = psutil.Process(self._unshare.pid)
        until(lambda: self._look_for_init() or self.init.status() == psutil.STATUS_ZOMBIE)

    def _look_for_init(self) -> bool:
        children: list[psutil.Process] = self._unshare.children()
        self.init = next(iter(children), self.init)
        return bool(children)

    @property
    def pids(self) -> list[int]:
        return [child.pid for child in self.init.children(recursive=True)]

    def shm(self, pattern: str) -> set[str]:
        """Names in the cell's own /dev/shm."""
        return {entry.name for entry in Path(f"/proc/{self.init.pid}/root/dev/shm").glob(pattern)}

    @contextlib.contextmanager
    def start_criu(self, command: Sequence[str]) -> Iterator[psutil.Popen]:
        """CRIU while it runs; it is waited for at the end."""
        running = psutil.Popen(["nsenter", "-t", str(self.init.pid), "-p", "-m", *command], stdin=subprocess.DEVNULL)
        try:
            yield running
            running.wait(LIMIT_S)
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                running.kill()

    def criu(self, command: Sequence[str]) -> int:
        """Run CRIU inside; its exit code, negative for the signal that ended it."""
        enter = ["nsenter", "-t", str(self.init.pid), "-p", "-m"]
        code = subprocess.run([*enter, *command], timeout=LIMIT_S, check=False, capture_output=True).returncode
        return code - 256 if code > 256 else code

    def end(self) -> None:
        with contextlib.suppress(psutil.Error):
            self.init.kill()
        self._unshare.wait(LIMIT_S)


@contextlib.contextmanager
def cell(mode: str, *command: str) -> Iterator[Cell]:
    """``run`` a command as PID 1000, or let the command ``restore`` PID 1000; everything is killed at the end."""
    made = Cell(mode, command)
    try:
        yield made
    finally:
        made.end()


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-I", "-c", code, *arguments]


def until(condition: Callable[[], object], limit_s: float = 10.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def script(path: Path, body: str) -> Path:
    """An action script."""
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(0o700)
    return path


def lines(path: Path) -> int:
    return len(path.read_bytes().splitlines()) if path.exists() else 0
