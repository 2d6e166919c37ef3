"""What a run needs of this machine, one check each: what was found, and what to do when it is not enough."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from criu_train.cell import fanotify
from criu_train.criu.find import Criu, find_criu
from criu_train.criu.verdicts import remember
from criu_train.cuda.command import OLDEST_DRIVER, can_move_aside, driver_version
from criu_train.doctor import privileges
from criu_train.doctor.probe import probe
from criu_train.errors import EnvironmentUnfitError
from criu_train.units import format_size

CALL_LIMIT_S = 20.0
SPACE_WANTED = 1 << 30  # a PyTorch process with nothing in it has 0.2 GiB; less than a few of those is no store
MEMORY_WANTED = 512 << 20  # images pass through the page cache

_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")

_PRIVILEGE_TIP = "run as root, for example with sudo; in a container: --privileged"
_SETUP_TIP = "run `criu-train setup`"
_KERNEL_TIP = "use a kernel of 5.5 or newer as distributions build it"


@dataclass(frozen=True)
class Check:
    """``needed``: without it no run works; the others only tell what can't be used. ``tip``: empty when all is well."""

    name: str
    ok: bool
    detail: str
    tip: str = ""
    needed: bool = True


@dataclass(frozen=True)
class Report:
    checks: tuple[Check, ...]
    criu: Criu | None

    @property
    def ok(self) -> bool:
        """Whether a run would work."""
        return all(check.ok for check in self.checks if check.needed)


def examine(store: Path) -> Report:
    """All checks, with a store at this place in mind; takes a few seconds and leaves nothing behind."""
    criu, found = _find()
    checks = [_privileges(), found]
    if not checks[0].ok:
        # Nothing else can be told apart from that.
        return Report((*checks, *_room(store)), criu)
    checks.append(_namespaces())
    if criu is not None:
        checks += [_feature(criu, *row) for row in _FEATURES]
        checks += list(_probe(criu))
    checks += [_fanotify(store), _huge_pages(), *_gpus(), *_room(store)]
    return Report(tuple(checks), criu)


def _privileges() -> Check:
    if (lack := privileges.lack()) is not None:
        return Check("privileges", False, lack.what, lack.tip)
    return Check("privileges", True, "root with all capabilities that are needed")


def _namespaces() -> Check:
    """A cell in small: PID and mount namespaces, a fresh /proc, and the say over which PID comes next."""
    script = "echo 999 > /proc/sys/kernel/ns_last_pid && sh -c 'echo $$'"
    argv = ["unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "sh", "-c", script]
    missing = [tool for tool in ("unshare", "nsenter") if shutil.which(tool) is None]
    if missing:
        return Check("namespaces", False, f"the program {missing[0]} is missing", "install util-linux")
    code, said = _call(argv)
    if code == 0 and said == "1000":
        return Check("namespaces", True, "PID and mount namespaces, PIDs by choice (ns_last_pid)")
    return Check("namespaces", False, said or f"exit code {code}", _PRIVILEGE_TIP)


def _find() -> tuple[Criu | None, Check]:
    try:
        criu = find_criu()
    except EnvironmentUnfitError as error:
        return None, Check("criu", False, str(error), error.tip)
    if criu.pycriu is None:
        return criu, Check("criu", False, f"{criu.version} at {criu.binary}, without pycriu", _SETUP_TIP)
    return criu, Check("criu", True, f"{criu.version} ({criu.origin}) at {criu.binary}")


_FEATURES = (  # name, what CRIU calls it, whether it is needed, what to do without it
    ("clone3 with PIDs by choice", "clone3_set_tid", True, _KERNEL_TIP),
    ("seccomp filters", "seccomp_filters", True, _KERNEL_TIP),
    ("time namespaces", "timens", True, _KERNEL_TIP),
    (
        "soft-dirty tracking",
        "mem_dirty_track",
        False,
        "nothing to do; a kernel with CONFIG_MEM_SOFT_DIRTY would allow pre-dumps: of what was copied before, only "
        "changed pages are copied while the tree stands still",
    ),
)


def _feature(criu: Criu, name: str, feature: str, needed: bool, tip: str) -> Check:
    code, _ = _call([*criu.command, "check", "--no-default-config", "--feature", feature])
    if code == 0:
        return Check(name, True, "supported", needed=needed)
    return Check(name, False, "not supported by this kernel", tip, needed=needed)


def _probe(criu: Criu) -> Iterator[Check]:
    try:
        verdict = probe(criu)
    except EnvironmentUnfitError as error:
        yield Check("dump and restore", False, str(error), error.tip)
        return
    remember(criu.binary, verdict)
    yield Check("dump and restore", verdict.passed, verdict.detail, "" if verdict.passed else _SETUP_TIP)
    if verdict.passed:
        yield Check("network locking", True, verdict.network_lock)
    else:
        yield Check("network locking", False, "not known while dump and restore fail", _SETUP_TIP)


def _fanotify(store: Path) -> Check:
    """Whether the kernel tells who writes files where the training runs."""
    place = _existing(store)
    try:
        group = fanotify.init()
        try:
            fanotify.mark_filesystem(group, str(place), fanotify.CREATE)
        finally:
            os.close(group)
    except OSError as error:
        tip = "nothing to do: files are found by comparing listings of the working directory"
        return Check("fanotify", False, f"{place}: {error.strerror}", tip, needed=False)
    return Check("fanotify", True, "tells which files the training changes", needed=False)


def _huge_pages() -> Check:
    """Whether the memory that captures go to can lie in huge pages, which fill faster."""
    try:
        mode = _HUGE_PAGES.read_text(encoding="ascii").partition("[")[2].partition("]")[0]
    except OSError:
        return Check("huge pages", False, "not supported by this kernel", _KERNEL_TIP, needed=False)
    if mode == "never":
        tip = f"dumps stand still for less long after: echo madvise > {_HUGE_PAGES}"
        return Check("huge pages", False, "switched off", tip, needed=False)
    return Check("huge pages", True, f"captures can use them ({mode})", needed=False)


def _gpus() -> Iterator[Check]:
    """Whether what lies on NVIDIA's GPUs can be moved to main memory, where there are any."""
    if (version := driver_version()) is None:
        return
    if can_move_aside(version):
        yield Check("GPUs", True, f"NVIDIA's driver {version} moves their memory aside for dumps", needed=False)
    else:
        tip = f"install driver {OLDEST_DRIVER} or newer to take snapshots of trainings on GPUs"
        yield Check("GPUs", False, f"NVIDIA's driver {version} can't move their memory aside", tip, needed=False)


def _room(store: Path) -> Iterator[Check]:
    place = _existing(store)
    free = shutil.disk_usage(place).free
    tip = "free space there, or put the store elsewhere with --store"
    enough = free >= SPACE_WANTED
    yield Check("disk space", enough, f"{format_size(free)} free at {place}", "" if enough else tip)
    memory = psutil.virtual_memory().available
    enough = memory >= MEMORY_WANTED
    yield Check("memory", enough, f"{format_size(memory)} available", "" if enough else "end other programs")


def _existing(path: Path) -> Path:
    return next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())


def _call(argv: list[str]) -> tuple[int, str]:
    """Exit code, and the last line that was said."""
    try:
        ended = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=CALL_LIMIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, str(error)
    lines = (ended.stdout + ended.stderr).strip().splitlines()
    return ended.returncode, lines[-1] if lines else ""
