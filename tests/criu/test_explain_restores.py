"""Restores made to fail for real, and what is told about them."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from programs import DATAGRAMS, FILE, GONE, LISTENING, NESTED, TCP, THERE, TIED
from provoked import Place, told, without

from criu_train.criu.explain import explain
from criu_train.criu.find import Criu
from criu_train.criu.schema import image_schema

pytestmark = [pytest.mark.criu, pytest.mark.slow]

OWN_ADDRESS = "10.213.77.9"


@pytest.fixture
def here(place: Path, criu: Criu) -> Place:
    (place / "there").mkdir()
    return Place(place, criu)


def dumped(here: Place, code: str, *words: str) -> Place:
    assert here.dump(THERE + code, *words, kill=True) == 0, here.log
    return here


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("file-size", lambda data: data.write_text("123456")),
        ("file-gone", lambda data: data.unlink()),
        ("file-mode", lambda data: data.chmod(0o600)),
        ("file-unreadable", lambda data: (data.unlink(), data.mkdir())),
    ],
)
def test_a_file_that_is_not_what_it_was_is_explained(here: Place, name: str, change: Callable[[Path], object]) -> None:
    dumped(here, FILE)
    change(here.path / "data")
    assert f"{here.path}/data" in told(here.restore(), name)


def test_a_working_directory_that_is_gone_is_explained(here: Place) -> None:
    dumped(here, "os.chdir(there)")
    (here.path / "there").rmdir()
    assert explain(here.restore(), 1).what == f"{here.path}/there is gone since the snapshot"


def test_a_fifo_that_is_gone_is_explained(here: Place) -> None:
    dumped(here, "os.mkfifo(there + '/fifo'); fifo = os.open(there + '/fifo', os.O_RDWR)")
    (here.path / "there/fifo").unlink()
    assert explain(here.restore(), 1).what == f"{here.path}/there/fifo is gone since the snapshot"


def test_a_watched_directory_that_is_gone_is_explained(here: Place) -> None:
    dumped(here, "watch = libc.inotify_init(); must(libc.inotify_add_watch(watch, there.encode(), 2))")
    (here.path / "there").rmdir()
    told(here.restore(), "watched-gone")


def test_a_deleted_file_of_which_nothing_was_kept_is_explained(here: Place) -> None:
    linked = "file = open(here + '/a', 'w'); file.write('x'); file.flush(); os.link(file.name, here + '/b')"
    assert here.dump(linked + "; os.unlink(file.name)") == 0
    assert f"{here.path}/a" in told(here.restore(), "deleted-file-lost")


def test_another_build_of_a_library_is_explained(here: Place) -> None:
    library = here.path / "library.so"
    libraries = (Path(entry.path) for entry in psutil.Process().memory_maps())
    shutil.copy(next(path for path in libraries if path.name.startswith("libz")), library)
    dumped(here, "ctypes.CDLL(here + '/library.so')")
    code = bytearray(library.read_bytes())
    code[code.index(b"\x03\0\0\0GNU\0") + 8] ^= 255
    library.write_bytes(code)
    assert f"{library} is not the build" in told(here.restore(), "build-id")


def test_a_lock_that_another_program_took_is_explained(here: Place) -> None:
    locking = "import fcntl, struct; fcntl.fcntl(file, 37, struct.pack('hhqqi4x', 1, 0, 0, 0, 0))"
    dumped(here, FILE + locking)
    with (here.path / "data").open("r+") as data:
        fcntl.lockf(data, fcntl.LOCK_EX | fcntl.LOCK_NB)
        told(here.restore(), "lock-taken")


def test_a_lock_that_is_waited_for_in_vain_is_explained(here: Place) -> None:
    dumped(here, FILE + "import fcntl; fcntl.flock(file, 2)")
    with (here.path / "data").open() as data:
        fcntl.flock(data, fcntl.LOCK_EX)
        with pytest.raises(psutil.TimeoutExpired):
            here.restore(limit_s=2)
    assert "file lock" in explain((here.path / "restore.log").read_text(), -9, timed_out=True).what


@pytest.mark.parametrize(
    ("name", "code", "taken"),
    [
        ("pid-taken", FILE, 999),
        ("thread-taken", "import threading; threading.Thread(target=time.sleep, args=(60,)).start()", 1000),
    ],
)
def test_a_number_that_is_taken_is_explained(here: Place, name: str, code: str, taken: int) -> None:
    dumped(here, code)
    told(here.restore(before=f"echo {taken} > /proc/sys/kernel/ns_last_pid; sleep 60 &"), name)


@pytest.mark.parametrize("flag", [0x20000, 0x40000000], ids=["mount", "network"])
def test_a_container_inside_that_could_be_dumped_is_explained(here: Place, flag: int) -> None:
    dumped(here, NESTED, str(flag))
    told(here.restore(), "nested-restore")


def test_a_port_that_is_taken_is_explained(here: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    dumped(here, LISTENING, "127.0.0.1", str(port))
    with socket.create_server(("127.0.0.1", port)):
        told(here.restore(), "port-taken")


def test_an_address_that_is_gone_is_explained(here: Place) -> None:
    def address(verb: str) -> None:
        subprocess.run(["ip", "address", verb, f"{OWN_ADDRESS}/32", "dev", "lo"], check=True)

    address("add")
    try:
        dumped(here, LISTENING, OWN_ADDRESS, "0")
    finally:
        address("del")
    told(here.restore(), "address-gone")


def test_a_network_interface_that_is_gone_is_explained(here: Place) -> None:
    name = f"gone{os.getpid()}"[:15]
    subprocess.run(["ip", "link", "add", name, "type", "veth"], check=True)
    try:
        dumped(here, TIED, name)
    finally:
        subprocess.run(["ip", "link", "del", name], check=True)
    told(here.restore(), "interface-gone")


def test_a_socket_whose_directory_is_gone_is_explained(here: Place) -> None:
    dumped(here, "bound = socket.socket(socket.AF_UNIX); bound.bind(there + '/socket'); bound.listen()")
    shutil.rmtree(here.path / "there")
    assert f"{here.path}/there/socket" in told(here.restore(), "unix-path")


def test_a_program_outside_that_took_datagrams_and_is_gone_is_explained(here: Place) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as outside:
        outside.bind(str(here.path / "outside"))
        dumped(here, DATAGRAMS)
    (here.path / "outside").unlink()
    told(here.restore(), "unix-peer-gone")


@pytest.mark.parametrize(
    ("name", "prefix", "code"),
    [
        ("out-of-memory", ["prlimit", "--as=120000000"], "kept = bytearray(200 << 20)"),
        ("file-size-limit", ["prlimit", "--fsize=100000"], GONE),
        ("fewer-rights", without("sys_ptrace"), FILE),
        ("clock", without("sys_time"), FILE),
        ("no-net-admin", without("net_admin"), TCP),
    ],
)
def test_a_criu_without_its_rights_is_explained(here: Place, name: str, prefix: list[str], code: str) -> None:
    told(dumped(here, code).through(*prefix).restore(), name)


def test_a_full_shared_memory_is_explained(here: Place) -> None:
    log = dumped(here, GONE.replace("here", "'/dev/shm'")).restore(before="mount -o remount,size=1M /dev/shm")
    assert explain(log, 1).what == "the disk is full"


@pytest.mark.parametrize("image", ["inventory.img", "core-1000.img", "ids-1000.img", "pages-1.img"])
def test_a_missing_image_is_explained(here: Place, image: str) -> None:
    dumped(here, FILE)
    (here.images / image).unlink()
    told(here.restore(), "images-version" if image.startswith("ids") else "images-damaged")


@pytest.mark.parametrize(
    ("image", "damage"),
    [
        ("inventory.img", "cut"),
        ("pstree.img", "garbled"),
        ("mm-1000.img", "magic"),
        ("files.img", "cut"),
        ("pagemap-1000.img", "cut"),
        ("pagemap-1000.img", "garbled"),
    ],
)
def test_a_damaged_image_is_explained(here: Place, image: str, damage: str) -> None:
    path = dumped(here, FILE).images / image
    whole = path.read_bytes()
    at = 0 if damage == "magic" else 12
    path.write_bytes(whole[: len(whole) // 2] if damage == "cut" else whole[:at] + b"\xff" * 8 + whole[at + 8 :])
    told(here.restore(), "images-damaged")


def test_a_task_that_crashes_for_want_of_an_image_is_explained(here: Place) -> None:
    dumped(here, FILE)
    (here.images / "mm-1000.img").unlink()
    told(here.restore(), "crashed")


def edit(here: Place, image: str, change: Callable[[Any], object]) -> None:
    images = image_schema(here.criu.pycriu)
    with (here.images / image).open("rb") as file:
        content = images.load(file)
    change(content["entries"][0])
    with (here.images / image).open("wb") as file:
        images.dump(content, file)


@pytest.mark.parametrize(
    ("name", "image", "change"),
    [
        ("images-version", "inventory.img", lambda entry: entry.update(img_version=99)),
        ("plugin", "inventory.img", lambda entry: entry.update(plugins_entry={"plugins": ["cuda_plugin"]})),
        ("other-processor", "core-1000.img", lambda entry: entry.update(mtype="AARCH64")),
    ],
)
def test_images_of_another_criu_or_machine_are_explained(
    here: Place, name: str, image: str, change: Callable[[Any], object]
) -> None:
    dumped(here, FILE)
    edit(here, image, change)
    told(here.restore(), name)
