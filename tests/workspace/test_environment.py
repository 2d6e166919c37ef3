"""Is this the machine the snapshot knew."""

from __future__ import annotations

import os
import re
import shutil
import struct
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from criu_train.store.manifest import Cpu, ExternalFile, Manifest
from criu_train.workspace.elf import build_id
from criu_train.workspace.environment import Finding, compare
from criu_train.workspace.fingerprint import Fingerprint, external_file, fingerprint, parse_cpuinfo

CPU = Cpu("x86_64", "Xeon 9", ("avx2", "avx512f", "constant_tsc", "fpu", "sse2"))
HERE = Fingerprint("6.18.0", "boot", CPU)
X86_CPUINFO = """processor\t: 0
model name\t: Some CPU @ 3 GHz
flags\t\t: fpu sse2 avx2

processor\t: 1
model name\t: Some CPU @ 3 GHz
flags\t\t: fpu
"""
ARM_CPUINFO = "processor\t: 0\nFeatures\t: fp asimd sve\nCPU part\t: 0xd40\n"


def manifest(**changes: object) -> Manifest:
    known = Manifest(
        command=("python",), cwd="/", criu_version="4.2.1", kernel="6.18.0", boot_id="boot", cpu=CPU, tasks=1,
        root_pid=1000, ns_last_pid=1000, memory_bytes=1, frozen_time_us=1, id="x", sequence=1, run="r",
        created_at="2026-11-21T20:45:12Z", trigger="timer", stored_bytes=1, files={},
    )  # fmt: skip
    return replace(known, **changes)


