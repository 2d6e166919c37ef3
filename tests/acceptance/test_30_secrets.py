"""What a training has in its environment and memory is in its images, and nowhere else: not in what we write or say."""

from __future__ import annotations

import contextlib
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from harness import Job, workload

from criu_train.store.zstd import open_zstd

StartJob = Callable[..., Job]

pytestmark = [pytest.mark.criu, pytest.mark.slow, pytest.mark.timeout(180)]

RUNTIME = Path("/run/criu-train")
# What holds memory and files of the training is made to hold its secrets too.
HOLDERS = ("images", "packs", "files", "held", ".spill", "checkpoint.tar")


def training(place: Path) -> list[str]:
    return workload("plain.py", "--steps", 3000, "--delay", 0.02, "--child", "--listen", "--control", str(place))


def holders_of(secret: bytes, *tops: Path) -> list[str]:
    """Files that hold the secret or have it in their names, but for images and what else is there to hold it."""
    found = []
    for path in (path for top in tops for path in sorted(top.rglob("*"))):
        if path.is_file() and not path.is_symlink() and not set(path.parts) & set(HOLDERS):
            opened = open_zstd(path, "rb") if path.suffix == ".zst" else path.open("rb")
            with opened as file:
                if secret in file.read() or secret in bytes(path):
                    found.append(str(path))
    return found


@contextlib.contextmanager
def titles_watched(secret: bytes) -> Iterator[list[str]]:
    """The command lines with the secret in them of all processes that there are meanwhile."""
    found: list[str] = []
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.005):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    if secret in (line := path.read_bytes()):
                        found.append(line.decode(errors="replace"))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield found
    finally:
        done.set()
        looking.join()


def everything_that_can_happen(job: Job, look: Callable[[], None]) -> list[str]:
    """Dumps that work and one that fails, restores that work and one that fails, and every command; what was said."""
    said = []

    def call(*arguments: str, code: int = 0) -> None:
        told = job.tell(*arguments)
        assert told.code == code, told.text
        said.append(told.text)

    job.wait_for_step(5)
    wish = job.place / "undumpable"
    wish.touch()
    job.wait_for_progress(3)
    call("dump", code=125)
    assert list(job.store.glob("snapshots/*/dump.log")), "the failed dump left no log to look into"
    look()
    wish.unlink()
    job.wait_for_progress(3)
    first = job.dump()
    job.wait_for_progress(3)
    root = psutil.Process(job.wait_for_pid("root_pid"))
    port = next(c.laddr.port for c in root.net_connections("tcp") if c.status == psutil.CONN_LISTEN)
    call("doctor", "--pid", str(root.pid))
    call("doctor", "--json", "--pid", str(root.pid))
    job.kill_everything()
    with socket.create_server(("127.0.0.1", port)):
        job.start("--on-restore-failure", "fail")
        assert job.wait() == 125
    assert list(job.store.glob("restore-*.log")), "the failed restore left no log to look into"
    look()
    job.start()
    job.wait_for_restore()
    second = job.dump()
    call("status", "--json")
    call("snapshot", "list")
    call("snapshot", "list", "--json")
    call("snapshot", "show", second)
    call("snapshot", "show", "--json", second)
    call("snapshot", "diff", first, second)
    call("snapshot", "diff", "--json", first, second)
    call("snapshot", "verify", "--deep", second)
    call("snapshot", "export", "--tar", second, str(job.place / "exported"))
    call("doctor", "--for", "1s", "--", *training(job.place / "nowhere"))
    look()
    return said


def test_a_secret_in_the_environment_is_in_no_log_manifest_message_or_process_title(
    start_job: StartJob, place: Path
) -> None:
    secret = uuid.uuid4().hex

    def look() -> None:
        assert holders_of(secret.encode(), job.store, job.place / "exported/criu-train", RUNTIME) == []

    with titles_watched(secret.encode()) as titles:
        job = start_job(training(place / "job"), "--every", "1h", "--prove", "newest", env={"SECRET_TOKEN": secret})
        said = everything_that_can_happen(job, look)
        environ = Path(f"/proc/{job.status()['root_pid']}/environ").read_bytes()
        assert secret.encode() in environ, "the training has lost its secret"
        job.close()
    look()
    assert titles == []
    assert [text for text in (*said, job.history()) if secret in text] == []


def test_a_secret_on_the_command_line_is_found_wherever_the_command_is_told(start_job: StartJob, place: Path) -> None:
    """As ps tells it to everybody; and so much for whether the test above would have found anything."""
    secret = uuid.uuid4().hex
    with titles_watched(secret.encode()) as titles:
        job = start_job(["sh", "-c", "while sleep 0.02; do echo . >> metrics.jsonl; done", secret], "--every", "1h")
        job.wait_for_step(5)
        snapshot = job.dump()
        found = holders_of(secret.encode(), job.store)
    assert titles
    assert {str(job.store / "store.json"), str(job.store / "snapshots" / snapshot / "manifest.json")} <= set(found)
