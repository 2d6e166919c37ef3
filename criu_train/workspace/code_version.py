"""Which commit of its code a training runs: asked of git where there is one, else read from ``.git``.

Git runs as the owner of the checkout and without what its configuration could make it start: a checkout is data, and
we are root.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from pathlib import Path

from criu_train.store.environment import CodeVersion

LIMIT_S = 1.0
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_STORE = ".criu-train"
_LINKS = 5  # a reference may name another one, which may name another one
_STATUS = (
    "git", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "core.untrackedCache=false",
    "status", "--porcelain=v2", "--branch", "--no-renames", "--ignore-submodules=all", "-z",
)  # fmt: skip


def code_version(directory: str, *, limit_s: float = LIMIT_S) -> CodeVersion | None:
    """The checkout that ``directory`` lies in, None when it lies in none, or in a damaged one.

    Dirty are changes to files that git knows: a training's own output would otherwise make every checkout dirty. A
    store that somebody has committed does not count either.
    """
    try:
        if (top := _top(Path(directory))) is None:
            return None
        said = _ask_git(top, limit_s)
        return _read(top) if said is None else _parse(said)
    except (OSError, ValueError):  # ValueError: a name with a zero byte in it
        return None


def _top(directory: Path) -> Path | None:
    return next((one for one in (directory, *directory.parents) if _git_directory(one) is not None), None)


def _git_directory(top: Path) -> Path | None:
    """Where the checkout at ``top`` has its HEAD; a linked checkout names the place in a file."""
    place = top / ".git"
    if place.is_file():
        name = place.read_text(errors="replace").removeprefix("gitdir:").strip()
        place = top / name
    return place if (place / "HEAD").is_file() else None


def _read(top: Path) -> CodeVersion:
    """What the files say: nothing about changes."""
    place = _git_directory(top)
    assert place is not None
    common = place
    with contextlib.suppress(FileNotFoundError):
        common = place / (place / "commondir").read_text(errors="replace").strip()
    said = (place / "HEAD").read_text(errors="replace").strip()
    branch = said.removeprefix("ref: refs/heads/") if said.startswith("ref: refs/heads/") else None
    for _ in range(_LINKS):
        if not said.startswith("ref: "):
            break
        said = _reference(said.removeprefix("ref: "), place, common)
    return CodeVersion(said if _COMMIT.fullmatch(said) else None, branch)


def _reference(name: str, place: Path, common: Path) -> str:
    for base in (place, common):
        if ".." not in name.split("/") and (base / name).is_file():
            return (base / name).read_text(errors="replace").strip()
    with contextlib.suppress(FileNotFoundError):
        for line in (common / "packed-refs").read_text(errors="replace").splitlines():
            commit, _, named = line.partition(" ")
            if named == name:
                return commit
    return ""


def _ask_git(top: Path, limit_s: float) -> str | None:
    """What ``git status`` says; None without git, and when it fails or takes too long."""
    owner = (top / ".git").stat()
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "LC_ALL": "C",
        "HOME": "/nonexistent",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_CONFIG_NOSYSTEM": "1",
    }
    other = os.geteuid() == 0 and owner.st_uid != 0
    try:
        process = subprocess.Popen(
            (*_STATUS, "--untracked-files=no"),
            cwd=top,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            user=owner.st_uid if other else None,
            group=owner.st_gid if other else None,
            extra_groups=[] if other else None,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    try:
        said, _ = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        # One that hangs in a dead network filesystem can't be waited for.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=limit_s)
        return None
    return os.fsdecode(said) if process.returncode == 0 else None


def _parse(said: str) -> CodeVersion:
    facts, changed = {}, []
    for line in said.split("\0"):
        if line.startswith("# "):
            name, _, value = line[2:].partition(" ")
            facts[name] = value
        elif line[:2] in ("1 ", "u "):
            changed.append(line.split(" ", 8 if line[0] == "1" else 10)[-1])
    commit, branch = facts.get("branch.oid", ""), facts.get("branch.head", "")
    return CodeVersion(
        commit if _COMMIT.fullmatch(commit) else None,
        None if branch in ("", "(detached)") else branch,
        any(_STORE not in name.split("/") for name in changed),
    )
