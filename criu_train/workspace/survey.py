"""What surrounds a training while it runs: taken at every dump, so what can't have changed is not read again."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence

from criu_train.criu.images import ImageFile
from criu_train.store.environment import DataFile, Environment
from criu_train.store.manifest import ExternalFile
from criu_train.workspace.code_version import code_version
from criu_train.workspace.fingerprint import gpu
from criu_train.workspace.listing import Entry
from criu_train.workspace.packages import packages_in, site_of
from criu_train.workspace.programs import Process, interpreter_of, libc_of, look_at

_DATA_BYTES = 1 << 20  # smaller ones are settings rather than data
_MOST_DATA = 1000
_CODE = (".py", ".pyc", ".so", ".jar", ".mo", ".gresource")
_SYSTEM = ("/usr/", "/lib/", "/lib64/", "/etc/", "/var/cache/", "/var/lib/dpkg/")


def survey(pids: Sequence[int], cwd: str, known: Environment | None = None) -> Environment | None:
    """The surroundings of a running tree, the root task first among ``pids`` (as the host numbers them).

    ``known``: what an earlier snapshot of the run found. The code stays what it was then: that is what the training has
    in memory, whatever the checkout came to since.
    Never raises, for a dump must not fail by it: None when something unexpected went wrong.
    """
    with contextlib.suppress(Exception):
        return _survey(pids, cwd, known)
    return None


def _survey(pids: Sequence[int], cwd: str, known: Environment | None) -> Environment:
    processes = list(_look_at_all(pids))
    interpreter = next((found for one in processes if (found := interpreter_of(one))), None)
    mapped = frozenset[str]().union(*(one.mapped for one in processes))
    sites = {site for path in mapped if (site := site_of(path))} | set(interpreter.sites if interpreter else ())
    return Environment(
        python=interpreter.component if interpreter else None,
        libc=next((libc for one in processes if (libc := libc_of(one.mapped))), None),
        packages={site: packages for site in sorted(sites) if (packages := packages_in(site))},
        code=known.code if known else code_version(cwd),
        gpu=gpu(),
    )


def _look_at_all(pids: Iterable[int]) -> Iterable[Process]:
    for pid in pids:
        with contextlib.suppress(OSError):
            yield look_at(pid)


def data_files(
    files: Iterable[ImageFile], external: Iterable[ExternalFile], entries: Iterable[Entry]
) -> tuple[DataFile, ...]:
    """The large files that the tree only reads and that are no code, the largest where there are too many.

    ``external`` and ``entries``: what is known of files outside of the workspace, and of those in its directories.
    """
    files = [one for one in files if not one.deleted]
    written = {one.path for one in files if one.flags & os.O_ACCMODE != os.O_RDONLY}
    read = {one.path for one in files if not one.build_id} - written
    known = [DataFile(one.path, one.size, one.mtime_ns) for one in external if one.build is None]
    known += [DataFile(one.path, one.size, one.mtime_ns) for one in entries if one.role == "bystander"]
    found = [one for one in known if one.path in read and one.size >= _DATA_BYTES and not is_code(one.path)]
    return tuple(sorted(sorted(found, key=lambda one: -one.size)[:_MOST_DATA]))


def is_code(path: str) -> bool:
    """Whether a file is part of the system, of a package or of a program, rather than the training's own."""
    name = path.rpartition("/")[2]
    return name.endswith(_CODE) or ".so." in name or path.startswith(_SYSTEM) or site_of(path) is not None
