"""What a restore says of programs, packages and code that are not what they were."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from surroundings_samples import checkout, git, install

from criu_train.store.environment import CodeVersion, Component, Environment, Gpu
from criu_train.store.manifest import Cpu, Manifest
from criu_train.workspace import environment, packages, replaced
from criu_train.workspace.environment import Finding, compare
from criu_train.workspace.fingerprint import Fingerprint, external_file
from criu_train.workspace.packages import packages_in

CPU = Cpu("x86_64", "Xeon 9", ("sse2",))
HERE = Fingerprint("6.18.0", "boot", CPU)


def said(then: Environment, *paths: Path, cwd: str = "/") -> Told:
    return Told(then, paths, cwd)


def raising(*_: object) -> None:
    raise RuntimeError("a bug, or what nobody has thought of")


class Told:
    """Remembers the files as they are now; what is said of them later is asked for by ``now``."""

    def __init__(self, then: Environment, paths: tuple[Path, ...], cwd: str) -> None:
        self.manifest = Manifest(
            command=("python",), cwd=cwd, criu_version="4.2.1", kernel="6.18.0", boot_id="boot", cpu=CPU, tasks=1,
            root_pid=1000, ns_last_pid=1000, memory_bytes=1, frozen_time_us=1, id="x", sequence=1, run="r",
            created_at="2026-11-21T20:45:12Z", trigger="timer", stored_bytes=1, files={}, environment=then,
            external=tuple(external_file(str(path)) for path in paths),
        )  # fmt: skip

    def now(self) -> list[tuple[bool, str]]:
        return [(one.blocking, one.what) for one in self.findings()]

    def findings(self) -> tuple[Finding, ...]:
        return compare(self.manifest, criu_version="4.2.1", now=HERE)


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


def test_a_missing_library_of_an_unchanged_package_is_not_put_down_to_an_upgraded_neighbour(tmp_path: Path) -> None:
    site = tmp_path / "site-packages"
    cublas, cudnn = "nvidia/cublas/lib/libcublas.so.12", "nvidia/cudnn/lib/libcudnn.so.9"
    install(site, "nvidia_cublas", "12", cublas)
    install(site, "nvidia_cudnn", "9", cudnn)
    told = said(surroundings(site), site / cublas, site / cudnn)
    install(site, "nvidia_cublas", "13", cublas)
    (site / cublas).write_text("another version")
    (site / cudnn).unlink()
    assert told.now() == [
        (True, "nvidia-cublas 12 was replaced by 13"),
        (True, f"{site}/{cudnn} is missing"),
    ]


def test_each_list_of_files_is_read_once_however_many_packages_and_files_changed(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(30):
        install(site, f"package{number}", "1", f"package{number}/a.so", f"package{number}/b.so")
    told = said(surroundings(site), *site.glob("*/*.so"))
    for number in range(30):
        install(site, f"package{number}", "2", f"package{number}/a.so")
        (site / f"package{number}/a.so").write_text("another version")
        (site / f"package{number}/b.so").unlink()
    opened: list[object] = []
    reader = packages.csv.reader
    monkeypatch.setattr(packages.csv, "reader", lambda file: opened.append(file.name) or reader(file))
    (finding,) = told.findings()
    assert " was replaced by 2, " in finding.what and finding.what.endswith(" and 27 more")
    assert len(opened) == len(set(opened)) == 36


def test_nothing_is_searched_for_versions_while_nothing_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, libc = tmp_path / "bin" / "python3.11", tmp_path / "libc.so.6"
    program.parent.mkdir()
    program.write_bytes(b"\x7fELF\x003.11.7\0")
    libc.write_bytes(b"GNU C Library (Debian GLIBC 2.36-9) stable release version 2.36.\n")
    then = Environment(python=Component("python", "3.11.7", str(program)), libc=Component("glibc", "2.36", str(libc)))
    told = said(then, program, libc)
    searched: list[str] = []
    monkeypatch.setattr(replaced, "python_version", lambda files, minor: searched.extend(files))
    monkeypatch.setattr(replaced, "libc_version", searched.append)
    assert told.now() == [] and searched == []
    libc.unlink()
    assert told.now() == [(True, f"{libc} is missing")] and searched == [str(program), str(libc)]


@pytest.mark.parametrize("damage", [raising, lambda *_: 1 / 0, lambda *_: {}["a"]])
def test_what_only_explains_does_not_fail_a_restore_when_it_goes_wrong(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[..., object]
) -> None:
    commit = checkout(tmp_path / "code")
    then = replace(surroundings(site), code=CodeVersion("ab" * 20, "main", False), gpu=Gpu(("nvidia 1",), ("H100",)))
    library = site / "numpy/core/1.so"
    told = said(then, library, cwd=str(tmp_path / "code"))
    library.unlink()
    install(site, "numpy", "2.2.0")
    install(site, "six", "2.0")
    code = (False, f"the code is at {commit[:10]} on main, the training started with {'ab' * 5} on main")
    assert code in told.now() and told.now()[0] == (True, "numpy 2.1.0 was replaced by 2.2.0")
    monkeypatch.setattr(environment, "code_version", damage)
    assert code not in told.now()
    assert len([what for _, what in told.now() if "GPU" in what]) == 2
    monkeypatch.setattr(environment, "gpu", damage)
    assert told.now() == [
        (True, "numpy 2.1.0 was replaced by 2.2.0"),
        (False, "1 installed package changed: six 1.0 is 2.0"),
    ]
    monkeypatch.setattr(replaced, "owners_of", damage)
    assert told.now() == [(True, f"{library} is missing")]
    monkeypatch.setattr(replaced, "packages_in", damage)
    assert told.now() == [(True, f"{library} is missing")]


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


def test_another_commit_and_changes_that_came_or_went_are_warnings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    monkeypatch.setenv("PATH", "/nonexistent")
    (tmp_path / ".git/HEAD").write_text("ref: refs/heads/../../secret\n")
    assert told.now() == []  # there is one, and nothing can be said about it
    shutil.rmtree(tmp_path / ".git")
    assert told.now() == []


def test_another_gpu_driver_or_device_is_a_warning_and_a_new_gpu_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    then = Environment(gpu=Gpu(("nvidia 550.54.14",), ("NVIDIA H100",)))
    monkeypatch.setattr(environment, "gpu", lambda: Gpu(("nvidia 570.1",), ("NVIDIA H200",)))
    assert said(then).now() == [
        (False, "the GPU driver is nvidia 570.1, at the dump it was nvidia 550.54.14"),
        (False, "the GPUs are other ones: NVIDIA H200, at the dump NVIDIA H100"),
    ]
    assert said(Environment()).now() == []
    monkeypatch.setattr(environment, "gpu", Gpu)
    assert said(then).now()[0] == (False, "the GPU driver is not there, at the dump it was nvidia 550.54.14")


def test_a_snapshot_of_an_older_criu_train_is_compared_without_all_that(site: Path, tmp_path: Path) -> None:
    checkout(tmp_path / "code")
    library = site / "numpy/core/1.so"
    then = replace(surroundings(site), code=CodeVersion("ab" * 20, "main", False))
    told = said(then, library, cwd=str(tmp_path / "code"))
    install(site, "numpy", "2.2.0")
    install(site, "six", "2.0")
    library.write_text("another version")
    assert len(told.now()) == 3
    told.manifest = replace(told.manifest, environment=None)
    assert told.now() == [(True, f"{library} has another size than at the dump")]
