"""``criu-train snapshot diff``, as typed."""

from __future__ import annotations

import io
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from snapshot_calls import Call
from store_samples import FILES, add, facts, fill

from criu_train.cli import snapshot_diff_view
from criu_train.errors import StoreError, UsageError
from criu_train.store.environment import CodeVersion, Component, DataFile, Environment, Gpu
from criu_train.store.manifest import ExternalFile
from criu_train.store.snapshot import Snapshot
from criu_train.store.store import Store
from criu_train.workspace.blobs import BlobWriter
from criu_train.workspace.fingerprint import external_file, fingerprint
from criu_train.workspace.listing import Entry, Kind, Listing, Part, Role, write_listing

MIB = 1 << 20
ENVIRONMENT = Environment(
    python=Component("python", "3.11.7", "/usr/bin/python3.11"),
    libc=Component("glibc", "2.36", "/lib/libc.so.6"),
    packages={"/x/site-packages": {"numpy": "2.1", "six": "1.0", "torch": "2.4"}},
    code=CodeVersion("ab" * 20, "main", False),
    gpu=Gpu(("nvidia 550.1",), ("H100",)),
    data=(DataFile("/data/a", 2 * MIB, 1), DataFile("/data/b", MIB, 1)),
)


def entry(path: str, size: int = 0, *, kind: Kind = "file", role: Role = "workspace", **more: Any) -> Entry:
    known = {"mode": 0o644, "uid": 0, "gid": 0, "mtime_ns": 1, "ctime_ns": 1, "dev": 1, "ino": 1}
    return Entry(path=path, kind=kind, role=role, size=size, **known | more)


@dataclass(frozen=True)
class Pieces:
    """A file whose bytes are in the snapshot in these parts."""

    pieces: tuple[bytes, ...]
    mtime_ns: int


def take(store: Store, files: Mapping[str, bytes | Entry | Pieces], scratch: Path, **changes: Any) -> Snapshot:
    """A snapshot whose workspace is these files; a file that is an entry has no bytes in the snapshot."""
    draft = store.new_draft("run-1", "timer")
    fill(draft, {name: data for name, data in FILES.items() if name != "listing.json"})
    writer, entries = BlobWriter(draft.files, []), []
    for number, (path, content) in enumerate(files.items()):
        if isinstance(content, Entry):
            entries.append(content)
            continue
        cut = Pieces((content,), len(store.listing())) if isinstance(content, bytes) else content
        parts: list[Part] = []
        for piece in cut.pieces:
            (scratch / "bytes").write_bytes(piece)
            with (scratch / "bytes").open("rb") as file:
                parts += writer.save(file.fileno(), len(piece))
        size = sum(map(len, cut.pieces))
        entries.append(entry(path, size, ino=number, mtime_ns=cut.mtime_ns, parts=tuple(parts)))
    listing = Listing(cut_ns=1, boot_id="boot", roots=("/w",), entries=tuple(entries))
    write_listing(listing, draft.path / "listing.json")
    return draft.publish(facts(**changes))


def lines(told: str) -> list[str]:
    return [" ".join(line.split()) for line in told.splitlines()]


def test_a_snapshot_and_itself_differ_in_nothing(store: Store, call: Call, tmp_path: Path) -> None:
    take(store, {"/w/a": b"a"}, tmp_path, environment=ENVIRONMENT)
    result = call("diff", "1", "latest")
    assert result.exit_code == 0
    told = [line for line in lines(result.stdout) if "can't be read" not in line]
    assert told == ["nothing"]


