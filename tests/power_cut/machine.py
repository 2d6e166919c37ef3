"""A virtual machine whose power can be cut: QEMU on a disk of which only what was flushed is there afterwards.

The disk of the data lies behind nbdkit with a write-back cache of its own: a write stays in that cache until the
machine flushes, and dies with nbdkit. The disk of the system is read afresh each time. All of it is emulated, so
everything takes about ten times as long as on the machine itself.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

KERNEL_PACKAGE = "linux-image-cloud-amd64"
MEMORY_MIB, PROCESSORS = 1536, 2
DATA_MIB, ROOM_MIB = 2048, 256  # of the disk for the data, and of what the system has beside its files
CALL_LIMIT_S = 300.0
# Without these and what they need the machine has no disk; other modules are loaded when they are asked for.
FIRST_MODULES = ("virtio_pci", "virtio_blk")
LOOK_EVERY_S = 0.1
_STYLE = re.compile(r"\x1b\[[0-9;]*m|\r")

_FIRST = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /dev /root
/bin/busybox mount -t devtmpfs dev /dev
for module in {modules}; do /bin/busybox insmod /$module.ko 2>/dev/null; done
while ! [ -b /dev/vda ]; do /bin/busybox sleep 0.1; done
/bin/busybox mount -t ext4 /dev/vda /root
/bin/busybox mount -t tmpfs run /root/run
/bin/busybox cp /guest /root/run/
exec /bin/busybox switch_root /root /run/guest
"""
_GUEST = """#!/bin/sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root PYTHONUNBUFFERED=1
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm; mount -t devpts pts /dev/pts
for place in /dev/shm /tmp; do mount -t tmpfs tmpfs $place; done
/bin/busybox ip link set lo up
mkdir -p /data; mount -t ext4 /dev/vdb /data && cd /data || echo "GUEST: no disk"
echo "GUEST: up"
{script}
echo "GUEST: ended with $?"
sync; cd /; umount /data; sync
/bin/busybox poweroff -f
"""


