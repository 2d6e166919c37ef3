"""One training under ``criu-train run`` that holds one thing: what preflight says of it, and what becomes of it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import Job, workload

from criu_train.doctor.preflight import Finding, scan

StartJob = Callable[..., Job]


def begin(start_job: StartJob, modes: str, outside: str = "", *options: str) -> Job:
    """A training that holds these things, and is at work."""
    job = start_job(workload("doomed.py", modes, outside), "--every", "1h", *options)
    job.wait_for_step(3)
    return job


def findings(job: Job, level: str) -> list[Finding]:
    return [finding for finding in scan([job.wait_for_pid("root_pid")]) if finding.level == level]


def whats(found: list[Finding]) -> str:
    return "\n".join(finding.what for finding in found)


def goes_on_after_a_restore(job: Job) -> None:
    """A dump, the end of everything, a restore, and the same work as before."""
    job.dump()
    job.wait_for_progress(2)
    job.kill_everything()
    job.start()
    job.wait_for_restore()
    job.wait_for_progress(10)
    assert findings(job, "blocks") == []  # what was restored looks no worse


def is_killed_after_a_dump(job: Job) -> None:
    job.dump()
    job.kill_everything()


@contextmanager
def program_outside(path: Path, held: int | None = None) -> Iterator[str]:
    """A program outside of the training that accepts connections at a unix socket, and hands a descriptor to each."""
    accepted: list[socket.socket] = []

    def serve(listening: socket.socket) -> None:
        while True:
            try:
                one, _ = listening.accept()
            except OSError:
                return
            accepted.append(one)
            if held is not None:
                socket.send_fds(one, [b"x"], [held])

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        try:
            yield str(path)
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()
            for one in accepted:
                one.close()
