"""Threads of other processes run alone, and make system calls for us, without noticing."""

from __future__ import annotations

import errno
import mmap
import os
import signal
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from harness import until

from criu_train.cuda import inherited
from criu_train.cuda.ptrace import Seized

GETPID, CLOSE = 39, 3
# Two threads count in a file; the first writes down who the second is.
COUNTING = """
import mmap, os, struct, sys, threading, time
with open(sys.argv[1], "r+b") as file:
    counts = mmap.mmap(file.fileno(), 32)
def count(at):
    counts[at + 16 : at + 24] = struct.pack("q", threading.get_native_id())
    while True:
        counts[at : at + 8] = struct.pack("q", struct.unpack("q", counts[at : at + 8])[0] + 1)
        time.sleep(0.001)
threading.Thread(target=count, args=(8,), daemon=True).start()
count(0)
"""


@pytest.fixture
def counting(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    counts = tmp_path / "counts"
    counts.write_bytes(bytes(32))
    with subprocess.Popen([sys.executable, "-c", COUNTING, str(counts)]) as process:
        try:
            until(lambda: all(read(counts)), "both to count")
            yield process, counts
        finally:
            process.kill()


def read(counts: Path) -> tuple[int, ...]:
    return struct.unpack("4q", counts.read_bytes())


def progress(counts: Path) -> tuple[bool, bool]:
    """Which of the two has counted within a tenth of a second."""
    before = read(counts)
    time.sleep(0.1)
    after = read(counts)
    return after[0] > before[0], after[1] > before[1]


def test_a_thread_runs_alone_in_a_process_that_is_stopped_and_stops_again(
    counting: tuple[subprocess.Popen[bytes], Path],
) -> None:
    process, counts = counting
    process.send_signal(signal.SIGSTOP)
    until(lambda: progress(counts) == (False, False), "both to stop")
    for _ in range(2):
        with Seized(read(counts)[3]) as thread:
            assert thread.run(lambda: progress(counts)) == (False, True)
        assert progress(counts) == (False, False)
    process.send_signal(signal.SIGCONT)
    assert progress(counts) == (True, True)


def test_a_second_stop_signal_does_not_stop_the_thread_that_runs_alone(
    counting: tuple[subprocess.Popen[bytes], Path],
) -> None:
    process, counts = counting
    process.send_signal(signal.SIGSTOP)
    until(lambda: progress(counts) == (False, False), "both to stop")
    process.send_signal(signal.SIGSTOP)
    with Seized(read(counts)[3]) as thread:
        assert thread.run(lambda: progress(counts)) == (False, True)
    process.send_signal(signal.SIGCONT)
    assert progress(counts) == (True, True)


def test_what_goes_wrong_in_the_work_is_raised_and_the_process_goes_on(
    counting: tuple[subprocess.Popen[bytes], Path],
) -> None:
    process, counts = counting

    def fail() -> None:
        raise KeyError("work")

    with pytest.raises(KeyError, match="work"), Seized(process.pid) as thread:
        thread.run(fail)
    assert progress(counts) == (True, True)


def test_a_process_makes_system_calls_for_us_and_sleeps_as_long_as_it_wanted() -> None:
    began = time.monotonic()
    with subprocess.Popen(["sleep", "1"]) as process:
        until(lambda: Path(f"/proc/{process.pid}/wchan").read_text() not in ("", "0"), "it to sleep")
        for _ in range(3):
            with Seized(process.pid) as thread, thread.calls() as call:
                assert call(GETPID) == process.pid
                with pytest.raises(OSError) as caught:
                    call(CLOSE, 999)
                assert caught.value.errno == errno.EBADF
        assert process.wait(10) == 0
    assert 1.0 <= time.monotonic() - began < 3.0


def test_a_process_that_is_gone_is_an_os_error() -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    with pytest.raises(ProcessLookupError), Seized(process.pid):
        pass


HOLDING = """
import mmap, os, sys
file = os.open(sys.argv[1], os.O_RDWR)
held = mmap.mmap(file, mmap.PAGESIZE * 2)
held[:5] = b"first"
print("ready", flush=True)
for line in sys.stdin:
    print(held[:5].decode(), flush=True)
    held[:5] = b"later"
"""


def test_what_a_fork_has_inherited_of_a_gpu_is_replaced_by_the_same_in_ordinary_memory(tmp_path: Path) -> None:
    # A file by the name of a GPU, so that both sides can be seen.
    device = Path(f"/dev/nvidia-{tmp_path.name}")
    device.write_bytes(bytes(2 * mmap.PAGESIZE))
    try:
        with subprocess.Popen(
            [sys.executable, "-c", HOLDING, str(device)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            (number, *_) = inherited.descriptors(process.pid)
            assert inherited.mappings(process.pid)[0].path == str(device)
            inherited.let_go(process.pid)
            assert inherited.descriptors(process.pid) == []
            assert inherited.mappings(process.pid) == []
            assert os.readlink(f"/proc/{process.pid}/fd/{number}") == "anon_inode:[eventfd]"
            for expected in ("first", "later"):
                process.stdin.write("\n")
                process.stdin.flush()
                assert process.stdout.readline() == f"{expected}\n"
            process.stdin.close()
            assert process.wait(10) == 0
        assert device.read_bytes()[:5] == b"first"
    finally:
        device.unlink()


def test_only_what_an_ancestor_has_open_too_counts_as_inherited(tmp_path: Path) -> None:
    device = Path(f"/dev/nvidia-{tmp_path.name}")
    device.touch()
    script = (
        "import os, sys, time; file = os.open(sys.argv[1], os.O_RDONLY); os.fork(); print(flush=True); time.sleep(60)"
    )
    try:
        with subprocess.Popen([sys.executable, "-c", script, str(device)], stdout=subprocess.PIPE) as parent:
            assert parent.stdout is not None
            parent.stdout.readline()
            parent.stdout.readline()
            (child,) = psutil.Process(parent.pid).children()
            assert inherited.is_all_inherited(child.pid)
            assert not inherited.is_all_inherited(parent.pid)
            child.kill()
            parent.kill()
    finally:
        device.unlink()


def test_a_process_that_holds_no_gpu_is_not_touched() -> None:
    with subprocess.Popen(["sleep", "1"]) as process:
        inherited.let_go(process.pid)
        assert stat.S_ISDIR(os.stat(f"/proc/{process.pid}").st_mode)
        process.kill()
