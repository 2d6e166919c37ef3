"""Whether a store is where its snapshots were taken, and what is said when it is not."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from store_samples import facts

from criu_train.store.layout import StoreLayout
from criu_train.store.lock import StoreLock
from criu_train.store.manifest import Manifest
from criu_train.store.store import Store
from criu_train.workspace.environment import Finding
from criu_train.workspace.listing import Entry, Listing
from criu_train.workspace.place import compare_place, how_to_go_back, other_store, settle_in

FIXED = {"mode": 0o600, "uid": 0, "gid": 0, "mtime_ns": 1, "ctime_ns": 1, "dev": 1, "ino": 1}


class Moved:
    """A run that worked in ``old`` with its store in there; ``new`` is where a test puts things."""

    def __init__(self, top: Path) -> None:
        self.old, self.new = top / "old", top / "new"
        self.old.mkdir()
        self.store = Store.create_or_open(self.old / ".criu-train").layout.root
        self.listing = self._listing()
        self.manifest = Manifest(
            **vars(facts(cwd=str(self.old))),
            **{"id": "x", "sequence": 1, "run": "run-1", "created_at": "2026-11-22T10:00:00Z", "trigger": "timer"},
            stored_bytes=1,
            files={},
        )
        (self.old / "metrics").write_text("1\n")

    def _listing(self) -> Listing:
        files = (self.old / "metrics", self.store / "output.log")
        entries = tuple(Entry(str(path), "file", "workspace", size=2, parts=(), **FIXED) for path in files)  # type: ignore[arg-type]
        return Listing(1, "boot", (str(self.old),), entries, exclude=(str(self.store),), include=(str(files[1]),))

    def findings(self, store: Path, here: Path = Path("/")) -> list[Finding]:
        return list(compare_place(self.manifest, self.listing, store=store, here=here))


@pytest.fixture
def moved(tmp_path: Path) -> Moved:
    return Moved(tmp_path)


def test_in_its_place_there_is_nothing_to_say_by_whatever_name_it_is_called(moved: Moved) -> None:
    moved.new.symlink_to(moved.old)
    for store in (moved.store, moved.new / ".criu-train"):
        assert other_store(moved.listing, store) is None
        assert moved.findings(store) == []


def test_a_store_that_went_along_with_its_directory_is_refused_with_the_mount_that_helps(moved: Moved) -> None:
    moved.old.rename(moved.new)
    (found,) = moved.findings(moved.new / ".criu-train")
    assert found.blocking
    assert found.what == f"the training works in {moved.old}, which was moved or copied to {moved.new} with this store"
    assert how_to_go_back(str(moved.new), str(moved.old)) in found.tip


def test_a_path_with_a_space_can_be_pasted_into_a_shell() -> None:
    assert shlex.split(how_to_go_back("/a b", "/c d")) == [
        *("mkdir", "-p", "/c d", "&&", "mount", "--bind", "/a b", "/c d", "&&", "cd", "/c d")
    ]


def test_a_store_alone_may_lie_anywhere(moved: Moved) -> None:
    moved.new.mkdir()
    moved.store.rename(moved.new / ".criu-train")
    assert moved.findings(moved.new / ".criu-train") == []
    (moved.new / ".criu-train").rename(moved.old / "store")
    assert moved.findings(moved.old / "store") == []


def test_who_stands_in_the_training_s_own_directory_means_that_one(moved: Moved) -> None:
    moved.new.mkdir()
    moved.store.rename(moved.new / ".criu-train")
    (moved.new / "metrics").write_text("1\n")
    assert moved.findings(moved.new / ".criu-train", here=moved.old) == []
    assert moved.findings(moved.new / ".criu-train")[0].blocking


def test_nothing_is_restored_beside_a_run_that_has_its_lock(moved: Moved) -> None:
    lock = StoreLock.acquire(StoreLayout(moved.store))
    (found,) = moved.findings(moved.new / "imported", here=moved.old)
    assert found.blocking and found.what.startswith("the training may still run: ")
    lock.release()
    assert moved.findings(moved.new / "imported", here=moved.old) == []


def test_a_working_directory_that_is_gone_is_no_more_than_told(moved: Moved) -> None:
    moved.old.rename(moved.new)
    (found,) = moved.findings(moved.new / "imported")
    assert not found.blocking
    assert str(moved.old) in found.what


def test_a_store_takes_over_the_output_and_lets_no_rollback_into_itself(moved: Moved) -> None:
    layout = StoreLayout(moved.new / "imported")
    listing, names = settle_in(moved.listing, layout, rename=True)
    output = str(layout.output_log)
    assert names == {str(moved.store / "output.log"): output}
    assert [entry.path for entry in listing.entries] == [str(moved.old / "metrics"), output]
    assert listing.exclude == (str(layout.root), str(moved.store))
    assert listing.include == (output,)
    kept, none = settle_in(moved.listing, layout, rename=False)
    assert (replace(kept, exclude=()), none) == (replace(moved.listing, exclude=()), {})
    assert kept.exclude == listing.exclude
