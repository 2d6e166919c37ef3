"""Which Python and which libc a tree of processes runs, told by the files it has mapped: nothing is run to ask it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from criu_train.store.environment import Component
from criu_train.workspace.opened import mapped_files

_INTERPRETER = re.compile(r"(python|pypy)(?:(\d\.\d+)(t?))?\d*[a-z]*")
_LIBRARY = re.compile(r"lib(python|pypy)(\d\.\d+)(t?)\S*\.so[.\d]*")
_STDLIB = re.compile(r"/lib(?:64)?/(python|pypy)(3\.\d+)(t?)/")
_LIBC = re.compile(r"libc\.so\.6|libc-\d[.\d]*\.so|(?:ld|libc\.)-?musl-\w+\.so(?:\.\d+)?")
_GLIBC_VERSION = rb"GNU C Library \([^)]*\) \w+ release version (\d[.\d]*\d)"
_MUSL_VERSION = rb"\0(1\.\d+\.\d+)\0"
# A file is searched in pieces, up to so many bytes; a version is not longer than what pieces have in common.
_PIECE_BYTES = 1 << 20
_OVERLAP_BYTES = 256
_SEARCHED_BYTES = 64 << 20


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
        mapped=frozenset(mapped_files(maps)),
    )


def interpreter_of(process: Process) -> Interpreter | None:
    """The Python that a process runs, None when it runs none."""
    program = _INTERPRETER.fullmatch(Path(process.program).name)
    libraries = sorted(path for path in process.mapped if _LIBRARY.fullmatch(Path(path).name))
    library = _LIBRARY.fullmatch(Path(libraries[0]).name) if libraries else None
    found = library or program
    if found is None:
        return None
    named = found if found[2] else next(filter(None, map(_STDLIB.search, sorted(process.mapped))), found)
    minor = named[2]
    version = python_version([*libraries, process.program], minor)
    component = Component(found[1], version or minor, process.program)
    return Interpreter(component, tuple(_sites(process, minor + named[3])) if minor else ())


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
    """The first match in a file's first 64 MiB, looked for again only when it has changed; None where there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116
        if not stat.S_ISREG(status.st_mode):
            return None
        return _search(path, pattern, status.st_size, status.st_mtime_ns)
    except (OSError, ValueError):
        return None


@lru_cache(maxsize=32)
def _search(path: str, pattern: bytes, _size: int, _mtime_ns: int) -> str | None:
    # Read rather than mapped: a file that gets shorter, or a disk that fails, would end us by a signal.
    content = b""
    with open(path, "rb") as file:  # noqa: PTH123
        for _ in range(_SEARCHED_BYTES // _PIECE_BYTES):
            piece = file.read(_PIECE_BYTES)
            last = len(piece) < _PIECE_BYTES
            content = content[-_OVERLAP_BYTES:] + piece
            match = re.search(pattern, content)
            if match and (last or match.end() < len(content)):  # else it may go on in the next piece
                return match[1].decode()
            if last:
                break
    return None


def _sites(process: Process, minor: str) -> Iterable[str]:
    """The virtual environment that the program was called in, or what the interpreter brings along.

    ``minor`` as directories have it: ``3.13``, and ``3.13t`` for one without the global lock.
    """
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
