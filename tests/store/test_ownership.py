"""Restoring runs what is in a store with our rights: only ours is opened."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from store_samples import add

from criu_train.errors import StoreError
from criu_train.store.guard import swappable
from criu_train.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create_or_open(tmp_path / "store")


@pytest.mark.parametrize("bits", [0o020, 0o002])
def test_a_store_that_others_can_write_to_is_refused(store: Store, bits: int) -> None:
    for directory in (store.layout.snapshots, store.layout.root):
        directory.chmod(0o700 | bits)
        with pytest.raises(StoreError, match="can be written to by other users") as caught:
            Store.open(store.layout.root)
        assert caught.value.tip == f"if you trust what is in it: chmod go-w {directory}"


def test_a_store_of_another_user_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    for opened in (Store.open, Store.create_or_open, Store.open_if_any):
        with pytest.raises(StoreError, match=f"belongs to user id {owner}"):
            opened(store.layout.root)


def test_root_by_way_of_sudo_may_use_the_store_of_the_user_who_called_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.chown(store.layout.root, 4242, 4242)
    os.chown(store.layout.snapshots, 4242, 4242)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(StoreError, match="belongs to user id 4242"):
        Store.open(store.layout.root)
    monkeypatch.setenv("SUDO_UID", "4242")
    assert Store.open(store.layout.root).id == store.id


def test_a_link_that_another_user_made_does_not_lead_to_a_store(store: Store, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    assert Store.open(link / "store").id == store.id
    os.chown(link, 4242, 4242, follow_symlinks=False)
    with pytest.raises(StoreError, match="link, a symbolic link of user id 4242"):
        Store.open(link / "store")
    (tmp_path / "ours").symlink_to("link")
    with pytest.raises(StoreError, match="a symbolic link of user id 4242"):
        Store.open(tmp_path / "ours" / "store")


def test_a_snapshot_that_others_planted_or_can_change_is_not_restorable(store: Store) -> None:
    snapshot = add(store)
    snapshot.path.chmod(0o770)
    assert store.snapshots()[0].reason == "the snapshot can be written to by other users (mode 0770)"
    snapshot.path.chmod(0o700)
    os.chown(snapshot.path, 4242, 4242)
    assert store.snapshots()[0].reason == "the snapshot belongs to user id 4242"
    assert store.snapshots()[0].status == "corrupt"


def test_a_directory_above_through_which_others_could_swap_the_store_is_named(tmp_path: Path) -> None:
    above = tmp_path / "above"
    store = Store.create_or_open(above / "between" / "store").layout.root
    assert swappable(store) is None
    above.chmod(0o777)
    assert swappable(store) == f"anybody can write to {above}"
    above.chmod(0o1777)
    assert swappable(store) is None
    os.chown(above, 4242, 4242)
    assert swappable(store) == f"{above} belongs to user id 4242"
    (tmp_path / "link").symlink_to(store)
    assert swappable(tmp_path / "link") == f"{above} belongs to user id 4242"


@pytest.mark.parametrize("name", ["manifest.json", "COMPLETE"])
def test_no_link_is_followed_to_a_manifest_or_marker_elsewhere(store: Store, tmp_path: Path, name: str) -> None:
    one = add(store)
    (one.path / name).rename(tmp_path / "elsewhere")
    (one.path / name).symlink_to(tmp_path / "elsewhere")
    assert store.snapshots()[0].status == "corrupt"