def test_step_metrics_code_and_the_machine_are_told_before_and_after(store: Store, call: Call, tmp_path: Path) -> None:
    one = take(store, {}, tmp_path, step=1000, metrics={"loss": 0.5, "old": 1.0}, environment=ENVIRONMENT)
    changed = Environment(
        python=Component("python", "3.11.9", "/usr/bin/python3.11"),
        libc=ENVIRONMENT.libc,
        packages={"/x/site-packages": {"numpy": "2.2", "torch": "2.4", "new": "1"}},
        code=CodeVersion("cd" * 20, "main", True),
        data=(DataFile("/data/a", 3 * MIB, 2), DataFile("/data/c", MIB, 1)),
    )
    two = take(
        store, {}, tmp_path, step=2500, metrics={"loss": 0.25}, environment=changed, kernel="6.19.0", memory_bytes=MIB
    )
    told = lines(call("diff", "1", "2").stdout)
    assert told[0].startswith(f"{one.id} → {two.id}, ") and told[0].endswith(" later")
    for line in (
        "Step 1,000 → 2,500", "Memory 3.0 GiB → 1.0 MiB", "Python python 3.11.7 → python 3.11.9",
        f"Code {'ab' * 5} on main → {'cd' * 5} on main, with changes", "Kernel 6.18.0 → 6.19.0",
        "GPU nvidia 550.1, H100 → –",  # noqa: RUF001
        "~ loss 0.5 → 0.25", "- old 1",
        "+ new 1", "- six 1.0", "~ numpy 2.1 → 2.2",
        "+ /data/c 1.0 MiB", "- /data/b 1.0 MiB", "~ /data/a 2.0 MiB → 3.0 MiB",
    ):  # fmt: skip
        assert line in told, line
    assert not any("torch" in line or "C library" in line for line in told)
    assert json.loads(call("diff", "1", "2", "--json").stdout)["facts"]["code"] == [
        {"commit": "ab" * 20, "branch": "main", "dirty": False},
        {"commit": "cd" * 20, "branch": "main", "dirty": True},
    ]


def test_code_of_which_only_one_snapshot_knows_whether_it_had_changes_is_no_difference(
    store: Store, call: Call, tmp_path: Path
) -> None:
    for dirty in (None, False, True):
        take(store, {}, tmp_path, environment=Environment(code=CodeVersion("ab" * 20, "main", dirty)))
    take(store, {}, tmp_path, environment=Environment())
    assert "code" not in json.loads(call("diff", "1", "2", "--json").stdout)["facts"]
    assert f"Code {'ab' * 5} on main → {'ab' * 5} on main, with changes" in lines(call("diff", "1", "3").stdout)
    assert f"Code {'ab' * 5} on main → –" in lines(call("diff", "1", "4").stdout)  # noqa: RUF001
    assert json.loads(call("diff", "1", "4", "--json").stdout)["facts"]["code"][1] is None


def test_files_that_came_went_grew_and_were_rewritten_are_told_with_sizes(
    store: Store, call: Call, tmp_path: Path
) -> None:
    log = b"line\n" * 1000
    unsaved = entry("/w/huge", 1 << 40)
    old = {"/w/log": log, "/w/same": b"same", "/w/gone": b"gone", "/w/model": b"one" * 1000, "/w/huge": unsaved}
    new = {
        "/w/log": log + b"more\n", "/w/same": b"same", "/w/new": b"n" * 2048, "/w/model": b"two" * 1001,
        "/w/huge": entry("/w/huge", 1 << 40, mtime_ns=2), "/w/dir": entry("/w/dir", kind="dir"),
        "/w/others": entry("/w/others", 5, role="bystander"),
    }  # fmt: skip
    take(store, old, tmp_path)
    take(store, new, tmp_path)
    told = json.loads(call("diff", "1", "2", "--json").stdout)
    assert told["files"] == {
        "added": {"/w/new": 2048, "/w/dir": 0},
        "removed": {"/w/gone": 4},
        "grown": {"/w/log": [5000, 5005]},
        "rewritten": {"/w/huge": [1 << 40, 1 << 40], "/w/model": [3000, 3003]},
    }
    said = lines(call("diff", "1", "2").stdout)
    assert "> /w/log 4.9 KiB, +5 B" in said
    assert "+ /w/new 2.0 KiB" in said and "- /w/gone 4 B" in said
    assert "~ /w/huge 1.0 TiB, changed" in said


