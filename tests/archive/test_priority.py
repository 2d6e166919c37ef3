"""How fast packing may go, told by a clock that the test moves."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from criu_train.archive.priority import Pacer
from criu_train.errors import DumpFailedError

GIB = 1 << 30
MIB = 1 << 20


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Thread:
    """One that lives until it is told to end, so that its niceness can be looked at."""

    def __init__(self, pacer: Pacer) -> None:
        self._end = threading.Event()
        started = threading.Event()

        def work() -> None:
            self.id = threading.get_native_id()
            pacer.in_thread()
            started.set()
            self._end.wait()

        self._thread = threading.Thread(target=work)
        self._thread.start()
        started.wait()

    @property
    def nice(self) -> int:
        return os.getpriority(os.PRIO_PROCESS, self.id)

    def end(self) -> None:
        self._end.set()
        self._thread.join()


@pytest.fixture
def threads() -> Iterator[list[Thread]]:
    started: list[Thread] = []
    yield started
    for thread in started:
        thread.end()
    Pacer(0).end()


def test_packing_in_the_background_is_hardly_noticeable(clock: Clock, threads: list[Thread]) -> None:
    pacer = Pacer(2 * GIB, clock=clock)
    threads.append(Thread(pacer))
    for step in range(10):  # 5 s a GiB: in good time
        clock.now += 1
        assert pacer.level(GIB, (step + 1) / 10) == 3
    assert threads[0].nice == 19
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == 0


def test_packing_that_is_late_gets_more_of_the_machine_step_by_step(clock: Clock, threads: list[Thread]) -> None:
    pacer = Pacer(2 * GIB, clock=clock)
    threads.append(Thread(pacer))
    seen = []
    for _ in range(14):
        clock.now += 1.5  # a twentieth of the 30 seconds that it may take
        level = pacer.level(GIB, 0.01)
        seen.append((threads[0].nice, level))
    assert seen[:11] == [(nice, 3) for nice in (17, 15, 13, 11, 9, 7, 5, 3, 1, 0)] + [(0, 1)]
    assert seen[11:] == [(0, 1)] * 3


def test_a_thread_that_comes_later_is_as_nice_as_the_others(clock: Clock, threads: list[Thread]) -> None:
    pacer = Pacer(2 * GIB, clock=clock)
    threads.append(Thread(pacer))
    threads[0].end()  # and one that is gone does no harm
    clock.now += 5
    pacer.level(2 * GIB, 0.0)
    threads.append(Thread(pacer))
    assert threads[1].nice == 17


def test_what_takes_seconds_only_stays_in_the_background(clock: Clock, threads: list[Thread]) -> None:
    pacer = Pacer(100 * MIB, clock=clock)
    threads.append(Thread(pacer))
    for step in range(9):
        clock.now += 1
        pacer.level(MIB, (step + 1) / 10)
    assert threads[0].nice == 19


def test_the_nearer_the_deadline_the_less_is_compressed(clock: Clock, threads: list[Thread]) -> None:
    pacer = Pacer(1500 * MIB, 10.0, clock=clock)
    threads.append(Thread(pacer))
    assert threads[0].nice == 0
    assert pacer.level(1500 * MIB, 0.0) == 3
    clock.now += 5
    assert pacer.level(1450 * MIB, 0.0) is None  # 10 MiB a second so far: neither level can make it
    assert Pacer(4 * GIB, 10.0, clock=clock).level(3000 * MIB, 0.0) == 1


def test_time_spent_looking_for_pages_is_not_taken_for_slow_writing(clock: Clock) -> None:
    pacer = Pacer(1536 * MIB, 17.5, clock=clock)
    for done in range(15):  # a second and a half
        clock.now += 0.1
        assert pacer.level(1536 * MIB, done / 100) == 3
    left = 1536
    while left > 0:
        clock.now += 4 / 250
        left -= 4
        assert pacer.level(left * MIB, 0.5) == 3


def test_after_the_deadline_nothing_is_compressed(clock: Clock) -> None:
    pacer = Pacer(GIB, 1.0, clock=clock)
    clock.now += 2
    assert pacer.level(0, 0.0) is None


def test_who_is_faster_than_thought_compresses_again(clock: Clock) -> None:
    pacer = Pacer(4 * GIB, 10.0, clock=clock)
    assert pacer.level(4 * GIB, 0.0) is None
    clock.now += 1
    assert pacer.level(1 * GIB, 0.0) == 3


def test_a_word_to_hurry_turns_the_background_into_a_deadline(clock: Clock, threads: list[Thread]) -> None:
    pacer = Pacer(4 * GIB, clock=clock)
    threads.append(Thread(pacer))
    assert threads[0].nice == 19
    pacer.hurry(2.0)
    assert threads[0].nice == 0
    assert pacer.level(4 * GIB, 0.0) is None


def test_packing_that_was_given_up_is_told_at_the_next_frame(clock: Clock) -> None:
    pacer = Pacer(GIB, clock=clock)
    pacer.stop()
    with pytest.raises(DumpFailedError):
        pacer.level(GIB, 0.0)


def _autogroup() -> str:
    """Empty where the kernel does not group by session, or where a cpu cgroup takes the group's place."""
    try:
        return Path("/proc/self/autogroup").read_text()
    except OSError:
        return ""


@pytest.mark.skipif(not _autogroup(), reason="processes are not grouped by session here")
def test_niceness_counts_beside_other_sessions_too(clock: Clock) -> None:
    def group() -> str:
        return _autogroup().split()[-1]

    pacer = Pacer(GIB, clock=clock)
    assert group() == "19"
    pacer.end()
    assert group() == "0"


def test_digests_are_taken_only_when_they_and_the_writing_fit_into_the_time(clock: Clock) -> None:
    assert Pacer(3 * GIB, None, clock).hashing(3 * GIB)
    assert not Pacer(3 * GIB, 8.0, clock).hashing(3 * GIB)
    pacer = Pacer(3 * GIB, 15.0, clock)
    assert pacer.hashing(3 * GIB)
    clock.now += 1.0
    assert pacer.hashing(2 * GIB)  # as fast as thought
    clock.now += 4.0
    assert not pacer.hashing(int(1.9 * GIB))
