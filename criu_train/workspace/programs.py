"""Which Python and which libc a tree of processes runs, told by the files it has mapped: nothing is run to ask it."""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from criu_train.store.environment import Component

_MAPPED = re.compile(rb"^[0-9a-f]+-[0-9a-f]+ \S+ [0-9a-f]+ [0-9a-f:]+ [1-9]\d* +(/.*)$", re.MULTILINE)
_INTERPRETER = re.compile(r"(python|pypy)(\d\.\d+)?\d*[a-z]*")
_LIBRARY = re.compile(r"lib(python|pypy)(\d\.\d+)\S*\.so[.\d]*")
_STDLIB = re.compile(r"/lib(?:64)?/(?:python|pypy)(3\.\d+)/")
_LIBC = re.compile(r"libc\.so\.6|libc-\d[.\d]*\.so|(?:ld|libc\.)-?musl-\w+\.so(?:\.\d+)?")
_GLIBC_VERSION = rb"GNU C Library \([^)]*\) \w+ release version (\d[.\d]*\d)"
_MUSL_VERSION = rb"\0(1\.\d+\.\d+)\0"


@dataclass(frozen=True)
class Process:
    """A process of the tree: its program, as it was called, its environment's PATH, and what it has mapped."""

    program: str
    called: str
    path: str
    cwd: str
    mapped: frozenset[str]


@dataclass(frozen=True)
class Interpreter:
    """A Python and the directories in which its packages are installed."""

    component: Component
    sites: tuple[str, ...]


def look_at(pid: int) -> Process:
    """Raises OSError for one that has gone. ``pid`` as the host numbers it."""
    base = Path("/proc", str(pid))
    maps = (base / "maps").read_bytes()
    variables = (base / "environ").read_bytes().split(b"\0")
    path = next((one[5:] for one in variables if one.startswith(b"PATH=")), b"")
    return Process(
        program=os.readlink(base / "exe"),  # noqa: PTH115
        called=os.fsdecode((base / "cmdline").read_bytes().partition(b"\0")[0]),
        path=os.fsdecode(path),
        cwd=os.readlink(base / "cwd"),  # noqa: PTH115
        mapped=frozenset(map(os.fsdecode, set(_MAPPED.findall(maps)))),
    )


def interpreter_of(process: Process) -> Interpreter | None:
    """The Python that a process runs, None when it runs none."""
    program = _INTERPRETER.fullmatch(Path(process.program).name)
    libraries = sorted(path for path in process.mapped if _LIBRARY.fullmatch(Path(path).name))
    library = _LIBRARY.fullmatch(Path(libraries[0]).name) if libraries else None
    found = library or program
    if found is None:
        return None
    minor = found[2] or next((match[1] for path in process.mapped if (match := _STDLIB.search(path))), None)
    version = python_version([*libraries, process.program], minor)
    component = Component(found[1], version or minor, process.program)
    return Interpreter(component, tuple(_sites(process, minor)) if minor else ())


def python_version(files: Iterable[str], minor: str | None) -> str | None:
    """The version that is written into a Python's library or program; ``minor`` as in ``3.11``."""
    if minor is None:
        return None
    pattern = rb"(" + re.escape(minor.encode()) + rb"\.\d+(?:(?:a|b|rc)\d+)?\+?)\0"
    return next((version for path in files if (version := version_in(path, pattern))), None)


def libc_of(mapped: Iterable[str]) -> Component | None:
    """The C library among mapped files."""
    for path in sorted(mapped):
        if _LIBC.fullmatch(Path(path).name):
            name = "musl" if "musl" in Path(path).name else "glibc"
            return Component(name, libc_version(path), path)
    return None


def libc_version(path: str) -> str | None:
    """The version that is written into a C library."""
    return version_in(path, _MUSL_VERSION if "musl" in Path(path).name else _GLIBC_VERSION)


def version_in(path: str, pattern: bytes) -> str | None:
    """The first match in a file's bytes, looked for again only when the file has changed; None where there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116
        return _search(path, pattern, status.st_size, status.st_mtime_ns)
    except (OSError, ValueError):  # an empty file can't be mapped
        return None


@lru_cache(maxsize=32)
def _search(path: str, pattern: bytes, _size: int, _mtime_ns: int) -> str | None:
    with (
        open(path, "rb") as file,  # noqa: PTH123
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        match = re.search(pattern, content)
        return match[1].decode() if match else None


def _sites(process: Process, minor: str) -> Iterable[str]:
    """The virtual environment that the program was called in, or what the interpreter brings along."""
    called = process.called if "/" in process.called else shutil.which(process.called, path=process.path)
    base = Path(process.program).parent.parent
    if called:
        place = Path(process.cwd, called).parent.parent
        with contextlib.suppress(OSError):
            settings = (place / "pyvenv.cfg").read_text(errors="replace")
            yield from _sites_below(place, minor)
            if not re.search(r"(?im)^include-system-site-packages\s*=\s*true", settings):
                return
    yield from _sites_below(base, minor)


def _sites_below(prefix: Path, minor: str) -> Iterable[str]:
    for version in (minor, "3"):
        for name in ("site-packages", "dist-packages"):
            for library in ("lib", "lib64"):
                directory = prefix / library / f"python{version}" / name
                if directory.is_dir() and not directory.parent.parent.is_symlink():
                    yield str(directory)
