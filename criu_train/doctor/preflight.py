"""Before days are spent: what of a running training a snapshot will carry, what not, and what to change.

The tree is looked at from outside: /proc and the kernel's lists of sockets. Nothing is frozen, traced or opened in it,
so what comes and goes may be missed, and what CRIU alone can see (a datagram half sent) is not seen here. The verdicts
are those of CRIU 4.2 under this project's command lines, each tried for real (tests/doctor/).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from criu_train.cell.processes import dumpable_bytes
from criu_train.doctor import preflight_descriptors, preflight_ends, preflight_memory, preflight_tasks
from criu_train.doctor.preflight_notice import Level, Notice
from criu_train.doctor.preflight_tree import read_tree
from criu_train.errors import EnvironmentUnfitError, UsageError

_ORDER: tuple[Level, ...] = ("blocks", "warns", "fine")
_NAMED = 3  # places in a line


@dataclass(frozen=True)
class Finding:
    """One line each. ``blocks``: the dump would fail, or what it restores would be broken; ``warns``: it works, with a
    consequence worth knowing; ``fine``: noticed and carried (``tip`` is empty then)."""

    level: Level
    what: str
    why: str
    tip: str = ""


@dataclass(frozen=True)
class Preflight:
    """``tasks``: processes looked at. ``memory_bytes``: about what CRIU would write of them."""

    findings: tuple[Finding, ...]
    tasks: int
    memory_bytes: int

    @property
    def ok(self) -> bool:
        """Whether snapshots would work."""
        return all(finding.level != "blocks" for finding in self.findings)


def scan(root_pids: Sequence[int]) -> tuple[Finding, ...]:
    """What is worth telling of the trees below these processes (as we number them), the worst first.

    Never raises for processes that end meanwhile; a tree that is gone has nothing to tell.
    """
    return preflight(root_pids).findings


def preflight(root_pids: Sequence[int]) -> Preflight:
    """The same, and how much was looked at."""
    notices: list[Notice] = []
    pids: list[int] = []
    for root in root_pids:
        if (tree := read_tree(root)) is None:
            continue
        pids += tree.pids
        for look in (preflight_tasks, preflight_descriptors, preflight_ends, preflight_memory):
            notices += look.look(tree)
    return Preflight(tuple(_merge(notices)), len(pids), dumpable_bytes(pids))


def preflight_of_process(pid: int) -> Preflight:
    """For a person who named it. Raises UsageError, EnvironmentUnfitError when it can't be looked at."""
    try:
        os.stat(f"/proc/{pid}/root/")  # noqa: PTH116
    except PermissionError as error:
        raise EnvironmentUnfitError(f"process {pid} may not be looked at", tip="run as root") from error
    except OSError as error:
        raise UsageError(f"there is no process {pid}", tip="see `ps` for the root process of the training") from error
    return preflight([pid])


def _merge(notices: Sequence[Notice]) -> Iterator[Finding]:
    """The same thing at many places is told once."""
    same: dict[tuple[Level, str, str], list[Notice]] = {}
    for notice in notices:
        same.setdefault((notice.level, notice.what, notice.tip), []).append(notice)
    for (level, what, tip), all_of_them in sorted(same.items(), key=lambda item: _ORDER.index(item[0][0])):
        places = list(dict.fromkeys(notice.place for notice in all_of_them if notice.place))
        if level == "fine":
            count = sum(notice.count for notice in all_of_them)
            shown = f": {count}" + (f" ({_listed(places)})" if places else "")
        else:
            shown = f" ({_listed(places)})" if places else ""
        yield Finding(level, what + shown, all_of_them[0].why, tip)


def _listed(places: Sequence[str]) -> str:
    more = f" and {len(places) - _NAMED} more" if len(places) > _NAMED else ""
    return "; ".join(places[:_NAMED]) + more
