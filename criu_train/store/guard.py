"""Only the owner gets in: restoring from a store runs the code in it with our rights."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from criu_train.errors import StoreError

_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_MAX_LINKS = 40  # what the kernel follows


def owners() -> frozenset[int]:
    """User ids that may own a store: the effective user and, for root under sudo, the user who called sudo."""
    effective = os.geteuid()
    sudo = os.environ.get("SUDO_UID", "")
    return frozenset({effective, int(sudo)} if effective == 0 and sudo.isdigit() else {effective})


def distrust(status: os.stat_result) -> str | None:
    """Why what ``status`` describes can't be trusted, or None."""
    if status.st_uid not in owners():
        return f"belongs to user id {status.st_uid}"
    if status.st_mode & _WRITABLE_BY_OTHERS:
        return f"can be written to by other users (mode {stat.S_IMODE(status.st_mode):04o})"
    return None


def check_ours(directory: Path, what: str = "the store", elsewhere: str = "name another place with --store") -> None:
    """Raise StoreError unless ``directory`` is ours alone to write to and no stranger's link leads there.

    ``what`` it is for people, and where ``elsewhere`` could be. Raises OSError too.
    """
    _check_links(directory, what)
    status = directory.stat()
    if not stat.S_ISDIR(status.st_mode):
        raise StoreError(f"{directory} is not a directory", tip=elsewhere)
    if reason := distrust(status):
        tip = (
            f"if you trust what is in it: chmod go-w {directory}"
            if status.st_uid in owners()
            else f"run as its owner, or {elsewhere}"
        )
        raise StoreError(f"{what} {directory} {reason}", tip=tip)


def swappable(directory: Path) -> str | None:
    """How others could put another directory in place of this one, between two looks of ours; None when they can't.

    Groups are passed over: where each user has one of his own, directories often are open to it.
    """
    for above in directory.resolve().parents:
        status = above.stat()
        if status.st_uid not in owners() | {0}:
            return f"{above} belongs to user id {status.st_uid}"
        if status.st_mode & (stat.S_IWOTH | stat.S_ISVTX) == stat.S_IWOTH:
            return f"anybody can write to {above}"
    return None


def _check_links(path: Path, what: str) -> None:
    """Walk to ``path`` as the kernel does, and refuse a symbolic link that neither we nor root made."""
    links = 0
    walked = Path("/")
    ahead = list(reversed(path.parts[1:]))
    while ahead:
        name = ahead.pop()
        walked = walked.parent if name == ".." else walked / name
        if not walked.is_symlink():
            continue
        links += 1
        if links > _MAX_LINKS:
            raise StoreError(f"{path} runs in a circle of symbolic links", tip="name another place")
        owner = walked.lstat().st_uid
        if owner not in owners() | {0}:
            raise StoreError(
                f"the way to {what} leads over {walked}, a symbolic link of user id {owner}",
                tip="name the place itself",
            )
        target = walked.readlink()
        walked = Path("/") if target.is_absolute() else walked.parent
        ahead += reversed(target.parts[1:] if target.is_absolute() else target.parts)