def findings(criu: str | None = "4.2.1", here: Fingerprint = HERE, **changes: object) -> tuple[Finding, ...]:
    return compare(manifest(**changes), criu_version=criu, now=here)


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A file with a build-id, ours to damage."""
    mapped = (line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if ".so" in line)
    source = next(path for path in mapped if "/libc.so" in path or "/libc-" in path)
    return Path(shutil.copy(source, tmp_path / "lib.so"))


def test_the_same_machine_has_nothing_to_tell(library: Path) -> None:
    here = fingerprint()
    same = manifest(kernel=here.kernel, cpu=here.cpu, external=(external_file(str(library)),))
    assert compare(same, criu_version="4.2.1") == ()


def test_the_fingerprint_is_this_machine() -> None:
    here = fingerprint()
    assert here.kernel == os.uname().release
    assert re.fullmatch(r"[0-9a-f-]{36}", here.boot_id)
    assert here.cpu.arch == os.uname().machine and len(here.cpu.flags) > 3


def test_cpuinfo_is_read_on_x86_and_on_arm() -> None:
    assert parse_cpuinfo(X86_CPUINFO, "x86_64") == Cpu("x86_64", "Some CPU @ 3 GHz", ("avx2", "fpu", "sse2"))
    assert parse_cpuinfo(ARM_CPUINFO, "aarch64") == Cpu("aarch64", "0xd40", ("asimd", "fp", "sve"))
    assert parse_cpuinfo("", "riscv64") == Cpu("riscv64", "unknown", ())


def test_a_processor_without_an_instruction_set_blocks() -> None:
    weaker = replace(HERE, cpu=Cpu("x86_64", "Atom 1", ("fpu", "sse2")))
    (found,) = findings(here=weaker)
    assert found.blocking
    assert found.what == "this processor (Atom 1) lacks avx2, avx512f, which the one at the dump (Xeon 9) has"


def test_a_flag_that_no_program_uses_and_more_features_do_not_block() -> None:
    flags = tuple(sorted({*CPU.flags, "amx_tile"} - {"constant_tsc"}))
    assert findings(here=replace(HERE, cpu=replace(CPU, flags=flags))) == ()


def test_another_model_with_all_features_is_a_warning() -> None:
    (found,) = findings(here=replace(HERE, cpu=replace(CPU, model="Xeon 10")))
    assert (found.blocking, found.what) == (False, "the processor is another model: Xeon 10, then Xeon 9")


def test_every_missing_feature_blocks_where_the_kernel_lists_only_those_programs_use() -> None:
    here = replace(HERE, cpu=Cpu("aarch64", "0xd40", ("fp",)))
    (found,) = findings(here=here, cpu=Cpu("aarch64", "0xd40", ("fp", "sve")))
    assert found.blocking and "lacks sve" in found.what


def test_another_architecture_blocks() -> None:
    (found,) = findings(here=replace(HERE, cpu=Cpu("aarch64", "m", ())))
    assert (found.blocking, found.what) == (True, "the processor is aarch64, at the dump it was x86_64")


def test_another_kernel_is_a_warning() -> None:
    (found,) = findings(here=replace(HERE, kernel="6.1.0"))
    assert (found.blocking, found.what) == (False, "the kernel is 6.1.0, at the dump it was 6.18.0")


def test_no_criu_blocks_and_an_older_one_is_a_warning() -> None:
    assert [(one.blocking, one.what) for one in findings(criu=None)] == [(True, "there is no CRIU that works here")]
    assert [(one.blocking, one.what) for one in findings(criu="4.2")] == [
        (False, "CRIU is older than at the dump: 4.2, then 4.2.1")
    ]
    assert findings(criu="4.10") == ()


def test_missing_and_changed_files_block_with_a_tip_each(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a", "b", "c", "d", "longer", "mode")]
    for path in paths:
        path.write_text("content")
    known = tuple(external_file(str(path)) for path in paths)
    for path in paths[:4]:
        path.unlink()
    (tmp_path / "longer").write_text("content and more")
    (tmp_path / "mode").chmod(0o700)
    found = findings(external=known)
    assert all(one.blocking and one.tip for one in found)
    assert [one.what for one in found] == [
        f"{tmp_path}/a, {tmp_path}/b and 2 more are missing",
        f"{tmp_path}/longer has another size than at the dump",
        f"{tmp_path}/mode changed its kind or permissions",
    ]


def test_a_data_file_written_to_since_is_a_warning_after_all_that_blocks(tmp_path: Path) -> None:
    data, gone = tmp_path / "data.csv", tmp_path / "gone"
    data.write_text("1,2")
    gone.touch()
    known = (external_file(str(data)), external_file(str(gone)))
    data.write_text("3,4")
    os.utime(data, ns=(1, 1))
    gone.unlink()
    assert [(one.blocking, one.what) for one in findings(external=known)] == [
        (True, f"{gone} is missing"),
        (False, f"{data} was written to since the dump"),
    ]


def test_the_same_build_installed_again_is_no_difference(library: Path) -> None:
    known = external_file(str(library))
    assert known.build is not None
    os.utime(library, ns=(1, 1))
    assert findings(external=(known,)) == ()


def test_another_build_of_the_same_size_blocks(library: Path) -> None:
    known = external_file(str(library))
    assert known.build is not None
    data = library.read_bytes()
    identity = bytes.fromhex(known.build)
    library.write_bytes(data.replace(identity, bytes(reversed(identity))))
    os.utime(library, ns=(1, 1))
    (found,) = findings(external=(known,))
    assert (found.blocking, found.what) == (True, f"{library} was replaced by another build")
    library.write_bytes(b"\0" * len(data))
    os.utime(library, ns=(1, 1))
    assert findings(external=(known,)) == (found,)


def test_a_build_id_is_the_one_the_linker_wrote(tmp_path: Path) -> None:
    identity = bytes(range(20))
    note = struct.pack("<3I", 4, 20, 3) + b"GNU\0" + identity
    other = struct.pack("<3I", 5, 3, 3) + b"Other\0\0\0" + b"abc\0"
    notes = other + note
    wide = b"\x7fELF\x02\x01".ljust(16, b"\0") + struct.pack("<2HI3QI6H", 3, 62, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    wide += struct.pack("<II6Q", 4, 4, 120, 0, 0, len(notes), 0, 4) + notes
    narrow = b"\x7fELF\x01\x01".ljust(16, b"\0") + struct.pack("<2H5I6H", 3, 3, 1, 0, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    narrow += struct.pack("<8I", 4, 84, 0, 0, len(notes), 0, 0, 4) + notes
    for content in (wide, narrow):
        (tmp_path / "elf").write_bytes(content)
        assert build_id(tmp_path / "elf") == identity.hex()


def test_files_without_a_build_id_have_none_and_none_raises(tmp_path: Path) -> None:
    header = Path(sys.executable).resolve().read_bytes()[:200]
    for content in (b"", b"\x7fELF", b"#!/bin/sh", header[:40], header, b"\x7fELF\x02\x01" + b"\xff" * 60):
        (tmp_path / "file").write_bytes(content)
        assert build_id(tmp_path / "file") is None
    assert build_id(tmp_path) is None
    assert build_id(tmp_path / "gone") is None
    os.mkfifo(tmp_path / "fifo")
    assert build_id(tmp_path / "fifo") is None


def test_a_file_that_can_not_be_looked_at_raises_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        external_file(str(tmp_path / "gone"))


def test_an_external_file_knows_size_mode_time_and_build(library: Path) -> None:
    status = library.stat()
    assert external_file(str(library)) == ExternalFile(
        str(library), status.st_size, status.st_mtime_ns, status.st_mode, build_id(library)
    )
