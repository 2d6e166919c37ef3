"""The lock that keeps two trainings out of one store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from store_samples import mode

from criu_train.errors import StoreBusyError
from criu_train.store.lock import StoreLock
from criu_train.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create_or_open(tmp_path / "store")


def test_a_second_supervisor_is_told_who_holds_the_store(store: Store) -> None:
    lock = StoreLock.acquire(store.layout)
    store.layout.supervisor.write_text(json.dumps({"supervisor_pid": os.getpid(), "init_pid": 1}))
    with pytest.raises(StoreBusyError, match=f"in use by the supervisor with PID {os.getpid()}") as caught:
        StoreLock.acquire(store.layout)
    assert "criu-train status" in caught.value.tip
    lock.release()
    StoreLock.acquire(store.layout).release()


def test_a_cell_that_outlived_its_supervisor_is_named(store: Store) -> None:
    lock = StoreLock.acquire(store.layout)
    with subprocess.Popen(["sleep", "60"], pass_fds=[lock.fd]) as init:
        lock.release()
        store.layout.supervisor.write_text(json.dumps({"supervisor_pid": os.getpid(), "init_pid": init.pid}))
        with pytest.raises(StoreBusyError, match=rf"still runs in its cell \(init_pid {init.pid}\)") as caught:
            StoreLock.acquire(store.layout)
        assert f"kill -KILL {init.pid}" in caught.value.tip
        init.kill()
    StoreLock.acquire(store.layout).release()


@pytest.mark.parametrize(
    "told", ["", "[]", "{}", '{"supervisor_pid": "x"}', '{"supervisor_pid": 1, "init_pid": 99999999}']
)
def test_a_pid_that_does_not_hold_the_lock_is_not_blamed(store: Store, told: str) -> None:
    lock = StoreLock.acquire(store.layout)
    store.layout.supervisor.write_text(told)
    with pytest.raises(StoreBusyError, match=f"{store.layout.root} is in use by another process"):
        StoreLock.acquire(store.layout)
    lock.release()


def test_a_file_closed_while_it_is_looked_at_does_not_hide_who_holds_the_lock(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = StoreLock.acquire(store.layout)
    store.layout.supervisor.write_text(json.dumps({"supervisor_pid": os.getpid()}))
    open_now = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: iter([path / "9999", *open_now(path)]))
    with pytest.raises(StoreBusyError, match=f"in use by the supervisor with PID {os.getpid()}"):
        StoreLock.acquire(store.layout)
    lock.release()


def test_a_program_that_is_started_meanwhile_does_not_hold_the_lock(store: Store) -> None:
    lock = StoreLock.acquire(store.layout)
    script = "print('here', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=False
    ) as training:
        assert training.stdout is not None and training.stdout.readline() == b"here\n"
        lock.release()
        StoreLock.acquire(store.layout).release()
        training.kill()


def test_the_lock_is_private_and_may_be_released_twice(store: Store) -> None:
    lock = StoreLock.acquire(store.layout)
    assert mode(store.layout.lock) == 0o600
    lock.release()
    lock.release()
