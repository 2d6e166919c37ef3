"""What comes out of the training's terminal, and how long taking it may take."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from criu_train.cell.terminal import Terminal


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    terminal = Terminal(str(tmp_path / "output.log"), 24, 80)
    yield terminal
    for descriptor in (terminal._master, terminal.slave, terminal._output):
        os.close(descriptor)


def test_everything_that_was_written_is_in_the_log_with_its_own_line_ends(terminal: Terminal, tmp_path: Path) -> None:
    text = b"".join(b"\rstep %d\n" % number for number in range(900))  # 10 KB: as much as it holds
    assert os.write(terminal.slave, text) == len(text)
    terminal.drain()
    assert (tmp_path / "output.log").read_bytes() == text


def test_a_writer_that_is_not_frozen_does_not_keep_the_others_frozen(terminal: Terminal) -> None:
    pid = os.fork()
    if pid == 0:
        while True:
            os.write(terminal.slave, b"x" * 500)
    try:
        time.sleep(0.05)
        began = time.monotonic()
        terminal.drain()
        assert time.monotonic() - began < 0.5
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_what_a_full_disk_does_not_take_is_kept(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disk_full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    os.write(terminal.slave, b"one\n")
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", disk_full)
        with pytest.raises(OSError, match="No space"):
            terminal.drain()
    os.write(terminal.slave, b"two\n")
    terminal.drain()
    assert (tmp_path / "output.log").read_bytes() == b"one\ntwo\n"


def test_the_terminal_belongs_to_who_trains(tmp_path: Path) -> None:
    terminal = Terminal(str(tmp_path / "output.log"), 24, 80, owner=(65534, 65534))
    assert os.fstat(terminal.slave).st_uid == 65534
    assert os.get_terminal_size(terminal.slave) == (80, 24)
    for descriptor in (terminal._master, terminal.slave, terminal._output):
        os.close(descriptor)
