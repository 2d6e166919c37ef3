"""Getting a CRIU that works on this kernel: one that is there and passes the probe, else a private one from Debian."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from criu_train.criu.find import Criu, candidates, describe
from criu_train.criu.verdicts import private_prefix, remember, verdict_of
from criu_train.doctor import debian, privileges
from criu_train.doctor.probe import probe
from criu_train.errors import EnvironmentUnfitError

Say = Callable[[str], None]

_DRAFT = ".fetching-"


def set_up(say: Say) -> Criu:
    """Find or fetch a CRIU that passes the probe; ``say`` is told each thing that was done, one line each.

    Once it has succeeded it needs no network any more. A failed or interrupted download leaves nothing behind, and a
    private CRIU that is there stays as it is until its successor has passed the probe.
    Raises EnvironmentUnfitError when there is no way here.
    """
    privileges.require()
    prefix = private_prefix()
    with _alone(prefix.parent):
        for criu in candidates():
            if _works(criu, say):
                return criu
            if criu.origin == "env":
                raise EnvironmentUnfitError(
                    f"the CRIU named in CRIU_TRAIN_CRIU does not work: {criu.binary}",
                    tip="unset CRIU_TRAIN_CRIU, then run `criu-train setup` again",
                )
        return _fetch(prefix, say)


def _works(criu: Criu, say: Say) -> bool:
    name = f"CRIU {criu.version} at {criu.binary}"
    verdict = verdict_of(criu.binary)
    if verdict is None:
        verdict = probe(criu)
        remember(criu.binary, verdict)
        say(f"{name}: {verdict.detail}")
    elif verdict.passed:
        say(f"{name}: works on this kernel (tried at {verdict.probed_at})")
    else:
        say(f"{name}: does not work on this kernel: {verdict.detail}")
    if verdict.passed and criu.pycriu is None:
        say(f"{name}: its Python module pycriu is missing")
        return False
    return verdict.passed


def _fetch(prefix: Path, say: Say) -> Criu:
    debian.check_host()
    problem = EnvironmentUnfitError("no CRIU could be fetched", tip="run `criu-train doctor`")
    for suite in debian.SUITES:
        say(f"fetching CRIU from Debian {suite}")
        draft = Path(tempfile.mkdtemp(prefix=_DRAFT, dir=prefix.parent))
        try:
            debian.fetch(draft, suite)
            return _adopt(draft, prefix, say)
        except EnvironmentUnfitError as error:
            problem = error
            say(f"Debian {suite}: {error}")
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    raise problem


def _adopt(draft: Path, prefix: Path, say: Say) -> Criu:
    """Put a fetched CRIU in its place, provided that it works."""
    criu = describe(draft / "usr/sbin/criu", "private")
    if criu is None:
        raise EnvironmentUnfitError("what was fetched can't be executed", tip="report this with `criu-train doctor`")
    verdict = probe(criu)
    if not verdict.passed:
        raise EnvironmentUnfitError(
            f"CRIU {criu.version} does not work on this kernel: {verdict.detail}",
            tip="run `criu-train doctor`, which tells what this machine lacks",
        )
    draft.chmod(0o755)
    if prefix.exists():
        prefix.rename(tempfile.mkdtemp(prefix=_DRAFT, dir=prefix.parent) + "/old")
    draft.rename(prefix)
    _sweep(prefix.parent)
    adopted = describe(prefix / "usr/sbin/criu", "private")
    assert adopted is not None
    remember(adopted.binary, verdict)
    say(f"CRIU {adopted.version} at {adopted.binary}: {verdict.detail}")
    return replace(adopted, network_lock=verdict.network_lock)


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """One setup at a time; the first thing it does is to sweep up what killed ones left behind."""
    try:
        if not directory.is_dir():
            directory.mkdir(parents=True)
            directory.chmod(0o755)  # nothing in it is secret; what matters is that nobody else can change it
        lock = os.open(directory / "setup.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise EnvironmentUnfitError(
            f"{directory} can't be written to: {error.strerror}", tip="name another place in CRIU_TRAIN_PREFIX"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _sweep(directory)
        yield
    finally:
        os.close(lock)


def _sweep(directory: Path) -> None:
    for leftover in directory.glob(f"{_DRAFT}*"):
        shutil.rmtree(leftover, ignore_errors=True)