def test_json_has_every_field_that_the_documentation_names(store: Store, call: Call, tmp_path: Path) -> None:
    one, two = take(store, {}, tmp_path), take(store, {}, tmp_path, step=3)
    told = json.loads(call("diff", one.id, two.id, "--json").stdout)
    fields = ["before", "after", "seconds", "added_bytes", "facts", "metrics", "tasks", "open_files"]
    assert list(told) == [*fields, "libraries", "packages", "data", "files"]
    assert (told["before"], told["after"], told["facts"]) == (one.id, two.id, {"step": [None, 3]})
    assert told["tasks"] is None  # the samples' images are none
    assert told["packages"] == {"added": {}, "removed": {}, "changed": {}}
    documented = Path(__file__).parents[2].joinpath("docs", "environment.md").read_text()
    for field in (*told, *snapshot_diff_view._FACTS):
        assert f"`{field}`" in documented, field


def test_snapshots_of_an_older_criu_train_differ_in_what_both_know(store: Store, call: Call, tmp_path: Path) -> None:
    take(store, {}, tmp_path, environment=None)
    take(store, {}, tmp_path, environment=ENVIRONMENT)
    told = json.loads(call("diff", "1", "2", "--json").stdout)
    assert (told["facts"], told["packages"]["added"], told["data"]["added"]) == ({}, {}, {})
    add(store)  # with a listing that can't be read
    assert json.loads(call("diff", "1", "3", "--json").stdout)["files"] is None
    assert "Files can't be read from both snapshots" in lines(call("diff", "1", "3").stdout)


