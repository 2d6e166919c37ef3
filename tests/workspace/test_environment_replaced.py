"""What a restore says of programs, packages and code that are not what they were."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from surroundings_samples import checkout, git, install

from criu_train.store.environment import CodeVersion, Component, Environment, Gpu
from criu_train.store.manifest import Cpu, Manifest
from criu_train.workspace.environment import Finding, compare
from criu_train.workspace.fingerprint import Fingerprint, external_file
from criu_train.workspace.packages import packages_in

CPU = Cpu("x86_64", "Xeon 9", ("sse2",))
HERE = Fingerprint("6.18.0", "boot", CPU)


def said(then: Environment, *paths: Path, cwd: str = "/", here: Fingerprint = HERE) -> Told:
    return Told(then, paths, cwd, here)


class Told:
    """Remembers the files as they are now; what is said of them later is asked for by ``now``."""

    def __init__(self, then: Environment, paths: tuple[Path, ...], cwd: str, here: Fingerprint) -> None:
        self.here = here
        self.manifest = Manifest(
            command=("python",), cwd=cwd, criu_version="4.2.1", kernel="6.18.0", boot_id="boot", cpu=CPU, tasks=1,
            root_pid=1000, ns_last_pid=1000, memory_bytes=1, frozen_time_us=1, id="x", sequence=1, run="r",
            created_at="2026-11-21T20:45:12Z", trigger="timer", stored_bytes=1, files={}, environment=then,
            external=tuple(external_file(str(path)) for path in paths),
        )  # fmt: skip

    def now(self) -> list[tuple[bool, str]]:
        return [(one.blocking, one.what) for one in self.findings()]

    def findings(self) -> tuple[Finding, ...]:
        return compare(self.manifest, criu_version="4.2.1", now=self.here)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Five packages; some files of the first two are what the training has mapped."""
    place = tmp_path / "site-packages"
    install(place, "numpy", "2.1.0", *(f"numpy/core/{number}.so" for number in range(40)), "numpy/data.bin")
    install(place, "torch", "2.4.0", "torch/lib/libtorch.so")
    for name in ("click", "rich", "psutil", "six"):
        install(place, name, "1.0", f"{name}/__init__.py")
    return place


def surroundings(site: Path) -> Environment:
    return Environment(packages={str(site): dict(packages_in(str(site)))})


def test_forty_libraries_of_an_upgraded_package_are_one_line_that_names_it(site: Path) -> None:
    told = said(surroundings(site), *site.glob("numpy/core/*.so"))
    assert told.now() == []
    for one in site.glob("numpy/core/*.so"):
        one.write_text("another version")
    (site / "numpy/core/0.so").unlink()
    install(site, "numpy", "2.2.0", *(f"numpy/core/{number}.so" for number in range(1, 40)))
    (finding,) = told.findings()
    assert (finding.blocking, finding.what) == (True, "numpy 2.1.0 was replaced by 2.2.0")
    assert finding.tip == "install what was there at the dump: numpy==2.1.0"


def test_a_removed_package_that_is_mapped_blocks_and_one_that_is_not_is_a_warning(site: Path) -> None:
    told = said(surroundings(site), site / "numpy/core/1.so", site / "torch/lib/libtorch.so")
    for name in ("numpy", "six"):
        shutil.rmtree(site / name)
        shutil.rmtree(next(site.glob(f"{name}-*.dist-info")))
    assert told.now() == [
        (True, "numpy 2.1.0 was removed"),
        (False, "1 installed package changed: six 1.0 is gone"),
    ]


def test_packages_that_are_not_mapped_are_counted_in_one_warning(site: Path) -> None:
    told = said(surroundings(site), site / "numpy/core/1.so")
    for name in ("click", "rich", "psutil", "six"):
        install(site, name, "2.0", f"{name}/__init__.py")
    install(site, "new", "1.0")
    assert told.now() == [
        (
            False,
            "4 installed packages changed: click 1.0 is 2.0, psutil 1.0 is 2.0, rich 1.0 is 2.0 and 1 more",
        )
    ]


