"""What surrounds a tree of processes: its Python, its packages, its data; told without asking the training."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from surroundings_samples import checkout, git, install

from criu_train.criu.images import ImageFile
from criu_train.store.environment import CodeVersion, Component, DataFile, Environment, Gpu
from criu_train.store.manifest import ExternalFile
from criu_train.workspace import opened
from criu_train.workspace import survey as surveying
from criu_train.workspace.fingerprint import gpu
from criu_train.workspace.packages import owners_of, packages_in
from criu_train.workspace.programs import Process, interpreter_of, libc_of, look_at, python_version, version_in
from criu_train.workspace.survey import data_files, survey

pytestmark = pytest.mark.timeout(60)

BASE = os.path.realpath(sys.executable)
MINOR = "{}.{}".format(*sys.version_info)
SLEEP = "import time; print('up', flush=True); time.sleep(60)"
MIB = 1 << 20


@contextlib.contextmanager
def running(command: Sequence[str], **settings: object) -> Iterator[int]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True, **settings)  # type: ignore[call-overload]
    try:
        assert process.stdout.readline() == b"up\n"
        yield process.pid
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """A virtual environment as ``python -m venv --without-pip`` makes it."""
    place = tmp_path / "venv"
    (place / "bin").mkdir(parents=True)
    (place / "bin" / "python").symlink_to(BASE)
    (place / "pyvenv.cfg").write_text(f"home = {Path(BASE).parent}\ninclude-system-site-packages = false\n")
    install(place / "lib" / f"python{MINOR}" / "site-packages", "Some.Thing", "1.0")
    return place


def site(venv: Path) -> Path:
    return venv / "lib" / f"python{MINOR}" / "site-packages"


def told(pids: Sequence[int], cwd: Path) -> Environment:
    found = survey(pids, str(cwd))
    assert found is not None
    return found


def test_python_packages_and_libc_of_a_process_in_a_virtual_environment(venv: Path) -> None:
    with running([str(venv / "bin" / "python"), "-c", SLEEP]) as pid:
        found = told([pid], venv)
    assert found.python == Component("python", platform.python_version(), BASE)
    assert found.packages == {str(site(venv)): {"some-thing": "1.0"}}
    assert (found.code, found.data) == (None, ())
    if platform.libc_ver()[0] == "glibc":
        assert found.libc is not None
        assert (found.libc.name, found.libc.version) == platform.libc_ver()


def test_the_environment_is_found_by_the_path_too_and_python_below_a_shell(venv: Path) -> None:
    env = os.environ | {"PATH": f"{venv}/bin:{os.environ['PATH']}"}
    with running(["sh", "-c", f'python -c "{SLEEP}" & wait'], env=env) as shell:
        (child,) = map(int, Path(f"/proc/{shell}/task/{shell}/children").read_text().split())
        found = told([shell, child], venv)
    assert found.python is not None and found.python.path == BASE
    assert list(found.packages) == [str(site(venv))]


def test_packages_of_which_a_file_is_mapped_count_wherever_they_lie(venv: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / "site-packages"
    install(other, "mapped", "2", "mapped/data.bin")
    (other / "mapped" / "data.bin").write_bytes(b"x")
    code = f"import mmap; f = open({str(other)!r} + '/mapped/data.bin'); m = mmap.mmap(f.fileno(), 0, prot=1); {SLEEP}"
    with running([str(venv / "bin" / "python"), "-c", code]) as pid:
        assert told([pid], venv).packages == {str(site(venv)): {"some-thing": "1.0"}, str(other): {"mapped": "2"}}


def test_what_is_no_python_has_no_python_and_what_has_gone_raises_nothing(tmp_path: Path) -> None:
    commit = checkout(tmp_path)
    with running(["sh", "-c", "echo up; sleep 60; :"]) as pid:
        found = told([pid], tmp_path)
    assert (found.python, found.packages, found.code) == (None, {}, CodeVersion(commit, "main", False))
    assert told([pid], tmp_path).libc is None


def test_something_unexpected_leaves_a_snapshot_without_a_survey_and_raises_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert survey([os.getpid()], str(tmp_path)) is not None

    def raising(directory: str) -> None:
        raise RuntimeError(directory)

    monkeypatch.setattr(surveying, "code_version", raising)
    assert survey([os.getpid()], str(tmp_path)) is None


def test_the_code_that_an_earlier_snapshot_of_the_run_found_is_taken_over_and_git_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = checkout(tmp_path)
    first = told([os.getpid()], tmp_path)
    assert first.code == CodeVersion(commit, "main", False)
    git(tmp_path, "commit", "--allow-empty", "-m", "second")
    monkeypatch.setattr(surveying, "code_version", lambda _: pytest.fail("git was asked"))
    for known in (first, replace(first, code=None)):
        later = survey([os.getpid()], str(tmp_path), known)
        assert later is not None and later.code == known.code


def test_files_that_are_mapped_are_told_by_their_names_and_deleted_ones_are_not(tmp_path: Path) -> None:
    newline, gone = tmp_path / "two\nlines", tmp_path / "gone"
    code = f"import mmap, os\nfor name in ({str(newline)!r}, {str(gone)!r}):\n"
    code += "    f = open(name, 'w+b'); f.write(b'x'); f.flush(); globals()[name] = mmap.mmap(f.fileno(), 1)\n"
    code += "hidden = os.memfd_create('hidden'); os.ftruncate(hidden, 1); held = mmap.mmap(hidden, 1)\n"
    code += f"os.unlink({str(gone)!r})\n{SLEEP}"
    with running([sys.executable, "-c", code]) as pid:
        mapped = look_at(pid).mapped
        read = opened.look([pid], thoroughly=True).read
    assert str(newline) in mapped and str(newline) in read
    assert not any("gone" in path or "memfd" in path for path in mapped)
    assert mapped <= read


def test_a_survey_goes_through_the_manifest_s_json_and_fields_of_later_versions_are_passed_over(venv: Path) -> None:
    checkout(venv)
    with running([str(venv / "bin" / "python"), "-c", SLEEP]) as pid:
        found = told([pid], venv)
    as_json = found.to_json()
    assert Environment.from_json(as_json) == found
    as_json |= {"weather": "fine", "python": as_json["python"] | {"colour": "red"}, "data": [["/d", 1, 2, "later"]]}
    assert Environment.from_json(as_json).data == (DataFile("/d", 1, 2),)
    assert Environment.from_json({}) == Environment()


def test_installing_upgrading_and_removing_is_seen(tmp_path: Path) -> None:
    install(tmp_path, "numpy", "2.1.0")
    install(tmp_path, "nvidia_cublas_cu12", "12.4.5.8")
    (tmp_path / "PyYAML-6.0.1.egg-info").write_text("Name: PyYAML\n")
    (tmp_path / "six-1.16.0-py3.11.egg-info").mkdir()
    (tmp_path / "~umpy-2.0.0.dist-info").mkdir()  # what an interrupted pip leaves
    before = {"numpy": "2.1.0", "nvidia-cublas-cu12": "12.4.5.8", "pyyaml": "6.0.1", "six": "1.16.0"}
    assert packages_in(str(tmp_path)) == before
    time.sleep(0.02)  # a tick of the clock that stamps directories
    install(tmp_path, "numpy", "2.2.0rc1")
    assert packages_in(str(tmp_path)) == before | {"numpy": "2.2.0rc1"}
    assert packages_in(str(tmp_path / "gone")) == {}
    assert packages_in(str(tmp_path / "a\0name")) == {}


def test_files_belong_to_the_package_that_lists_them_or_is_named_like_their_directory(tmp_path: Path) -> None:
    install(tmp_path, "nvidia_cublas", "12", "nvidia/cublas/lib/libcublas.so.12", "nvidia/__init__.py")
    install(tmp_path, "nvidia_cudnn", "9", "nvidia/cudnn/lib/libcudnn.so.9", "nvidia/__init__.py")
    install(tmp_path, "pillow", "11", "PIL/_imaging.so")
    install(tmp_path, "scipy", "1", "scipy/lib.so")
    changed = ["nvidia-cublas", "nvidia-cudnn", "pillow", "numpy"]
    expected = {
        "nvidia/cudnn/lib/libcudnn.so.9": "nvidia-cudnn",
        "nvidia/__init__.py": "nvidia-cublas",
        "PIL/_gone.so": "pillow",
        "numpy/core/gone.so": "numpy",
        "numpy.libs/libblas.so": "numpy",
    }
    others = ["nvidia/other/lib/lib.so", "torch/lib/libtorch.so", "scipy/lib.so", "scipy/gone.so"]
    assert owners_of(str(tmp_path), [*expected, *others], changed) == expected


def test_a_file_of_a_package_that_did_not_change_is_not_put_down_to_its_neighbour(tmp_path: Path) -> None:
    cudnn, other = "nvidia/cudnn/lib/libcudnn.so.9", "nvidia/other.so"
    install(tmp_path, "nvidia_cublas", "12", "nvidia/cublas/lib/libcublas.so.12")
    install(tmp_path, "nvidia_cudnn", "9", cudnn)
    assert owners_of(str(tmp_path), [cudnn, other], ["nvidia-cublas"]) == {}
    install(tmp_path, "nvidia_cudnn", "10", "nvidia/cudnn/lib/libcudnn.so.10")
    assert owners_of(str(tmp_path), [cudnn], ["nvidia-cublas"]) == {}
    # Nor when what it belonged to has been removed.
    shutil.rmtree(tmp_path / "nvidia_cudnn-10.dist-info")
    assert owners_of(str(tmp_path), [cudnn], ["nvidia-cublas", "nvidia-cudnn"]) == {}
    assert owners_of(str(tmp_path), [cudnn], ["nvidia-cublas"]) == {cudnn: "nvidia-cublas"}


@pytest.mark.parametrize("damage", [bytes(200_000), b"\xff\xfe,,\n", b'"' * 3])
def test_a_list_of_files_that_is_damaged_names_nothing_and_raises_nothing(tmp_path: Path, damage: bytes) -> None:
    install(tmp_path, "numpy", "2", "numpy/core/a.so")
    install(tmp_path, "six", "1", "six_/lib.so")
    next(tmp_path.glob("six-*/RECORD")).write_bytes(damage)
    (tmp_path / "rich-1.0.dist-info").write_text("no directory")
    assert owners_of(str(tmp_path), ["numpy/core/a.so", "six_/lib.so"], ["numpy", "six"]) == {
        "numpy/core/a.so": "numpy"
    }
    assert owners_of(str(tmp_path / "gone"), ["a/b.so"], ["numpy"]) == {}


def test_versions_are_read_out_of_libraries_without_running_them(tmp_path: Path) -> None:
    library = tmp_path / "libpython3.11.so.1.0"
    library.write_bytes(b"\x7fELF\0/prefix/lib\0Python-3.11.9\0 3.11.10 later\0")
    assert python_version([str(library)], "3.11") == "3.11.9"
    assert python_version([str(tmp_path / "gone"), str(library)], "3.11") == "3.11.9"
    library.write_bytes(b"")
    assert python_version([str(library)], "3.11") is None
    musl = tmp_path / "ld-musl-x86_64.so.1"
    musl.write_bytes(b"\x7fELF musl\x001.2.5\0")
    assert libc_of(["/x/libm.so.6", str(musl)]) == Component("musl", "1.2.5", str(musl))


def test_a_version_is_found_wherever_it_lies_in_the_first_64_mib_of_a_file(tmp_path: Path) -> None:
    library, version, pattern = tmp_path / "lib", b"release version 2.36", rb"release version (\d[.\d]*\d)"
    for at in (0, MIB - 19, MIB - 1, MIB, 2 * MIB - len(version), 3 * MIB + 5):
        for after in (b"", b".\n"):
            library.write_bytes(bytes(at) + version + after)
            os.utime(library, ns=(1, at))
            assert version_in(str(library), pattern) == "2.36", at
    with library.open("wb") as file:
        file.truncate(64 * MIB)
        file.seek(0, os.SEEK_END)
        file.write(version)
    assert version_in(str(library), pattern) is None
    os.mkfifo(tmp_path / "fifo")
    assert version_in(str(tmp_path / "fifo"), pattern) is None


def test_a_file_that_gets_shorter_while_it_is_searched_ends_nobody(tmp_path: Path) -> None:
    library = tmp_path / "lib"
    with library.open("wb") as file:
        file.truncate(512 * MIB)
    code = (
        "import subprocess, sys\n"
        "from criu_train.workspace.programs import version_in\n"
        "subprocess.Popen(['sh', '-c', 'sleep 0.05; : > \"$1\"', 'sh', sys.argv[1]])\n"
        "print(version_in(sys.argv[1], rb'(never)'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(library)], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout) == (0, "None\n"), done.stderr


def test_packages_of_a_free_threaded_python_lie_in_a_directory_of_its_own(tmp_path: Path) -> None:
    base = tmp_path / "base"
    for name in ("python3.13", "python3.13t"):
        install(base / "lib" / name / "site-packages", name.replace(".", ""), "1.0")
    for program, package in (("python3.13t", "python313t"), ("python3.13", "python313")):
        called = str(base / "bin" / program)
        found = interpreter_of(Process(called, called, "", "/", frozenset()))
        assert found is not None
        assert found.sites == (str(base / "lib" / program / "site-packages"),)
        assert packages_in(found.sites[0]) == {package: "1.0"}
    library = str(base / "lib" / "libpython3.13t.so.1.0")
    found = interpreter_of(Process(f"{base}/bin/app", f"{base}/bin/app", "", "/", frozenset({library})))
    assert found is not None and found.sites == (str(base / "lib/python3.13t/site-packages"),)


def test_gpus_are_told_by_the_kernel(tmp_path: Path) -> None:
    def put(path: str, text: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    assert gpu(tmp_path) == Gpu()
    put("sys/module/nvidia/version", "550.54.14\n")
    put("proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Thu Feb 22\nGCC\n")
    put("proc/driver/nvidia/gpus/0000:01:00.0/information", "Model: \t\t NVIDIA H100 80GB HBM3\nIRQ: 5\n")
    put("sys/class/kfd/kfd/topology/nodes/0/gpu_id", "0\n")
    put("sys/class/kfd/kfd/topology/nodes/1/gpu_id", "4711\n")
    put("sys/class/kfd/kfd/topology/nodes/1/name", "gfx90a\n")
    assert gpu(tmp_path) == Gpu(("nvidia 550.54.15",), ("NVIDIA H100 80GB HBM3", "gfx90a"))


def test_data_is_what_is_large_only_read_and_no_code() -> None:
    def image(path: str, flags: int = os.O_RDONLY, **more: object) -> ImageFile:
        return ImageFile(path, MIB, 0o644, flags, 0, **more)  # type: ignore[arg-type]

    def external(path: str, size: int = MIB, build: str | None = None) -> ExternalFile:
        return ExternalFile(path, size, 7, 0o644, build)

    files = [
        image("/data/train.bin"), image("/data/small"), image("/data/both"), image("/data/both", os.O_RDWR),
        image("/opt/lib.so.3"), image("/opt/program", build_id=(1,)), image("/x/site-packages/a/model.bin"),
        image("/usr/lib/locale/archive"), image("/data/gone", deleted=True),
    ]  # fmt: skip
    known = [external(one.path) for one in files if one.path != "/data/small"] + [external("/data/small", MIB - 1)]
    assert data_files(files, known, ()) == (DataFile("/data/train.bin", MIB, 7),)
    many = [f"/data/{number:05}" for number in range(1500)]
    kept = data_files(map(image, many), [external(one, MIB + n) for n, one in enumerate(many)], ())
    assert (len(kept), kept[0].path, kept[-1].path) == (1000, "/data/00500", "/data/01499")
