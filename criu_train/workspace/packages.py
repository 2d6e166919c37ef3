"""Installed Python packages, by the names of their metadata directories: nothing is imported, nothing is run."""

from __future__ import annotations

import contextlib
import csv
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path

_INSTALLED = re.compile(r"(?P<name>[A-Za-z0-9][\w.]*?)-(?P<version>\d[^-]*)(?:-py\d[\w.]*)?\.(?:dist|egg)-info")
_SITE = re.compile(r"(/.*?/(?:site|dist)-packages)/")
_MOST = 5000  # of a directory
# What the name of a library, or of the directory of a package's libraries, has behind the name of the package.
_BINARY = re.compile(r"\.libs$|\.(?:cpython|abi3|pypy)[\w-]*\.so$|\.so$")


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
    except (OSError, ValueError):
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


def owners_of(site: str, insides: Iterable[str], candidates: Collection[str]) -> dict[str, str]:
    """Which of these distributions each of these files (paths within ``site``) belongs to; others are left out.

    Told by the lists of files of what is installed now: a file that is in the list of another one belongs to none of
    ``candidates``. One that is in no list is told by the name of its top directory, or by who else has files there.
    """
    lists, tops = _look_into_lists(site, frozenset(insides))
    installed = packages_in(site)
    gone = [name for name in candidates if name not in installed]
    found = {}
    for inside, listed in lists.items():
        top = inside.partition("/")[0]
        named = normal(_BINARY.sub("", top))
        owners = listed
        if not listed and named in candidates:
            owners = {named}
        elif not listed and not any(name.startswith(f"{named}-") for name in gone):
            # Not where something has gone that shared the directory: nvidia-cudnn and nvidia-cublas are both in nvidia.
            owners = tops[top] if len(tops[top]) == 1 else set()
        if name := next((name for name in sorted(owners) if name in candidates), None):
            found[inside] = name
    return found


def _look_into_lists(site: str, insides: Collection[str]) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """Who lists each file, and who has files in each of their top directories: each list is read once and not kept."""
    lists: dict[str, set[str]] = {inside: set() for inside in insides}
    tops: dict[str, set[str]] = {inside.partition("/")[0]: set() for inside in insides}
    for name, record in _records(site):
        for inside in _files_in(record):
            if inside in lists:
                lists[inside].add(name)
            if (top := inside.partition("/")[0]) in tops:
                tops[top].add(name)
    return lists, tops


def _records(site: str) -> Iterator[tuple[str, Path]]:
    """Name and list of files of each distribution."""
    with contextlib.suppress(OSError, ValueError):
        for place in os.listdir(site):  # noqa: PTH208
            if place.endswith(".dist-info") and (match := _INSTALLED.fullmatch(place)):
                yield normal(match["name"]), Path(site, place, "RECORD")


def _files_in(record: Path) -> Iterator[str]:
    """What can't be read to its end tells what it can."""
    with (
        contextlib.suppress(OSError, csv.Error),
        record.open(newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        yield from (row[0] for row in csv.reader(file) if row)