def test_long_groups_are_counted_and_a_narrow_terminal_breaks_lines_rather_than_cut_them(
    store: Store, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(store, {}, tmp_path)
    take(store, {f"/w/{'long' * 20}/{number:02}": b"x" for number in range(30)}, tmp_path)
    assert "and 20 more; --json tells all" in lines(call("diff", "1", "2").stdout)
    screen = Console(file=io.StringIO(), width=30)
    monkeypatch.setattr(snapshot_diff_view, "console", screen)
    call("diff", "1", "2")
    told = screen.file.getvalue()  # type: ignore[attr-defined]
    assert all(len(line) <= 30 for line in told.splitlines())
    assert f"/w/{'long' * 20}/09" in told.replace("\n", "").replace(" ", "")


def test_a_memory_map_that_was_written_to_is_told_though_its_times_are_the_same(
    store: Store, call: Call, tmp_path: Path
) -> None:
    same = [entry("/w/map", 8, parts=(Part(letter * 64, 8),), mapped=True) for letter in "ab"]
    unsaved = [entry("/w/huge", 1 << 40, mapped=mapped) for mapped in (True, False)]
    settled = entry("/w/settled", 1 << 40)
    take(store, {"/w/map": same[0], "/w/huge": unsaved[0], "/w/settled": settled}, tmp_path)
    take(store, {"/w/map": same[1], "/w/huge": unsaved[1], "/w/settled": settled}, tmp_path)
    told = json.loads(call("diff", "1", "2", "--json").stdout)["files"]
    assert told["rewritten"] == {"/w/map": [8, 8], "/w/huge": [1 << 40, 1 << 40]}
    assert not any(json.loads(call("diff", "1", "1", "--json").stdout)["files"].values())


def test_a_file_whose_bytes_were_cut_otherwise_is_compared_by_them(store: Store, call: Call, tmp_path: Path) -> None:
    pieces = Pieces((b"a", b"bc"), 1)
    take(store, {"/w/same": pieces, "/w/other": pieces}, tmp_path)
    take(store, {"/w/same": Pieces((b"abc",), 2), "/w/other": Pieces((b"abd",), 2)}, tmp_path)
    told = json.loads(call("diff", "1", "2", "--json").stdout)["files"]
    assert told["rewritten"] == {"/w/other": [3, 3]}


def test_a_name_that_is_no_text_is_told_all_the_same(store: Store, tmp_path: Path) -> None:
    name = os.fsdecode(b"/w/caf\xe9.txt")
    take(store, {}, tmp_path)
    take(store, {name: entry(name, 5, parts=())}, tmp_path)
    program = [sys.executable, "-m", "criu_train", "--store", str(tmp_path / "store"), "snapshot", "diff", "1", "2"]
    for encoding in ("utf-8", "ascii"):
        env = os.environ | {"PYTHONIOENCODING": encoding, "COLUMNS": "200"}
        done = subprocess.run(program, env=env, capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert b"/w/caf\\udce9.txt  5 B\n" in done.stdout
    done = subprocess.run([*program, "--json"], capture_output=True, timeout=60, check=True)
    assert json.loads(done.stdout)["files"]["added"] == {name: 5}


def test_two_snapshots_or_here_are_wanted(store: Store, call: Call, tmp_path: Path) -> None:
    take(store, {}, tmp_path)
    store.new_draft("run-1", "timer").discard("CRIU was killed")
    for wrong in (["1"], ["1", "1", "--here"]):
        with pytest.raises(UsageError, match="name two snapshots"):
            call("diff", *wrong)
    with pytest.raises(UsageError, match="CRIU was killed"):
        call("diff", "1", "2")
    with pytest.raises(UsageError, match="there is no snapshot"):
        call("diff", "1", "7")


def test_it_is_refused_without_a_store(call: Call) -> None:
    with pytest.raises(StoreError, match="there is no store at"):
        call("diff", "1", "2")


def here(**changes: Any) -> dict[str, Any]:
    """The facts of a snapshot of this machine."""
    now = fingerprint()
    return {"kernel": now.kernel, "cpu": now.cpu, "external": (), "criu_version": "0.1", "cwd": "/"} | changes


def test_here_tells_what_a_restore_would_say_and_exits_with_1_when_it_would_be_refused(
    store: Store, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    criu = tmp_path / "criu"
    criu.write_text("#!/bin/sh\necho Version: 4.2.1\n")
    criu.chmod(0o755)
    monkeypatch.setenv("CRIU_TRAIN_CRIU", str(criu))
    take(store, {}, tmp_path, **here())
    result = call("diff", "1", "--here")
    assert (result.exit_code, result.stdout) == (0, "nothing\n")
    library = tmp_path / "library"
    library.write_text("x")
    known = external_file(str(library))
    library.write_text("longer")
    take(store, {}, tmp_path, **here(kernel="5.0", external=(known,)))
    result = call("diff", "2", "--here", "--json")
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert [(one["level"], one["what"]) for one in told["findings"]] == [
        ("blocking", f"{library} has another size than at the dump"),
        ("warning", f"the kernel is {platform.release()}, at the dump it was 5.0"),
    ]
    assert all(one["tip"] for one in told["findings"])
    said = call("diff", "2", "--here").stdout
    assert f"blocking: {library} has another size than at the dump" in said
    assert "warning: the kernel is" in said and said.count("tip:") == 2


def test_here_says_of_a_data_file_that_was_written_to_no_more_than_a_warning(
    store: Store, call: Call, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.write_text("x")
    status = data.stat()
    known = ExternalFile(str(data), status.st_size, status.st_mtime_ns, status.st_mode)
    take(store, {}, tmp_path, **here(external=(known,)))
    os.utime(data, ns=(1, 1))
    told = json.loads(call("diff", "1", "--here", "--json").stdout)
    assert ("warning", f"{data} was written to since the dump") in [(f["level"], f["what"]) for f in told["findings"]]


def test_show_tells_python_packages_and_code(store: Store, call: Call, tmp_path: Path) -> None:
    take(store, {}, tmp_path, environment=ENVIRONMENT)
    told = lines(call("show", "latest").stdout)
    assert "Python python 3.11.7, 3 packages" in told
    assert f"Code {'ab' * 5} on main" in told
    take(store, {}, tmp_path)
    assert not any(line.startswith(("Python", "Code")) for line in lines(call("show", "latest").stdout))
