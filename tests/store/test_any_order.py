"""Whatever is done to a store, in any order and cut off anywhere: what is left of complete snapshots is whole."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from store_samples import facts

from criu_train.errors import DumpFailedError, StoreError
from criu_train.store.digest import digest_bytes
from criu_train.store.draft import Draft
from criu_train.store.durable import Disk
from criu_train.store.integrity import verify
from criu_train.store.snapshot import MARKER
from criu_train.store.store import Store

_PUBLISH = ("images-synced", "manifest-written", "before-marker", "after-marker")
_REMOVE = ("set-aside", "before-sweep", "swept-one")


class _KilledError(BaseException):
    """What a kill looks like from the inside: nothing gets the chance to tidy up."""


class _Disk(Disk):
    """Kills or fails at a point, the ``left``-th time that it is reached."""

    def __init__(self) -> None:
        self.point, self.left, self.error = "", 0, False

    def arm(self, point: str, nth: int = 1, *, error: bool = False) -> None:
        self.point, self.left, self.error = point, nth, error

    def fsync(self, path: Path) -> None:
        """Durability is not looked at here, and would take most of the time."""

    def reached(self, point: str) -> None:
        if point == self.point:
            self.left -= 1
            if self.left == 0:
                raise OSError(5, "Input/output error") if self.error else _KilledError


class Stores(RuleBasedStateMachine):
    """A store whose snapshots are made of packs, linked from one to the next as long as they are wanted."""

    def __init__(self) -> None:
        super().__init__()
        self.top = Path(tempfile.mkdtemp())
        self.disk = _Disk()
        self.store = Store.create_or_open(self.top / "store", self.disk)
        self.run = self.store.begin_run(("python",), "/").id
        self.content: dict[str, dict[str, bytes]] = {}  # what each complete snapshot's packs must hold
        self.count = 0

    def teardown(self) -> None:
        shutil.rmtree(self.top)

    def _draft(self, kept: int) -> tuple[Draft, dict[str, bytes]]:
        """Links up to ``kept`` packs of the newest snapshot, as packing does, and writes a new one."""
        draft = self.store.new_draft(self.run, "timer")
        draft.packs.mkdir(mode=0o700)
        packs = {}
        for earlier in self.store.earlier()[:1]:
            for path in sorted((earlier / "packs").iterdir())[:kept]:
                (draft.packs / path.name).hardlink_to(path)
                packs[path.name] = self.content[earlier.name][path.name]
        self.count += 1
        new = f"pages {self.count}".encode() * 100
        (draft.packs / digest_bytes(new)).write_bytes(new)
        packs[digest_bytes(new)] = new
        (draft.packs / ".half").write_bytes(b"half")
        (draft.path / "pages.index").write_bytes(new[:9])
        (draft.images / "pstree.img").write_bytes(b"tree")
        draft.dump_log.write_text("log")
        return draft, packs

    @rule(kept=st.integers(0, 4))
    def take(self, kept: int) -> None:
        draft, packs = self._draft(kept)
        snapshot = draft.publish(facts(), log_ended=True)
        self.content[snapshot.id] = packs
        assert snapshot.manifest is not None
        assert snapshot.manifest.added_bytes == snapshot.manifest.stored_bytes - sum(
            len(data) for name, data in packs.items() if (snapshot.packs / name).stat().st_nlink > 1
        )

    @rule(kept=st.integers(0, 4), point=st.sampled_from(_PUBLISH), error=st.booleans())
    def take_cut_off(self, kept: int, point: str, error: bool) -> None:
        draft, packs = self._draft(kept)
        self.disk.arm(point, error=error)
        try:
            draft.publish(facts(), log_ended=True)
        except (_KilledError, DumpFailedError, OSError):
            if error:
                draft.discard("the disk failed")
            draft._disown()  # as the end of the process does
        if (draft.path / MARKER).exists():
            self.content[draft.id] = packs
        assert (draft.id in self.content) == (point == "after-marker")

    @rule(kept=st.integers(0, 4))
    def give_up(self, kept: int) -> None:
        draft, _ = self._draft(kept)
        draft.discard("CRIU failed")

    @precondition(lambda self: self.content)
    @rule(data=st.data(), force=st.booleans())
    def delete(self, data: st.DataObject, force: bool) -> None:
        chosen = data.draw(st.sets(st.sampled_from(sorted(self.content)), min_size=1))
        try:
            self.store.delete(chosen, force=force)
        except StoreError:
            assert not force and chosen >= set(self.content) - set(self.abandoned())
            return
        self._forget(chosen)
        assert not any((self.store.layout.snapshots / one).exists() for one in chosen)

    @precondition(lambda self: self.content)
    @rule(data=st.data(), point=st.sampled_from(_REMOVE), nth=st.integers(1, 3))
    def delete_cut_off(self, data: st.DataObject, point: str, nth: int) -> None:
        chosen = data.draw(st.sets(st.sampled_from(sorted(self.content)), min_size=1))
        self._cut_off(point, nth, lambda: self.store.delete(chosen, force=True))

    @rule(keep=st.integers(1, 3))
    def prune(self, keep: int) -> None:
        newest = max((one for one in self.content if one not in self.abandoned()), default=None)
        self._forget(self.store.prune(keep))
        assert len(self.content) <= keep
        assert newest is None or newest in self.content
        assert not list(self.store.layout.snapshots.glob(".trash-*"))

    @rule(keep=st.integers(1, 3), point=st.sampled_from(_REMOVE), nth=st.integers(1, 3))
    def prune_cut_off(self, keep: int, point: str, nth: int) -> None:
        self._cut_off(point, nth, lambda: self.store.prune(keep))

    @rule()
    def sweep(self) -> None:
        self.store.sweep()
        assert {path.name for path in self.store.layout.snapshots.iterdir()} == set(self.content)

    @precondition(lambda self: self.content)
    @rule(data=st.data())
    def branch(self, data: st.DataObject) -> None:
        self.store.abandon_after(data.draw(st.sampled_from(sorted(self.content))))

    @precondition(lambda self: self.content)
    @rule(data=st.data())
    def remove_by_hand(self, data: st.DataObject) -> None:
        chosen = data.draw(st.sampled_from(sorted(self.content)))
        shutil.rmtree(self.store.layout.snapshots / chosen)
        self._forget([chosen])

    @invariant()
    def every_complete_snapshot_holds_what_it_held(self) -> None:
        self.disk.arm("")
        complete = {one.id: one for one in self.store.snapshots() if one.status != "incomplete"}
        assert set(complete) == set(self.content)
        for name, one in complete.items():
            assert verify(one) == []
            assert {path.name: path.read_bytes() for path in one.packs.iterdir()} == self.content[name]
        assert [path.name for path in self.store.earlier()] == sorted(self.content, reverse=True)[:8]
        assert [(one.id, one.status) for one in self.store.listing()] == [
            (one.id, one.status) for one in self.store.snapshots()
        ]

    def abandoned(self) -> list[str]:
        return [one.id for one in self.store.listing() if one.abandoned]

    def _cut_off(self, point: str, nth: int, action: object) -> None:
        assert callable(action)
        self.disk.arm(point, nth)
        try:
            action()
        except _KilledError:
            self.store = Store.open(self.store.layout.root, self.disk)
        self._forget([one for one in self.content if not (self.store.layout.snapshots / one).exists()])

    def _forget(self, gone: object) -> None:
        assert isinstance(gone, list | set)
        for one in gone:
            self.content.pop(one, None)


Stores.TestCase.settings = settings(
    max_examples=40, stateful_step_count=25, derandomize=True, deadline=None, database=None
)
TestAnyOrder = Stores.TestCase
