"""The order in which a publish really reaches the disk, as the kernel is asked for it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import store_samples
from harness import environment

from criu_train.store.store import Store

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
]
TRACED = "openat,write,pwrite64,ftruncate,fsync,fdatasync,rename,renameat,renameat2"
# PID, call, arguments; the end may be on a later line. Descriptors stand as 3</path>.
LINE = re.compile(r"(\d+) +(?:<\.\.\. )?(\w+)(?:\(| resumed>)(.*)")
DESCRIPTOR = re.compile(r"\d+<(/[^>]*)>")


@dataclass(frozen=True)
class Call:
    """``begun`` and ``done``: lines of the record, so that of two calls one may be before the other, or neither."""

    name: str
    paths: tuple[str, ...]
    text: str
    begun: int
    done: int

    def before(self, other: Call) -> bool:
        return self.done < other.begun

    @property
    def changes(self) -> bool:
        opened = self.name == "openat" and re.search(r"O_WRONLY|O_RDWR|O_TRUNC", self.text)
        return bool(opened) or self.name in ("write", "pwrite64", "ftruncate")


def parse(lines: Sequence[str]) -> list[Call]:
    """The calls that succeeded, in the order in which they were done."""
    calls, open_calls = [], {}
    for number, line in enumerate(lines):
        if (match := LINE.match(line)) is None:
            continue
        pid, name, rest = match.groups()
        begun, text = open_calls.pop(pid, (number, ""))
        text += rest
        if rest.endswith("<unfinished ...>"):
            open_calls[pid] = begun, text.removesuffix("<unfinished ...>")
        elif not re.search(r"= -1 \w+", text):
            paths = re.findall(r'"(/[^"]*)"', text) if name.startswith("rename") else DESCRIPTOR.findall(text)[-1:]
            calls.append(Call(name, tuple(paths), text, begun, number))
    return calls


def publish_traced(place: Path) -> tuple[Path, list[str], list[Call]]:
    """A snapshot that another process has published, the files it vouches for, and what was asked of the kernel."""
    root, log = place / "store", place / "strace.log"
    Store.create_or_open(root)
    publish = [sys.executable, store_samples.__file__, "no such point", str(root), "publish", "1"]
    subprocess.run(
        ["strace", "-f", "-y", "-s", "64", "-e", f"trace={TRACED}", "-o", str(log), *publish],
        env=environment(),
        timeout=60,
        check=True,
    )
    [snapshot] = Store.open(root).snapshots()
    assert snapshot.status == "complete" and snapshot.manifest is not None
    covered = [str(snapshot.path / name) for name in snapshot.manifest.files]
    return snapshot.path, covered, parse(log.read_text().splitlines())


def test_the_kernel_is_asked_to_make_everything_durable_before_the_marker_and_in_order(tmp_path: Path) -> None:
    snapshot, covered, calls = publish_traced(tmp_path)
    directories = sorted({str(path) for path in snapshot.rglob("*") if path.is_dir()}, key=len, reverse=True)
    assert len(covered) == len(store_samples.FILES) and len(directories) == 3

    def only(name: str, *paths: str) -> Call:
        [call] = [one for one in calls if one.name == name and one.paths == paths]
        return call

    def synced(path: str) -> list[Call]:
        found = [one for one in calls if one.name in ("fsync", "fdatasync") and one.paths == (path,)]
        assert found, f"{path} is never synced"
        return found

    def placed(name: str) -> tuple[Call, Call, Call]:
        """The bytes of a file, its name, and the name's way to the disk."""
        temporary, final = str(snapshot / f".{name}.tmp"), str(snapshot / name)
        [bytes_], name_ = synced(temporary), only("rename", temporary, final)
        after = [one for one in synced(str(snapshot)) if name_.before(one)]
        assert bytes_.before(name_) and after, f"{name} has its name before its bytes, or no durable name"
        assert all(one.done < bytes_.begun for one in calls if one.changes and one.paths == (temporary,))
        return bytes_, name_, after[0]

    manifest, marker = placed("manifest.json"), placed("COMPLETE")
    tree = [synced(path)[-1] for path in covered]
    for path, sync in zip(covered, tree, strict=True):
        changes = [one for one in calls if one.changes and one.paths == (path,)]
        assert changes and all(one.before(sync) for one in changes), f"{path} is changed after its fsync"
    # The names: deepest first, each once everything in it is durable; then the snapshot's own name.
    names = [synced(path)[0] for path in (*directories, str(snapshot), str(snapshot.parent))]
    for sync in names:
        assert all(one.before(sync) for one in tree), f"{sync.paths} before the bytes"
    assert all(one.before(names[-2]) for one in names[:-2]) and names[-2].before(names[-1])
    assert all(one.before(manifest[0]) for one in (*tree, *names))
    assert manifest[2].before(marker[0])
    assert not [one for one in calls if one.changes and one.paths == (str(snapshot / "manifest.json"),)]
