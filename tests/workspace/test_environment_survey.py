"""What surrounds a tree of processes: its Python, its packages, its data; told without asking the training."""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from surroundings_samples import checkout, install

from criu_train.criu.images import ImageFile
from criu_train.store.environment import CodeVersion, Component, DataFile, Environment, Gpu
from criu_train.store.manifest import ExternalFile
from criu_train.workspace.fingerprint import gpu
from criu_train.workspace.packages import owner_of, packages_in
from criu_train.workspace.programs import libc_of, python_version
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


def test_files_belong_to_the_package_that_lists_them_or_is_named_like_their_directory(tmp_path: Path) -> None:
    site = tmp_path / "site-packages"
    install(site, "nvidia_cublas", "12", "nvidia/cublas/lib/libcublas.so.12")
    install(site, "nvidia_cudnn", "9", "nvidia/cudnn/lib/libcudnn.so.9")
    install(site, "pillow", "11", "PIL/_imaging.so")
    changed = ["nvidia-cublas", "nvidia-cudnn", "pillow", "numpy"]
    expected = {
        "nvidia/cudnn/lib/libcudnn.so.9": "nvidia-cudnn",
        "PIL/_gone.so": "pillow",
        "numpy/core/gone.so": "numpy",
        "numpy.libs/libblas.so": "numpy",
        "nvidia/other/lib/lib.so": None,
        "torch/lib/libtorch.so": None,
    }
    assert {path: owner_of(f"{site}/{path}", changed) for path in expected} == expected
    assert owner_of("/usr/lib/libc.so.6", changed) is None


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