def test_an_upgrade_that_left_the_mapped_files_alone_does_not_block(site: Path) -> None:
    told = said(surroundings(site), site / "torch/lib/libtorch.so")
    install(site, "torch", "2.4.1", "torch/lib/libtorch.so")
    os.utime(site / "torch/lib/libtorch.so", ns=(1, 1))  # as data without a build id: nobody knows
    assert told.now() == [(False, "torch 2.4.0 was replaced by 2.4.1")]


def test_a_damaged_file_of_a_package_that_is_the_same_version_is_told_by_its_name(site: Path) -> None:
    library = site / "numpy/core/1.so"
    told = said(surroundings(site), library)
    library.write_text("something else")
    assert told.now() == [(True, f"{library} has another size than at the dump")]


def test_an_upgraded_python_is_named_by_its_versions(tmp_path: Path) -> None:
    program, module = tmp_path / "bin" / "python3.11", tmp_path / "lib/python3.11/lib-dynload/math.so"
    for one in (program, module):
        one.parent.mkdir(parents=True)
        one.write_bytes(b"\x7fELF\x003.11.7\0")
    told = said(Environment(python=Component("python", "3.11.7", str(program))), program, module)
    program.write_bytes(b"\x7fELF longer\x003.11.9\0")
    module.write_bytes(b"\x7fELF longer\x003.11.9\0")
    assert told.now() == [(True, "python 3.11.7 was replaced by 3.11.9")]
    program.unlink()
    assert told.now()[0] == (True, f"{program} is missing")


def test_an_upgraded_c_library_is_named_by_its_versions(tmp_path: Path) -> None:
    libc, libm, other = tmp_path / "libc.so.6", tmp_path / "libm.so.6", tmp_path / "libzstd.so.1"
    for one in (libc, libm, other):
        one.write_bytes(b"\x7fELF GNU C Library (Debian GLIBC 2.36-9) stable release version 2.36.\n")
    told = said(Environment(libc=Component("glibc", "2.36", str(libc))), libc, libm, other)
    for one in (libc, libm, other):
        one.write_bytes(b"\x7fELF GNU C Library (Debian GLIBC 2.41-12) stable release version 2.41.\n")
    assert told.now() == [
        (True, "glibc 2.36 was replaced by 2.41"),
        (True, f"{other} has another size than at the dump"),
    ]


def test_another_commit_and_changes_that_came_or_went_are_warnings(tmp_path: Path) -> None:
    commit = checkout(tmp_path)
    told = said(Environment(code=CodeVersion(commit, "main", False)), cwd=str(tmp_path))
    assert told.now() == []
    (tmp_path / "train.py").write_text("print('changed')\n")
    assert told.now() == [(False, "the code has changes that are not committed, the training started without")]
    git(tmp_path, "commit", "-a", "-m", "second")
    new = git(tmp_path, "rev-parse", "HEAD")
    assert told.now() == [
        (False, f"the code is at {new[:10]} on main, the training started with {commit[:10]} on main")
    ]
    unknown = said(Environment(code=CodeVersion(new, "main", None)), cwd=str(tmp_path))
    assert unknown.now() == []
    shutil.rmtree(tmp_path / ".git")
    assert told.now() == []


def test_another_gpu_driver_or_device_is_a_warning_and_a_new_gpu_is_none() -> None:
    then = Environment(gpu=Gpu(("nvidia 550.54.14",), ("NVIDIA H100",)))
    other = replace(HERE, gpu=Gpu(("nvidia 570.1",), ("NVIDIA H200",)))
    assert said(then, here=other).now() == [
        (False, "the GPU driver is nvidia 570.1, at the dump it was nvidia 550.54.14"),
        (False, "the GPUs are other ones: NVIDIA H200, at the dump NVIDIA H100"),
    ]
    assert said(then).now()[0] == (False, "the GPU driver is not there, at the dump it was nvidia 550.54.14")
    assert said(Environment(), here=other).now() == []


def test_a_snapshot_of_an_older_criu_train_is_compared_without_all_that(site: Path) -> None:
    told = said(Environment(), site / "numpy/core/1.so")
    told.manifest = replace(told.manifest, environment=None)
    install(site, "numpy", "2.2.0")
    assert told.now() == []
