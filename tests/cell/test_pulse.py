"""Signs of life of real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from criu_train.cell.pulse import Pulse, Thread, moved, take_pulse, threads_of, worked

Begin = Callable[[str], int]
GLANCE_S = 0.5


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Starts a Python program and waits until it says that it has begun."""
    children = []

    def start(program: str) -> int:
        child = subprocess.Popen([sys.executable, "-uc", program], stdout=subprocess.PIPE)
        children.append(child)
        assert child.stdout is not None
        child.stdout.readline()
        return child.pid

    yield start
    for child in children:
        child.kill()
        child.communicate()


def glance(pid: int, output: Path) -> tuple[Pulse, Pulse]:
    before = take_pulse([pid], output)
    time.sleep(GLANCE_S)
    return before, take_pulse([pid], output)


WAITS = "import time; print(); time.sleep(100)"
LOOKS_AROUND = "import time; print()\nwhile True: time.sleep(0.1)"
COMPUTES = "print()\nwhile True: pass"
COMPUTES_ASIDE = "import threading\ndef work():\n while True: pass\nthreading.Thread(target=work).start(); print()"


@pytest.mark.parametrize("program", [WAITS, LOOKS_AROUND])
def test_waiting_is_no_motion(begin: Begin, tmp_path: Path, program: str) -> None:
    looks = [glance(begin(program), tmp_path / "output.log") for _ in range(3)]  # it may be looked at as it wakes up
    before, after = next((look for look in looks if look[1].waits), looks[0])
    assert not moved(before, after)
    assert not worked(before.threads, after.threads, GLANCE_S)
    assert after.waits


@pytest.mark.parametrize("program", [COMPUTES, COMPUTES_ASIDE])
def test_computing_is_motion_and_work(begin: Begin, tmp_path: Path, program: str) -> None:
    before, after = glance(begin(program), tmp_path / "output.log")
    assert moved(before, after)
    assert worked(before.threads, after.threads, GLANCE_S)


def test_a_file_that_is_written_slowly_is_motion_but_no_work(begin: Begin, tmp_path: Path) -> None:
    program = "import time; f = open({!r}, 'ab', 0); print()\nwhile True: f.write(b'x'); time.sleep(0.1)"
    before, after = glance(begin(program.format(str(tmp_path / "log"))), tmp_path / "output.log")
    assert moved(before, after)
    assert not worked(before.threads, after.threads, GLANCE_S)


def test_output_is_motion_whoever_writes_it_down(begin: Begin, tmp_path: Path) -> None:
    output, pid = tmp_path / "output.log", begin(WAITS)
    output.write_bytes(b"x")
    before = take_pulse([pid], output)
    output.write_bytes(b"xx")
    assert moved(before, take_pulse([pid], output))


def test_whoever_is_stopped_does_not_wait(begin: Begin, tmp_path: Path) -> None:
    pid = begin(WAITS)
    os.kill(pid, signal.SIGSTOP)
    time.sleep(0.1)
    assert not take_pulse([pid], tmp_path / "output.log").waits


def test_the_end_of_a_thread_is_motion_and_of_the_dead_nothing_is_told() -> None:
    two, one = {1: Thread("S", 0.0), 2: Thread("S", 0.0)}, {1: Thread("S", 0.0)}
    assert moved(Pulse(0.0, two), Pulse(1.0, one))
    assert threads_of([1 << 22]) == {}
