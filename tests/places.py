"""Other places to restore in, as words to put before a command: another host name, network, root; or a moved directory.

Everything is mounted in namespaces of the command's own, and gone with it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from harness import ROOT, Job, Told, criu_train, environment

from criu_train.criu.verdicts import private_prefix

Words = tuple[str, ...]

OTHER_HOST: Words = ("unshare", "--uts", "sh", "-c", 'hostname elsewhere && exec "$@"', "sh")
OTHER_NETWORK: Words = ("unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")

# What a second machine has installed alike, beside the interpreter that runs this and the project.
_SAME = ("/usr", "/etc", "/opt", "/bin", "/sbin", "/lib", "/lib64")
_ENTER = """
set -e
root=$1 directory=$2
shift 2
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs shm "$root/dev/shm"
mount -t tmpfs run "$root/run"
while [ "$1" != -- ]; do mount --rbind "$1" "$root$1"; shift; done
shift
exec chroot "$root" env -C "$directory" "$@"
"""


def after(line: str) -> Words:
    """In mounts of its own, a line of shell first; in that shell's directory."""
    return ("unshare", "--mount", "sh", "-c", f'{line} && exec "$@"', "sh")


def second_root(root: Path) -> Words:
    """A root directory with the same programs and libraries, and nothing else that is here; by ``env -C DIR`` after it.

    /var/tmp, /tmp, /run and /dev/shm are its own.
    """
    for name in ("proc", "sys", "dev", "run", "tmp", "var/tmp"):
        (root / name).mkdir(parents=True, exist_ok=True)
    lent = []
    for path in _apart([*_SAME, sys.prefix, sys.base_prefix, str(ROOT), str(private_prefix().parent)]):
        place = root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        if os.path.islink(path):
            place.symlink_to(os.readlink(path))
        elif os.path.isdir(path):
            place.mkdir()
            lent.append(path)
    return ("unshare", "--mount", "sh", "-c", _ENTER, "sh", str(root), "/", *lent, "--")


def _apart(paths: Iterable[str]) -> list[str]:
    """Without those that lie in another one."""
    kept: list[str] = []
    for path in sorted(set(paths)):
        if not any(path.startswith(f"{one}/") for one in kept):
            kept.append(path)
    return kept


def call(job: Job, place: Sequence[str], *arguments: str, cwd: Path | None = None) -> Told:
    """One command of criu-train in another place, with the job's store; its training does not rest meanwhile."""
    hurry = job.place / "hurry"
    if job.place.is_dir():
        hurry.touch()
    try:
        done = subprocess.run(
            [*place, *criu_train("--store", str(job.store), *arguments)],
            cwd=cwd or job.work,
            env=environment(**job.env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
    finally:
        hurry.unlink(missing_ok=True)
    return Told(done.returncode, done.stdout, done.stderr)


def run_on(job: Job, place: Sequence[str], *options: str, cwd: Path | None = None) -> Told:
    """The job's own command line, to its end."""
    return call(job, place, "run", "--every", "0", *options, "--", *job.command, cwd=cwd)


def move(old: Path, new: Path) -> None:
    """As it comes to another disk or machine: every file is a new one."""
    copy(old, new)
    shutil.rmtree(old) if old.is_dir() else old.unlink()


def copy(old: Path, new: Path) -> None:
    subprocess.run(["cp", "-a", str(old), str(new)], check=True)


def stopped(job: Job, step: int = 20) -> Job:
    """With a snapshot as of its end."""
    job.wait_for_step(step)
    job.send(signal.SIGTERM)
    assert job.wait() == 143
    return job


@contextlib.contextmanager
def started_in(words: Sequence[str], job: Job) -> Iterator[Job]:
    """The job's run in another place."""
    argv = [*words, *criu_train("--store", str(job.store), "run", "--every", "0", "--", *job.command)]
    job.starts = 1
    with job.console.open("wb") as console:
        job.process = subprocess.Popen(argv, cwd=job.work, env=environment(**job.env), stdout=console, stderr=console)
    try:
        yield job
    finally:
        job.close()


def taken_in(words: Sequence[str], command: list[str], place: Path) -> Job:
    """A run that was stopped with a snapshot in that place."""
    with started_in(words, Job(place / "job", command)) as job:
        return stopped(job)


def assert_refused(told: Told, *words: str) -> None:
    assert told.code == 125, told.text
    assert "Traceback" not in told.text
    for word in words:
        assert word in told.err, f"{word!r} is not in:\n{told.err}"