class Machine:
    """One machine, switched on and off any number of times. ``place``: on a disk, for its disks and what it says."""

    def __init__(self, place: Path, system: Path, modules: Path) -> None:
        self._place = place
        self._system = system
        self._kernel = next(modules.glob("boot/vmlinuz-*"))
        self._modules = modules
        self.data = place / "data.img"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._sockets: Path | None = None
        self.boots = 0

    def prepare(self, files: Path) -> None:
        """An empty disk for the data with these files on it."""
        with self.data.open("wb") as file:
            file.truncate(DATA_MIB << 20)
        call("mke2fs", "-q", "-t", "ext4", "-d", files, self.data)

    @property
    def console(self) -> Path:
        return self._place / f"console-{self.boots:02d}.log"

    def said(self) -> str:
        with contextlib.suppress(FileNotFoundError):
            return _STYLE.sub("", self.console.read_text(errors="replace"))
        return ""

    def switch_on(self, script: str) -> None:
        """Boot, and run these lines in the directory of the data's disk."""
        self.boots += 1
        initrd = self._place / "initrd"
        self._make_initrd(initrd, script)
        cache = self._place / "cache"
        shutil.rmtree(cache, ignore_errors=True)
        cache.mkdir()
        self._sockets = Path(tempfile.mkdtemp(prefix="nbd-"))  # a short path
        socket = self._sockets / "socket"
        self._start(
            *("nbdkit", "--foreground", "--unix", socket, "--filter=cache", "file", self.data, "cache=writeback"),
            env={**os.environ, "TMPDIR": str(cache)},
        )
        until(socket.exists, "the disk", 10)
        self._start(
            *("qemu-system-x86_64", "-accel", "tcg,thread=multi", "-machine", "q35", "-cpu", "max"),
            *("-smp", PROCESSORS, "-m", MEMORY_MIB, "-nodefaults", "-no-reboot", "-display", "none"),
            *("-serial", f"file:{self.console}", "-kernel", self._kernel, "-initrd", initrd),
            *("-append", "console=ttyS0 quiet panic=-1 random.trust_cpu=on"),
            *("-drive", f"file={self._system},format=raw,if=virtio,snapshot=on"),
            *("-drive", f"file=nbd:unix:{socket},format=raw,if=virtio,cache=none"),
        )

    def cut(self) -> None:
        """The power is gone: what was not flushed is lost."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
        self._forget()

    def wait_until_off(self, limit_s: float) -> None:
        """The machine has switched itself off, everything flushed."""
        disk, machine = self._processes
        machine.wait(limit_s)
        disk.send_signal(signal.SIGTERM)
        disk.wait(CALL_LIMIT_S)
        self._forget()

    def _forget(self) -> None:
        self._processes.clear()
        if self._sockets is not None:
            shutil.rmtree(self._sockets, ignore_errors=True)

    @property
    def on(self) -> bool:
        return bool(self._processes) and self._processes[-1].poll() is None

    def wait_for(self, words: str, limit_s: float) -> None:
        until(lambda: words in self.said() or not self.on, f"{words!r}", limit_s, self.said)
        assert words in self.said(), f"the machine went off before it said {words!r}:\n{self.said()[-3000:]}"

    def files(self, directory: str, into: Path) -> None:
        """Copy a directory from the data's disk, while the machine is off."""
        into.mkdir(parents=True)
        call("debugfs", "-R", f"rdump {directory} {into}", self.data)

    def _start(self, *argv: object, env: dict[str, str] | None = None) -> None:
        log = (self._place / "processes.log").open("ab")
        with log:
            self._processes.append(
                subprocess.Popen([*map(str, argv)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env)
            )

    def _with_needs(self, name: str) -> list[Path]:
        """A module's file after those of what it needs."""
        table = next(self._modules.glob("lib/modules/*/modules.dep"))
        line = next(line for line in table.read_text().splitlines() if f"/{name}.ko:" in line)
        own, _, needs = line.partition(":")
        return [table.parent / path for path in (*reversed(needs.split()), own)]

    def _make_initrd(self, path: Path, script: str) -> None:
        with tempfile.TemporaryDirectory() as top:
            root = Path(top)
            (root / "bin").mkdir()
            shutil.copy("/bin/busybox", root / "bin" / "busybox")
            modules = [module for name in FIRST_MODULES for module in self._with_needs(name)]
            for module in modules:
                shutil.copy(module, root)
            write_program(root / "init", _FIRST.format(modules=" ".join(module.stem for module in modules)))
            write_program(root / "guest", _GUEST.format(script=script))
            names = "\n".join(str(one.relative_to(root)) for one in root.rglob("*"))
            packed = subprocess.run(
                ["busybox", "cpio", "-o", "-H", "newc"], input=names.encode(), cwd=root, capture_output=True, check=True
            )
        path.write_bytes(gzip.compress(packed.stdout, 1))


@contextmanager
def unpacked_kernel(place: Path) -> Iterator[Path]:
    """The kernel's package and what it depends on, unpacked; nothing of it is installed."""
    place.mkdir()
    listed = call("apt-cache", "depends", "--important", KERNEL_PACKAGE)
    package = next(line.split()[-1] for line in listed.splitlines() if "Depends: linux-image-" in line)
    call("apt-get", "-o", "APT::Sandbox::User=root", "download", package, cwd=place)
    call("dpkg", "-x", next(place.glob("*.deb")), place)
    version = next(place.glob("lib/modules/*")).name
    call("depmod", "-b", place, version)
    yield place


def make_system(layers: Sequence[Path], modules: Path, extra: Path, image: Path) -> None:
    """A file system image of an image's layers, the topmost first, the kernel's modules and some more files."""
    mounted = Path(tempfile.mkdtemp(prefix="system-"))
    changes = Path(tempfile.mkdtemp(prefix="changes-", dir=image.parent))
    upper, work = changes / "upper", changes / "work"
    upper.mkdir()
    work.mkdir()
    shutil.copytree(modules / "lib", upper / "usr" / "lib", symlinks=True)
    for name in ("bin/busybox", "sbin/modprobe"):
        (upper / "usr" / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy("/bin/busybox", upper / "usr/bin/busybox")
    (upper / "usr/sbin/modprobe").symlink_to("../bin/busybox")
    shutil.copytree(extra, upper, dirs_exist_ok=True)
    options = f"lowerdir={':'.join(map(str, layers))},upperdir={upper},workdir={work}"
    size = int(call("du", "-sm", *layers, upper, "--total").splitlines()[-1].split()[0]) + ROOM_MIB
    with image.open("wb") as file:
        file.truncate(size << 20)
    script = 'mount -t overlay -o "$1" overlay "$2" && mke2fs -q -t ext4 -d "$2" "$3"'
    call("unshare", "--mount", "sh", "-c", script, "sh", options, mounted, image)
    mounted.rmdir()
    shutil.rmtree(changes)


def write_program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def call(*argv: object, cwd: Path | None = None) -> str:
    done = subprocess.run([*map(str, argv)], cwd=cwd, capture_output=True, text=True, check=False, timeout=CALL_LIMIT_S)
    assert done.returncode == 0, f"{argv[0]}: {done.stdout[-1000:]}{done.stderr[-1000:]}"
    return done.stdout


def until(condition: Callable[[], object], what: str, limit_s: float, tell: Callable[[], str] = str) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, f"waited {limit_s:g} s in vain for {what}:\n{tell()[-3000:]}"
        time.sleep(LOOK_EVERY_S)
