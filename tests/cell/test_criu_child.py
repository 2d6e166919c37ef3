"""What init makes of a CRIU that stops, goes on, and ends: by itself, killed, or in the middle of its work."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from harness import until

from criu_train.cell.criu_child import CriuChild


class Watched:
    """A program in CRIU's place, and what was left of it whenever everybody was to be held."""

    def __init__(self, place: Path, *script: str) -> None:
        for name in ("ask", "answer"):
            os.mkfifo(place / name)
        self.held_beside: list[int] = []
        self.criu = CriuChild(60, str(place), hold=self._hold)
        self.criu.start(["/bin/sh", "-c", *script], nice=0, stderr=str(place / "log"))

    def _hold(self, pid: int) -> None:
        descriptors = 0
        with contextlib.suppress(OSError):
            descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        self.held_beside.append(descriptors)

    def step(self) -> dict[str, Any] | None:
        """Wait for the next thing that happens to it."""
        _, status = os.waitpid(self.criu.pid, os.WUNTRACED | os.WCONTINUED)
        return self.criu.changed(status)

    def end(self) -> dict[str, Any]:
        """Wait until it is over."""
        while (ended := self.step()) is None:
            pass
        return ended

    def close(self) -> None:
        """Leave nothing behind."""
        with contextlib.suppress(OSError):
            os.kill(self.criu.pid, signal.SIGKILL)
            self.end()
        self.criu.close()


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Any]:
    with contextlib.ExitStack() as stack:

        def watched(*script: str) -> Watched:
            child = Watched(tmp_path, *script)
            stack.callback(child.close)
            return child

        yield watched


def test_one_that_is_killed_has_everything_still_while_the_others_are_held(begin: Any) -> None:
    child = begin("exec sleep 60")
    os.kill(child.criu.pid, signal.SIGKILL)
    ended = child.end()
    assert (ended["code"], ended["broke_off"]) == (-signal.SIGKILL, True)
    assert child.held_beside[0] >= 3, "its descriptors were closed, and with them whatever waited at the other end"


def test_one_that_is_killed_again_and_again_gives_the_same_time(begin: Any) -> None:
    child = begin("exec sleep 60")
    for _ in range(3):
        os.kill(child.criu.pid, signal.SIGKILL)
    assert psutil.Process(child.criu.pid).is_running()
    child.end()
    assert child.held_beside[0] >= 3


def test_one_that_leaves_in_the_middle_of_its_work_has_everything_still_as_well(begin: Any) -> None:
    child = begin("echo Dumping >&2; exit 1")
    ended = child.end()
    assert (ended["code"], ended["broke_off"]) == (1, True)
    assert child.held_beside[0] >= 3


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("echo Dumping FAILED. >&2; exit 1", 1)])
def test_for_one_that_ends_in_order_nobody_is_held(begin: Any, script: str, code: int) -> None:
    child = begin(script)
    ended = child.end()
    assert (ended["code"], ended["broke_off"]) == (code, False)
    assert child.held_beside == []


def test_signals_reach_it_as_if_nobody_listened(begin: Any, tmp_path: Path) -> None:
    child = begin("trap 'echo heard >&2; exit 0' USR1; echo ready >&2; while :; do sleep 0.01; done")
    log = tmp_path / "log"
    pid = child.criu.pid

    def ready() -> bool:
        with contextlib.suppress(ChildProcessError):
            found, status = os.waitpid(pid, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
            if found:
                child.criu.changed(status)
        return log.exists() and "ready" in log.read_text()

    until(ready, "it to be ready", 10)
    os.kill(pid, signal.SIGUSR1)
    assert child.end()["code"] == 0
    assert "heard" in log.read_text()


def test_one_that_was_stopped_stands_until_it_is_told_to_go_on(begin: Any) -> None:
    child = begin("sleep 0.5; exit 0")
    pid = child.criu.pid
    os.kill(pid, signal.SIGSTOP)
    while not child.criu.was_stopped:
        child.step()
    until(lambda: psutil.Process(pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP), "it to stand", 5)
    before = sum(psutil.Process(pid).cpu_times()[:2])
    child.criu.check()  # not yet: whoever stopped it has a second
    assert sum(psutil.Process(pid).cpu_times()[:2]) == before
    os.kill(pid, signal.SIGCONT)
    ended = child.end()
    assert (ended["code"], ended["was_stopped"]) == (0, True)
