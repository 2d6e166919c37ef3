"""What a stopped tree lacks of what its images say is told, each in words."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from criu_train.criu.images import Images, Map, Task
from criu_train.criu.resemblance import differences


class Told(Images):
    """Images that say what a test wants."""

    def __init__(self, tasks: tuple[Task, ...], maps: tuple[Map, ...] = (), descriptors: frozenset[int] = frozenset()):
        self._told = tasks, maps, descriptors

    def tasks(self) -> tuple[Task, ...]:
        return self._told[0]

    def maps(self, pid: int) -> tuple[Map, ...]:
        return self._told[1]

    def descriptors(self, pid: int) -> frozenset[int]:
        return self._told[2]


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A stopped process 7 with two threads, two maps and two descriptors."""
    for name in ("7/task/7", "7/task/8", "7/fd"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "7/status").write_text("Name:\tx\nState:\tT (stopped)\nPPid:\t3\n")
    (tmp_path / "7/maps").write_text("1000-4000 r-xp 0 00:00 0 /bin/x\n8000-9000 rw-p 0 00:00 0\n")
    for number in (0, 1):
        os.symlink("/dev/null", tmp_path / f"7/fd/{number}")
    return tmp_path


WHOLE = Task(7, 3, "x", (7, 8))
MAPS = (Map(0x1000, "r-x"), Map(0x2000, "r-x"), Map(0x8000, "rw-"))  # the kernel has joined two


def test_a_tree_that_is_the_one_in_the_images_differs_in_nothing(proc: Path) -> None:
    assert list(differences(Told((WHOLE,), MAPS, frozenset((0, 1))), proc)) == []


@pytest.mark.parametrize(
    ("images", "word"),
    [
        (Told((WHOLE, Task(9, 7, "y", (9,))), MAPS), "process 9 (y) is not there"),
        (Told((Task(7, 3, "x", (7,)),), MAPS), "2 threads rather than 1"),
        (Told((Task(7, 4, "x", (7, 8)),), MAPS), "a child of 3 rather than of 4"),
        (Told((WHOLE,), (Map(0x5000, "r--"),)), "lacks memory at 5000"),
        (Told((WHOLE,), (Map(0x8000, "r--"),)), "lacks memory at 8000"),
        (Told((WHOLE,), MAPS, frozenset((0, 5))), "lacks the descriptors 5"),
    ],
)
def test_what_is_not_as_the_images_say_is_told(proc: Path, images: Told, word: str) -> None:
    assert any(word in difference for difference in differences(images, proc))


def test_a_process_that_runs_is_told(proc: Path) -> None:
    (proc / "7/status").write_text("State:\tR (running)\nPPid:\t3\n")
    assert "is not stopped" in next(differences(Told((WHOLE,), MAPS), proc))


def test_a_task_that_comes_to_its_stop_late_is_waited_for(proc: Path) -> None:
    """On a busy machine one that was told to stop before its first line is still on its way there."""
    status = proc / "7/status"
    status.write_text(status.read_text().replace("T (stopped)", "R (running)"))
    assert list(differences(Told((WHOLE,), MAPS), proc)) == ["process 7 (x) is not stopped: R (running)"]
    (proc / "later").write_text("Name:\tx\nState:\tT (stopped)\nPPid:\t3\n")
    stop = threading.Timer(0.2, (proc / "later").replace, [status])
    stop.start()
    assert list(differences(Told((WHOLE,), MAPS), proc, settle_s=10)) == []
    stop.join()
