"""What a killed restore has left is removed, and nothing else."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from criu_train.criu.images import Images, LentName
from criu_train.store.snapshot import Snapshot
from criu_train.supervisor.lent_names import take_back
from criu_train.workspace.listing import Entry, Listing


def snapshot(monkeypatch: pytest.MonkeyPatch, *names: LentName) -> Snapshot:
    monkeypatch.setattr(Images, "lent_names", lambda images: names)
    return cast(Snapshot, SimpleNamespace(images=Path("/nowhere"), read_image=None))


def listing(*entries: Entry) -> Listing:
    return Listing(cut_ns=0, boot_id="", roots=(), entries=entries)


def test_files_and_empty_directories_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "held.cr.3.ghost").write_text("what it held")
    (tmp_path / "gone").mkdir()
    names = (
        LentName(str(tmp_path / "gone"), directory=True),
        LentName(str(tmp_path / "held.cr.3.ghost"), directory=False),
    )
    take_back(snapshot(monkeypatch, *names), listing(), None)
    assert not list(tmp_path.iterdir())


def test_what_is_not_there_and_directories_that_are_in_use_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "results").write_text("of somebody else")
    names = (
        LentName(str(tmp_path / "used"), directory=True),
        LentName(str(tmp_path / "nowhere" / "held.cr.3.ghost"), directory=False),
    )
    take_back(snapshot(monkeypatch, *names), listing(), None)
    assert (tmp_path / "used" / "results").read_text() == "of somebody else"


def test_a_directory_that_there_was_again_at_the_dump_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "again").mkdir()
    entry = Entry(str(tmp_path / "again"), "dir", "workspace", 0o755, 0, 0, 4096, 0, 0, 1, 2)
    take_back(snapshot(monkeypatch, LentName(entry.path, directory=True)), listing(entry), None)
    assert (tmp_path / "again").is_dir()
