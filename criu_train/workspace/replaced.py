"""Files that a restore needs and that are not what they were; and which program or package they belong to."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from criu_train.store.environment import Component, Environment
from criu_train.store.manifest import ExternalFile
from criu_train.workspace.elf import build_id
from criu_train.workspace.packages import owners_of, packages_in, site_of
from criu_train.workspace.programs import libc_version, python_version

_GLIBC = re.compile(
    r"(?:ld-linux[\w-]*|lib(?:c|m|mvec|dl|rt|pthread|util|anl|resolv|nss_\w+|BrokenLocale))[-.][-.\w]*so[.\d]*"
)


@dataclass(frozen=True)
class Problem:
    """What became of a file, told of one and of several, and what to do about it."""

    one: str
    several: str
    tip: str
    blocking: bool = True

    def tell(self, count: int) -> str:
        return self.several if count > 1 else self.one


_AGAIN = "install again the version that was there at the dump"
_GONE = Problem(
    "is missing", "are missing", "put it back from where it came: the restored training has it open or mapped"
)
_SIZE = Problem("has another size than at the dump", "have other sizes than at the dump", _AGAIN)
_MODE = Problem("changed its kind or permissions", "changed their kind or permissions", _AGAIN)
_BUILD = Problem("was replaced by another build", "were replaced by other builds", _AGAIN)
_TIME = Problem(
    "was written to since the dump",
    "were written to since the dump",
    "if it is data or code, the training goes on with what is in it now",
    blocking=False,
)


def changed_files(files: Iterable[ExternalFile]) -> dict[Problem, list[str]]:
    """The paths of those that are not what they were, by what is wrong with them."""
    found: dict[Problem, list[str]] = {}
    for one in files:
        if problem := _problem(one):
            found.setdefault(problem, []).append(one.path)
    return found


def _problem(then: ExternalFile) -> Problem | None:
    try:
        status = Path(then.path).stat()
    except OSError:
        return _GONE
    if status.st_size != then.size:
        return _SIZE
    if then.mode is not None and status.st_mode != then.mode:
        return _MODE
    if status.st_mtime_ns == then.mtime_ns:
        return None
    build = build_id(Path(then.path))
    if build is None or then.build is None:
        return _TIME if build == then.build else _BUILD
    return None if build == then.build else _BUILD


@dataclass(frozen=True)
class Change:
    """Something installed whose version is another one; ``now`` is None when it has gone."""

    name: str
    then: str
    now: str | None
    site: str | None = None  # of a package


class Replaced:
    """What was installed at the dump and has another version now; ``external`` as in the manifest.

    ``changed``: files by what is wrong with them; those that belong to such changes are claimed out of it.
    A package in a directory that has gone altogether is not a change of it: the files that are missed tell more.
    """

    def __init__(self, then: Environment, external: Sequence[ExternalFile], changed: dict[Problem, list[str]]) -> None:
        self._python = then.python
        self._libc = then.libc
        self._external = external
        self._changed = changed
        self._packages: dict[str, dict[str, Change]] = {}
        for site, packages in then.packages.items():
            if now := packages_in(site):
                self._packages[site] = {
                    name: Change(name, version, now.get(name), site)
                    for name, version in packages.items()
                    if now.get(name) != version
                }
        self._claimed: set[Change] = set()

    def claim(self, *, blocking: bool) -> list[Change]:
        """Take the files that belong to these changes out of ``changed``; the changes that had any, once each."""
        told: list[Change] = []
        for problem, paths in self._changed.items():
            if problem.blocking != blocking:
                continue
            for path in list(paths):
                if owner := self._owner(path):
                    paths.remove(path)
                    if owner not in self._claimed:
                        self._claimed.add(owner)
                        told.append(owner)
        return told

    def not_claimed(self) -> list[str]:
        """The other changed packages, a few words each."""
        rest = [one for found in self._packages.values() for one in found.values() if one not in self._claimed]
        return [f"{one.name} {one.then} is {'gone' if one.now is None else one.now}" for one in rest]

    @staticmethod
    def tell(one: Change) -> str:
        return f"{one.name} {one.then} was {'removed' if one.now is None else f'replaced by {one.now}'}"

    @staticmethod
    def wanted(changes: Iterable[Change]) -> list[str]:
        """What to install again, as installers write it."""
        return [f"{one.name}{'==' if one.site else ' '}{one.then}" for one in changes]

    def _owner(self, path: str) -> Change | None:
        if site_of(path):
            return self._owners.get(path)
        for change in self._programs:
            if _is_of_libc(path, self._libc) if change.name in ("glibc", "musl") else _is_of_python(path, self._python):
                return change
        return None

    @cached_property
    def _owners(self) -> dict[str, Change]:
        """The packages that changed files belong to, asked for once a directory."""
        insides: dict[str, list[str]] = {}
        for path in (path for paths in self._changed.values() for path in paths):
            if (site := site_of(path)) and self._packages.get(site):
                insides.setdefault(site, []).append(path.removeprefix(f"{site}/"))
        return {
            f"{site}/{inside}": self._packages[site][name]
            for site, wanted in insides.items()
            for inside, name in owners_of(site, wanted, self._packages[site]).items()
        }

    @cached_property
    def _programs(self) -> list[Change]:
        """Python and the C library; their files are searched only when some file wants to be explained."""
        return [change for change in (_python(self._python, self._external), _libc(self._libc)) if change]


def _python(then: Component | None, external: Iterable[ExternalFile]) -> Change | None:
    if then is None or then.version is None:
        return None
    libraries = [one.path for one in external if Path(one.path).name.startswith(f"lib{then.name}")]
    return _change(then, python_version([*libraries, then.path], _minor(then)))


def _libc(then: Component | None) -> Change | None:
    return None if then is None else _change(then, libc_version(then.path))


def _change(then: Component, now: str | None) -> Change | None:
    """None for something that has gone: then its file is missed, which is told by its path."""
    if then.version is None or now is None or then.version == now:
        return None
    return Change(then.name, then.version, now)


def _minor(python: Component) -> str:
    return ".".join((python.version or "").split(".")[:2])


def _is_of_python(path: str, python: Component | None) -> bool:
    return python is not None and (
        path == python.path
        or Path(path).name.startswith(f"lib{python.name}{_minor(python)}")
        or re.search(rf"/python{re.escape(_minor(python))}t?/", path) is not None
    )


def _is_of_libc(path: str, libc: Component | None) -> bool:
    if libc is None:
        return False
    return path == libc.path or (_GLIBC.fullmatch(Path(path).name) is not None and libc.name == "glibc")


def some(names: Collection[str], most: int) -> str:
    """The first names, and how many more there are."""
    rest = len(names) - most
    return ", ".join(list(names)[:most]) + (f" and {rest} more" if rest > 0 else "")
