"""Makes a container out of fresh namespaces, as PID 1 of them, then becomes the container's command.

Executed as a file by the host's interpreter; its only argument is a JSON object, see ``containers.Spec``. What Docker
does is done in Docker's order: overlay, mounts, masks, pivot_root, capabilities, exec.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import socket
import stat
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

_SYS_PIVOT_ROOT = 155  # x86-64
_SYS_SECCOMP = 317
_MNT_DETACH = 2
_PR_CAPBSET_DROP = 24
_CAPABILITIES = 41
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1

_DEVICES = {"null": 3, "zero": 5, "full": 7, "random": 8, "urandom": 9}
_LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2", "ptmx": "pts/ptmx"}
# What Docker hides from a container, and what it lets it only read, unless it is privileged.
_MASKED = (
    *("/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats"),
    *("/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats"),
    *("/sys/devices/virtual/powercap", "/sys/firmware"),
)
_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

_libc = ctypes.CDLL(None, use_errno=True)


def main(spec: dict[str, Any]) -> None:
    root = Path(spec["root"])
    layers = f"lowerdir={':'.join(spec['lower'])},upperdir={spec['upper']},workdir={spec['overlay_work']}"
    mount("-t", "overlay", "-o", layers, "overlay", root)
    mount("-t", "proc", "-o", "nosuid,nodev,noexec", "proc", root / "proc")
    mount("-t", "sysfs", "-o", f"nosuid,nodev,noexec{'' if spec['unmasked'] else ',ro'}", "sysfs", root / "sys")
    fill_dev(root / "dev")
    for source, target, options in spec["binds"]:
        mount("--rbind", source, root / target.lstrip("/"))
        if options:
            mount("-o", f"remount,bind,{options}", root / target.lstrip("/"))
    if not spec["unmasked"]:
        mask(root)
    socket.sethostname(spec["hostname"])
    if spec["own_network"]:
        bring_loopback_up()
    os.chdir(root)
    check(_libc.syscall(_SYS_PIVOT_ROOT, b".", b"."), "pivot_root")
    check(_libc.umount2(b".", _MNT_DETACH), "umount2")
    os.chdir(spec["cwd"])
    drop_all_but(spec["capabilities"])
    if spec["seccomp"]:
        allow_every_call_by_a_filter()
    os.execvpe(spec["argv"][0], spec["argv"], spec["environment"])


def mount(*arguments: object) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True)


def fill_dev(dev: Path) -> None:
    mount("-t", "tmpfs", "-o", "nosuid,mode=755,size=64k", "tmpfs", dev)
    os.umask(0)
    for name, minor in _DEVICES.items():
        os.mknod(dev / name, 0o666 | stat.S_IFCHR, os.makedev(1, minor))
    os.mknod(dev / "tty", 0o666 | stat.S_IFCHR, os.makedev(5, 0))
    os.umask(0o022)
    for name, target in _LINKS.items():
        (dev / name).symlink_to(target)
    for name in ("pts", "shm", "mqueue"):
        (dev / name).mkdir()
    mount("-t", "devpts", "-o", "newinstance,ptmxmode=0666,mode=0620,gid=5", "devpts", dev / "pts")
    mount("-t", "tmpfs", "-o", "nosuid,nodev,noexec,size=64m,mode=1777", "shm", dev / "shm")
    mount("-t", "mqueue", "-o", "nosuid,nodev,noexec", "mqueue", dev / "mqueue")


def mask(root: Path) -> None:
    for place in _READ_ONLY:
        path = root / place.lstrip("/")
        if path.exists():
            mount("--bind", path, path)
            mount("-o", "remount,bind,ro,nosuid,nodev,noexec", path)
    for place in _MASKED:
        path = root / place.lstrip("/")
        if path.is_dir():
            mount("-t", "tmpfs", "-o", "ro,size=0", "tmpfs", path)
        elif path.exists():
            mount("--bind", root / "dev/null", path)


def bring_loopback_up() -> None:
    """A network of its own has a loopback interface, which is down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | _IFF_UP))


def drop_all_but(kept: list[int] | None) -> None:
    """From the bounding set: root's next exec then has what is left, and no more."""
    for number in range(_CAPABILITIES):
        if kept is not None and number not in kept:
            check(_libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0), "prctl", but=errno.EINVAL)


def allow_every_call_by_a_filter() -> None:
    """The smallest seccomp filter there is: what matters to CRIU is that there is one."""
    program = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0x7FFF0000), 8)
    check(_libc.syscall(_SYS_SECCOMP, 1, 0, struct.pack("HxxxxxxP", 1, ctypes.addressof(program))), "seccomp")


def check(result: int, what: str, but: int = 0) -> None:
    number = ctypes.get_errno()
    if result < 0 and number != but:
        raise OSError(number, os.strerror(number), what)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
