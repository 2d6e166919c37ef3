"""What is a snapshot's fault, and what is not."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from criu_train.errors import EnvironmentUnfitError, RestoreFailedError
from criu_train.store.store import Store
from criu_train.supervisor.blame import blame_the_snapshot


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create_or_open(tmp_path / "store")


def test_what_is_wrong_with_a_snapshot_is_told_and_the_next_one_gets_its_chance(store: Store) -> None:
    damaged = RestoreFailedError("corrupt: a byte is wrong", tip="check the disk")
    assert blame_the_snapshot(damaged, store) == ("corrupt: a byte is wrong", "check the disk")
    gone = FileNotFoundError(errno.ENOENT, "No such file or directory", "/store/snapshots/1/listing.json")
    assert blame_the_snapshot(gone, store) == ("No such file or directory: /store/snapshots/1/listing.json", None)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EMFILE, errno.EROFS, errno.ESTALE, errno.ENOTCONN])
def test_what_fails_every_snapshot_alike_is_no_snapshots_fault(store: Store, number: int) -> None:
    with pytest.raises(EnvironmentUnfitError, match=os.strerror(number)) as refused:
        blame_the_snapshot(OSError(number, os.strerror(number)), store)
    assert "run the same command again" in refused.value.tip


def test_no_snapshot_is_missing_where_the_whole_store_is_away(store: Store, tmp_path: Path) -> None:
    store.layout.root.rename(tmp_path / "away")
    with pytest.raises(EnvironmentUnfitError, match="the store can't be read any more"):
        blame_the_snapshot(RestoreFailedError("corrupt: the pages are missing", tip="check the disk"), store)
