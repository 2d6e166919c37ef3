"""Whom a disaster can strike: the processes of a job, each by what it is there for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import psutil
from harness import JOB_MARK, Job, marked

Who = Callable[[Job], list[psutil.Process]]


def processes(job: Job, *words: str) -> list[psutil.Process]:
    """Those of the job whose command line has one of these words."""
    found = []
    for process in marked(f"{JOB_MARK}={job.env[JOB_MARK]}"):
        with contextlib.suppress(psutil.Error):
            if any(word in part for part in process.cmdline() for word in words):
                found.append(process)
    return found


def somebody(job: Job, who: Who) -> list[psutil.Process]:
    found = who(job)
    assert found, f"there is no {who.__name__} to be struck"
    return found


def supervisor(job: Job) -> list[psutil.Process]:
    return [psutil.Process(job.process.pid)] if job.process else []


def init(job: Job) -> list[psutil.Process]:
    return [one for one in processes(job, "criu_train.cell.init") if "unshare" not in one.name()]


def archivist(job: Job) -> list[psutil.Process]:
    return processes(job, "criu_train.archive.worker")


def criu(job: Job) -> list[psutil.Process]:
    return [one for one in processes(job, "sbin/criu") if "criu" in one.name() or "ld-linux" in one.name()]


def root(job: Job) -> list[psutil.Process]:
    """The training's first process, which the others are children of."""
    return [one for one in training(job) if not any(parent in training(job) for parent in one.parents()[:1])]


def worker(job: Job) -> list[psutil.Process]:
    return [one for one in training(job) if one not in root(job)]


def training(job: Job) -> list[psutil.Process]:
    script = next(word for word in job.command if word.endswith(".py"))
    ours = supervisor(job)
    return [one for one in processes(job, script) if one not in ours and "criu_train" not in one.cmdline()]
