"""What is read out of images, against what the tree is known to have had."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from trial import ROOT_PID, cell, python, until

from criu_train.criu.command import dump_command
from criu_train.criu.find import Criu
from criu_train.criu.images import Images, LinkRemap
from criu_train.errors import EnvironmentUnfitError, StoreError

TREE = """
import _multiprocessing, os, socket, sys, threading, time
here = sys.argv[1]
os.chdir(here)
appended = open("appended", "a"); appended.write("12345"); appended.flush()
read = open("read"); read.read(3)
deleted = open("deleted", "w"); deleted.write("123"); deleted.flush(); os.unlink("deleted")
linked = open("linked", "w"); linked.write("1234"); linked.flush(); os.link("linked", "other"); os.unlink("linked")
semaphore = _multiprocessing.SemLock(1, 0, 1, "/semaphore", False)
directory = os.open("held", os.O_RDONLY)
null = open("/dev/null", "w")
bound = socket.socket(socket.AF_UNIX); bound.bind("bound"); bound.listen()
absolute = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); absolute.bind(here + "/absolute")
abstract = socket.socket(socket.AF_UNIX); abstract.bind("\\0abstract")
threading.Thread(target=time.sleep, args=(60,)).start()
if os.fork() == 0:
    open("/proc/self/comm", "w").write("the child")
    open("ready", "w").close()
time.sleep(60)
"""


@pytest.fixture(scope="module")
def dumped(criu: Criu, tmp_path_factory: pytest.TempPathFactory) -> tuple[Images, Path]:
    """The images of the tree, and its working directory."""
    here = tmp_path_factory.mktemp("tree")
    (here / "read").write_text("read only")
    (here / "held").mkdir()
    (here / "images").mkdir()
    with cell("run", *python(TREE, str(here))) as tree:
        until((here / "ready").exists)
        command = dump_command(
            criu, root_pid=ROOT_PID, images=here / "images", log=here / "dump.log", leave_running=True
        )
        assert tree.criu(command) == 0
    return Images(here / "images", criu.pycriu), here


pytestmark = pytest.mark.criu


def test_open_files_are_told_with_position_flags_and_size(dumped: tuple[Images, Path]) -> None:
    images, here = dumped
    files = {file.path: file for file in images.files()}
    appended, read = files[f"{here}/appended"], files[f"{here}/read"]
    assert (appended.size, appended.pos) == (None, 5)
    assert appended.flags & (os.O_APPEND | os.O_ACCMODE) == os.O_APPEND | os.O_WRONLY
    assert (read.size, read.flags & os.O_ACCMODE) == (9, os.O_RDONLY)
    assert read.mode == stat.S_IMODE((here / "read").stat().st_mode)
    assert not appended.deleted


def test_mapped_libraries_are_told_with_their_build(dumped: tuple[Images, Path]) -> None:
    images, _ = dumped
    libraries = [file for file in images.files() if "/libc.so" in file.path]
    assert libraries
    assert all(library.build_id for library in libraries)


def test_deleted_files_are_marked_and_those_with_another_name_need_their_link(dumped: tuple[Images, Path]) -> None:
    images, here = dumped
    deleted = {file.path for file in images.files() if file.deleted}
    assert {f"{here}/deleted", f"{here}/linked"} <= deleted
    links = images.link_remaps()
    assert {link.original for link in links} > {f"{here}/linked"}
    link = next(link for link in links if link.original == f"{here}/linked")
    assert isinstance(link, LinkRemap)
    assert Path(link.remap_path).parent == here
    assert Path(link.remap_path).name.startswith("link_remap.")
    assert any(link.remap_path.startswith("/dev/shm/link_remap.") for link in links)
    assert not {link.remap_path for link in links} & {file.path for file in images.files()}


def test_directories_devices_and_socket_paths_are_told(dumped: tuple[Images, Path]) -> None:
    images, here = dumped
    assert {"/", str(here), f"{here}/held"} <= set(images.dirs)
    assert "/dev/null" in images.devices()
    assert set(images.unix_paths()) == {f"{here}/bound", f"{here}/absolute"}


def test_tasks_are_told_root_first(dumped: tuple[Images, Path]) -> None:
    images, _ = dumped
    root, child = images.tasks()
    assert (root.pid, root.ppid, len(root.threads)) == (ROOT_PID, 0, 2)
    assert (child.ppid, child.comm, child.threads) == (ROOT_PID, "the child", (child.pid,))


def test_figures_are_those_of_criu(dumped: tuple[Images, Path]) -> None:
    images, _ = dumped
    stats = images.dump_stats()
    assert stats["pages_written"] * 4096 <= images.memory_bytes() < 1 << 30
    assert 0 < stats["frozen_time"] < 30_000_000


def test_the_files_of_a_large_tree_are_read_in_milliseconds(dumped: tuple[Images, Path], tmp_path: Path) -> None:
    images, here = dumped
    images.tasks()  # the schema is loaded once
    image = (here / "images" / "files.img").read_bytes()
    (tmp_path / "files.img").write_bytes(image[:8] + image[8:] * 50)
    started = time.perf_counter()
    files = Images(tmp_path, images.pycriu).files()
    assert time.perf_counter() - started < 0.05
    assert len(files) > 10


def test_a_damaged_image_is_an_error_of_the_store(dumped: tuple[Images, Path], tmp_path: Path) -> None:
    images, here = dumped
    whole = (here / "images" / "files.img").read_bytes()
    for damage in (whole[:-3], whole[:3], b"\0" * len(whole), b""):
        (tmp_path / "files.img").write_bytes(damage)
        with pytest.raises(StoreError, match="damaged"):
            Images(tmp_path, images.pycriu).files()


def test_an_image_that_is_absent_is_empty(dumped: tuple[Images, Path], tmp_path: Path) -> None:
    images, _ = dumped
    empty = Images(tmp_path, images.pycriu)
    assert (empty.files(), empty.tasks(), empty.link_remaps(), dict(empty.dump_stats())) == ((), (), (), {})


def test_loading_the_schema_changes_neither_the_module_path_nor_the_environment(criu: Criu) -> None:
    code = (
        "import os, sys; from pathlib import Path; from criu_train.criu.schema import image_schema\n"
        "path, environment = list(sys.path), dict(os.environ)\n"
        "image_schema(Path(sys.argv[1]))\n"
        "assert sys.path == path and dict(os.environ) == environment\n"
    )
    subprocess.run([sys.executable, "-c", code, str(criu.pycriu)], check=True)


def test_a_missing_pycriu_is_told_with_a_tip(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from criu_train.criu.schema import image_schema\n"
        "try:\n    image_schema(Path(sys.argv[1]))\n"
        f"except Exception as error:\n    assert type(error).__name__ == '{EnvironmentUnfitError.__name__}', error\n"
        "    print(error.tip)\n"
    )
    told = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True, text=True)
    assert "criu-train setup" in told.stdout
