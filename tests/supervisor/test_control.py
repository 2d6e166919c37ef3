"""The runtime directory, which all jobs of a machine share."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from criu_train.supervisor.control import ControlServer, remove_dead_sockets

LONG_AGO = 1_000_000_000


@pytest.fixture
def runtime() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as path:  # short, as paths of sockets have to be
        yield Path(path)


def bound(path: Path, kind: int, *, when: float | None = LONG_AGO) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK)
    made.bind(str(path))
    if when is not None:
        os.utime(path, (when, when))
    return made


@pytest.mark.parametrize("name", ["a.sock", "a.cell"])
def test_the_socket_of_a_killed_job_is_removed(runtime: Path, name: str) -> None:
    bound(runtime / name, socket.SOCK_STREAM).close()
    remove_dead_sockets(runtime)
    assert not (runtime / name).exists()


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET])
def test_the_socket_of_a_living_job_stays_and_nobody_is_called_to_it(runtime: Path, kind: int) -> None:
    with closing(bound(runtime / "a.cell", kind)) as living:
        living.listen()
        remove_dead_sockets(runtime)
        assert (runtime / "a.cell").exists()
        with pytest.raises(BlockingIOError):
            living.accept()


def test_one_that_was_just_made_stays(runtime: Path) -> None:
    bound(runtime / "a.sock", socket.SOCK_STREAM, when=None).close()
    remove_dead_sockets(runtime)
    assert (runtime / "a.sock").exists()


def test_nothing_else_is_touched(runtime: Path) -> None:
    (runtime / "criu.lock").touch()
    os.utime(runtime / "criu.lock", (LONG_AGO, LONG_AGO))
    remove_dead_sockets(runtime)
    assert (runtime / "criu.lock").exists()


async def test_a_supervisor_that_starts_tidies_up_after_others(runtime: Path) -> None:
    async def answer(_: object) -> dict[str, object]:
        return {}

    bound(runtime / "a.sock", socket.SOCK_STREAM).close()
    async with ControlServer(runtime / "b.sock", answer):
        assert [path.name for path in runtime.iterdir()] == ["b.sock"]
