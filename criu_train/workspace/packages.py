"""Installed Python packages, by the names of their metadata directories: nothing is imported, nothing is run."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from pathlib import Path

_INSTALLED = re.compile(r"(?P<name>[A-Za-z0-9][\w.]*?)-(?P<version>\d[^-]*)(?:-py\d[\w.]*)?\.(?:dist|egg)-info")
_SITE = re.compile(r"(/.*?/(?:site|dist)-packages)/")
_MOST = 5000  # of a directory


def site_of(path: str) -> str | None:
    """The site-packages directory that a file lies in."""
    match = _SITE.match(path)
    return match[1] if match else None


def packages_in(directory: str) -> Mapping[str, str]:
    """Name and version of every distribution in a site-packages directory; empty when it can't be read.

    Installing, upgrading and removing make or remove a directory in it, so as long as its own time stays the same, so
    do they.
    """
    try:
        return _packages(directory, os.stat(directory).st_mtime_ns)  # noqa: PTH116
    except OSError:
        return {}


@lru_cache(maxsize=64)
def _packages(directory: str, _mtime_ns: int) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for name in sorted(os.listdir(directory)):  # noqa: PTH208
        if (match := _INSTALLED.fullmatch(name)) and len(found) < _MOST:
            found[normal(match["name"])] = match["version"]
    return found


def normal(name: str) -> str:
    """A distribution's name as indexes compare it: ``Foo.Bar_baz`` is ``foo-bar-baz``."""
    return re.sub(r"[-_.]+", "-", name).lower()


def owner_of(path: str, candidates: Collection[str]) -> str | None:
    """Which of these distributions a file of site-packages belongs to.

    Told by the list of files of the one that is installed now, else by the name of the file's top directory.
    """
    if (site := site_of(path)) is None:
        return None
    inside = path.removeprefix(f"{site}/")
    top = inside.partition("/")[0]
    tops = []
    for name in candidates:
        listed = _listed(site, name)
        if inside in listed:
            return name
        if top in {one.partition("/")[0] for one in listed}:
            tops.append(name)
    named = normal(re.sub(r"\.libs$|\.(?:cpython|abi3|pypy)[\w-]*\.so$|\.so$", "", top))
    if named in candidates:
        return named
    return tops[0] if len(tops) == 1 else None


def _listed(site: str, name: str) -> frozenset[str]:
    """The files of an installed distribution, as its RECORD has them; none when there is no such list."""
    version = packages_in(site).get(name)
    for place in Path(site).glob(f"*-{version}.dist-info") if version else ():
        if normal(place.name.rpartition(f"-{version}")[0]) == name:
            try:
                status = os.stat(place / "RECORD")  # noqa: PTH116
                return _record(str(place / "RECORD"), status.st_mtime_ns)
            except OSError:
                return frozenset()
    return frozenset()


@lru_cache(maxsize=256)
def _record(path: str, _mtime_ns: int) -> frozenset[str]:
    with open(path, newline="", errors="replace") as file:  # noqa: PTH123
        return frozenset(row[0] for row in csv.reader(file) if row)
