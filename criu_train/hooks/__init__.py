"""For a training that wants to help a little: snapshots then fall between two steps, and know how far it is.

    from criu_train import hooks

    for step, batch in enumerate(batches):
        ...
        optimizer.step()
        hooks.report(step=step, loss=loss.item())

Nothing here needs criu-train to be at work: without it every call returns at once. Standard library only, so that it
can be imported by any training. Usable from every process of it; each one speaks for itself. See docs/hooks.md.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, SupportsFloat, SupportsIndex, TypeVar

from criu_train.hooks.layout import VARIABLE
from criu_train.hooks.member import Member
from criu_train.hooks.wishes import Hooks

__all__ = [
    "Checkpoint",
    "active",
    "after_dump",
    "after_restore",
    "before_dump",
    "checkpoint",
    "generation",
    "report",
    "state_digest",
]

_H = TypeVar("_H", bound=Callable[[], object])
_D = TypeVar("_D", bound=Callable[[], bytes | str])

_hooks = Hooks()
_member: Member | None = None
_tried = False
_joining = threading.Lock()


class Checkpoint(NamedTuple):
    """What ``checkpoint`` returns. ``id``: of the snapshot, None where there is none; ``problem`` then tells why.

    ``restored``: this is not the process that asked, but what was restored from that snapshot.
    """

    id: str | None
    restored: bool = False
    problem: str = ""


def report(step: SupportsIndex | None = None, epoch: SupportsFloat | None = None, **metrics: SupportsFloat) -> None:
    """Tell how far this process is; call it between two steps, best right after the optimizer's.

    ``metrics``: numbers, or what ``float`` makes numbers of; at most 64 names. Takes microseconds, unless a dump is
    due: then it returns after the dump. In several processes that work in step, all of them report the same steps.
    """
    member = _member or _join()
    if member is not None:
        member.report(step, epoch, metrics)


def checkpoint(wait: bool = True) -> Checkpoint:
    """A snapshot here and now. Returns once in this process, and once in each one that is restored from it.

    ``wait``: until the snapshot is complete and on the disk; otherwise only until the training can go on, and should
    the rest fail, ``criu-train`` tells it. Of several processes that work in step, all have to call it at the same
    step.
    """
    member = _member or _join()
    if member is None:
        return Checkpoint(None, problem="this is not under criu-train")
    return Checkpoint(*member.checkpoint(wait))


def before_dump(hook: _H) -> _H:
    """Decorator: called before a dump that finds this process in ``report`` or ``checkpoint``, in the same thread."""
    _hooks.before_dump.append(hook)
    return hook


def after_dump(hook: _H) -> _H:
    """Decorator: called after a dump for which ``before_dump`` was, where the training just goes on."""
    _hooks.after_dump.append(hook)
    return hook


def after_restore(hook: _H) -> _H:
    """Decorator: called after a restore, in the next (or current) ``report`` or ``checkpoint``."""
    _hooks.after_restore.append(hook)
    return hook


def state_digest(digest: _D) -> _D:
    """Decorator: of what must be the same after a restore. Recorded at a dump and computed again after a restore.

    If the two differ, the restore has failed and another snapshot is tried. Only where the dump finds this process in
    ``report`` or ``checkpoint``.
    """
    _hooks.digests.append(digest)
    return digest


def generation() -> int:
    """How often the run has been restored: 0 after a cold start, and without criu-train."""
    member = _member or _join()
    return member.restores if member is not None else 0


def active() -> bool:
    """Whether this process runs under criu-train and can use hooks."""
    return (_member or _join()) is not None


def _join() -> Member | None:
    global _member, _tried  # noqa: PLW0603 - a process is a member once, whoever asks
    if _tried:
        return _member
    with _joining:
        if not _tried and (directory := os.environ.get(VARIABLE)):
            # Else started by hand with the environment of a training, outside of its cell, or on a full disk.
            with contextlib.suppress(OSError, ValueError):
                _member = Member(Path(directory), _hooks)
        _tried = True
    return _member


def _after_fork() -> None:
    global _member, _tried
    if _member is not None:
        _member.leave()
    _member, _tried = None, False


os.register_at_fork(after_in_child=_after_fork)
