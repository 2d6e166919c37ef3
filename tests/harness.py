"""Drives a job through the command line as a user would, and destroys it as a power cut would.

Everything is seen from outside: exit codes, what ``status --json`` and ``snapshot list --json`` say, and the files
that the training leaves. Nothing here imports the product.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil

ROOT = Path(__file__).resolve().parent.parent
WORKLOADS = ROOT / "tests" / "workloads"
# Environment variables that every process of a test, and of one job in it, inherits: by them they are told apart.
TEST_MARK = "LEFT_BY_TEST"
JOB_MARK = "LEFT_BY_JOB"
PAUSE_S = 0.02
IGNORED = (".criu-train",)

T = TypeVar("T")


def criu_train(*arguments: str) -> list[str]:
    """The command line of criu-train, run by the interpreter that runs the tests."""
    return [sys.executable, "-m", "criu_train", *arguments]


def workload(name: str, *arguments: object) -> list[str]:
    """The command of a training in tests/workloads (or, with a path, elsewhere in the project)."""
    path = WORKLOADS / name if "/" not in name else ROOT / name
    return [sys.executable, str(path), *map(str, arguments)]


def torchrun(*arguments: object, script: str = "ddp.py") -> list[str]:
    """Two gloo ranks on the loopback interface."""
    launcher = "--nnodes 1 --nproc-per-node 2 --rdzv-backend c10d --rdzv-endpoint 127.0.0.1:0 --local-addr 127.0.0.1"
    call = [str(WORKLOADS / script), *map(str, arguments)]
    return [sys.executable, "-m", "torch.distributed.run", *launcher.split(), *call]


def environment(**more: str) -> dict[str, str]:
    """The environment of everything a test starts; the package is found also where it isn't installed."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("CRIU_TRAIN_STORE")}
    env |= {
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "PYTHONUNBUFFERED": "1",
        "CRIU_TRAIN_WARMUP": "0",
        **more,
    }
    try:
        importlib.metadata.distribution("criu-train")
    except importlib.metadata.PackageNotFoundError:
        env["PYTHONPATH"] = str(ROOT)
    return env


def until(condition: Callable[[], T], what: str, deadline_s: float = 30.0) -> T:
    """Wait for a condition to become true and return its value; AssertionError when it doesn't in time."""
    end = time.monotonic() + deadline_s
    while not (value := condition()):
        assert time.monotonic() < end, f"waited {deadline_s:g} s in vain for {what}"
        time.sleep(PAUSE_S)
    return value


@dataclass(frozen=True)
class Told:
    """What one call of the command line came to."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err

    def json(self) -> Any:
        return json.loads(self.out)


def tell(
    *arguments: str, cwd: Path, env: Mapping[str, str] | None = None, limit_s: float = 60.0, by: Sequence[str] = ()
) -> Told:
    """Run one command of criu-train to its end; ``by``: what starts it, say a program that takes privileges away."""
    done = subprocess.run(
        [*by, *criu_train(*arguments)],
        cwd=cwd,
        env=environment(**(env or {})),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=limit_s,
        check=False,
    )
    return Told(done.returncode, done.stdout, done.stderr)


class Job:
    """One training under criu-train in a directory of its own, ``work`` below ``place``."""

    def __init__(
        self,
        place: Path,
        command: Sequence[str],
        *options: str,
        store: Path | None = None,
        env: Mapping[str, str] | None = None,
        by: Sequence[str] = (),
    ) -> None:
        self.place = place
        self.by = list(by)  # what starts criu-train instead of us
        self.work = place / "work"
        self.work.mkdir(parents=True, exist_ok=True)
        self.command = list(command)
        self.options = list(options)
        self.store = store or self.work / ".criu-train"
        self.env = {**(env or {}), JOB_MARK: uuid.uuid4().hex}
        self.process: subprocess.Popen[bytes] | None = None
        self.starts = 0
        self._told_before: tuple[int, int] | None = None

    # -- starting and asking ------------------------------------------------------------------------------------

    def start(self, *options: str, arguments: Sequence[str] | None = None) -> Job:
        """Start ``run`` (or what ``arguments`` say) as its own session, its output in ``console-N.log``."""
        assert self.process is None or self.process.poll() is not None, "the job runs already"
        self.starts += 1
        self._told_before = self._told()
        call = arguments or ["run", *self.options, *options, "--", *self.command]
        with open(self.console, "wb") as console:
            self.process = subprocess.Popen(
                [*self.by, *criu_train("--store", str(self.store), *call)],
                cwd=self.work,
                env=environment(**self.env),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        return self

    @property
    def console(self) -> Path:
        return self.place / f"console-{self.starts}.log"

    def said(self) -> str:
        """What the supervisor of the last start printed, the training's own lines among it."""
        return self.console.read_text(errors="replace")

    def history(self) -> str:
        """What all supervisors of this job said of themselves, for the report of a failed test."""
        consoles = (self.place / f"console-{number}.log" for number in range(1, self.starts + 1))
        lines = [line for path in consoles for line in ["--", *path.read_text(errors="replace").splitlines()]]
        return "\n".join(line for line in lines if not line.startswith(("step ", "epoch ")))

    def tell(self, *arguments: str, limit_s: float = 60.0) -> Told:
        return tell("--store", str(self.store), *arguments, cwd=self.work, env=self.env, limit_s=limit_s)

    def status(self) -> dict[str, Any]:
        told = self.tell("status", "--json")
        assert told.code == 0, told.text
        return dict(told.json())

    def snapshots(self) -> list[dict[str, Any]]:
        told = self.tell("snapshot", "list", "--json")
        assert told.code == 0, told.text
        return list(told.json())

    def complete(self) -> list[dict[str, Any]]:
        return [snapshot for snapshot in self.snapshots() if snapshot["status"] == "complete"]

    def events(self) -> list[dict[str, Any]]:
        lines = (self.store / "events.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def supervisor(self) -> dict[str, Any]:
        """``supervisor.json``, or nothing while the last start's supervisor has not written it."""
        # By which file it is rather than by the PID in it: PIDs come again, and the clock may be set.
        if self._told() == self._told_before:
            return {}
        try:
            return dict(json.loads((self.store / "supervisor.json").read_text()))
        except (FileNotFoundError, json.JSONDecodeError):
            return {}

    def _told(self) -> tuple[int, int] | None:
        with contextlib.suppress(FileNotFoundError):
            status = (self.store / "supervisor.json").stat()
            return status.st_ino, status.st_mtime_ns
        return None

    def contents(self) -> dict[str, str]:
        """What the training left in its working directory (see ``contents``)."""
        return contents(self.work)

    def output(self) -> str:
        return (self.store / "output.log").read_text()

    # -- waiting on real signs ----------------------------------------------------------------------------------

    def steps(self, file: str = "metrics.jsonl") -> int:
        """How many steps the training has logged."""
        try:
            return (self.work / file).read_bytes().count(b"\n")
        except FileNotFoundError:
            return 0

    def newest(self) -> int:
        """Sequence number of the newest complete snapshot, 0 without one."""
        done = (path.parent.name for path in self.store.glob("snapshots/*/COMPLETE"))
        return max((int(name.rpartition("-")[2]) for name in done), default=0)

    def wait_for_step(self, number: int, file: str = "metrics.jsonl", deadline_s: float = 60.0) -> int:
        return self._until(lambda: self.steps(file) >= number and self.steps(file), f"step {number}", deadline_s)

    def wait_for_progress(self, steps: int = 3, file: str = "metrics.jsonl", deadline_s: float = 30.0) -> int:
        """Wait until the training has made so many more steps from now on."""
        return self.wait_for_step(self.steps(file) + steps, file, deadline_s)

    def wait_for_snapshot(self, after: int = 0, deadline_s: float = 60.0) -> dict[str, Any]:
        """Wait for a complete snapshot with a sequence number above ``after``; return it as listed."""
        with self._ambling():
            number = self._until(
                lambda: self.newest() > after and self.newest(), f"a snapshot after number {after}", deadline_s
            )
        return next(s for s in self.snapshots() if s["id"].endswith(f"-{number:06d}"))

    def wait_for_state(self, state: str, deadline_s: float = 60.0) -> dict[str, Any]:
        self._until(lambda: self.supervisor().get("state") == state, f"state {state!r}", deadline_s)
        return self.supervisor()

    def wait_for_restore(self, deadline_s: float = 60.0) -> dict[str, Any]:
        """Wait until the job runs again, and make sure that it came from a snapshot."""
        self.wait_for_state("running", deadline_s)
        status = self.status()
        assert status["restored_from"], f"a cold start instead of a restore:\n{self.history()}"
        return status

    def wait(self, deadline_s: float = 90.0) -> int:
        """The exit code of criu-train; 128+n when signal n killed it."""
        assert self.process is not None
        try:
            code = self.process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"criu-train did not end within {deadline_s:g} s:\n{self.history()}") from None
        return code if code >= 0 else 128 - code

    def finish(self, deadline_s: float = 90.0) -> int:
        """Let the training come to its end without a rest; the exit code of criu-train."""
        (self.place / "hurry").touch()
        try:
            return self.wait(deadline_s)
        finally:
            (self.place / "hurry").unlink()

    @contextlib.contextmanager
    def _ambling(self) -> Iterator[None]:
        """On a busy machine it takes long to pack a snapshot: meanwhile the training is not to come to its end."""
        amble = self.place / "amble"
        amble.touch()
        try:
            yield
        finally:
            amble.unlink()

    def _until(self, condition: Callable[[], T], what: str, deadline_s: float) -> T:
        def holds() -> T:
            value = condition()
            if not value and self.process is not None and self.process.poll() is not None:
                value = condition()  # it may have become true in its last moment
                assert value, f"criu-train ended with exit code {self.process.returncode}"
            return value

        try:
            return until(holds, what, deadline_s)
        except AssertionError as error:
            raise AssertionError(f"waiting for {what}: {error}\n{self.history()}") from None

    # -- triggers and disasters ---------------------------------------------------------------------------------

    def send(self, number: signal.Signals) -> None:
        """A signal to the supervisor, at the PID it names itself."""
        os.kill(self.wait_for_pid("supervisor_pid"), number)

    def wait_for_pid(self, name: str) -> int:
        return int(self._until(lambda: self.supervisor().get(name) or 0, name, 30.0))

    def dump(self) -> str:
        """``criu-train dump``; returns the id it prints."""
        with self._ambling():
            told = self.tell("dump", limit_s=120.0)
        assert told.code == 0, told.text + self.history()
        return told.out.split()[-1]

    def criu(self) -> psutil.Process:
        """The CRIU that runs right now in the cell, as soon as there is one."""
        init = psutil.Process(self.wait_for_pid("init_pid"))

        def found() -> psutil.Process | None:
            for child in descendants(init):
                with contextlib.suppress(psutil.Error):
                    if "dump" in child.cmdline() and any(word.endswith("/criu") for word in child.cmdline()):
                        return child
            return None

        process = self._until(found, "a CRIU that dumps", 30.0)
        assert process is not None
        return process

    def kill_supervisor(self) -> None:
        """The supervisor alone; the cell and the training stay."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None

    def kill_everything(self) -> None:
        """What a power cut does to processes: all of them gone at once, nothing runs any more.

        The supervisor and init go first, so that neither can tell afterwards how the others ended.
        """
        first = {self.process.pid if self.process else 0, self.supervisor().get("init_pid")}
        while everyone := marked(f"{JOB_MARK}={self.env[JOB_MARK]}"):
            for process in sorted(everyone, key=lambda process: process.pid not in first):
                with contextlib.suppress(psutil.Error):
                    process.kill()
            time.sleep(PAUSE_S)
        if self.process is not None:
            self.process.wait()

    def close(self) -> None:
        """End the job as an impatient user: Ctrl-C twice."""
        if self.process is None or self.process.poll() is not None:
            return
        for _ in range(2):
            self.process.send_signal(signal.SIGINT)
            time.sleep(0.2)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)


# -- what is left behind ----------------------------------------------------------------------------------------


def descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.Error:
        return []


def marked(mark: str) -> list[psutil.Process]:
    """Every living process that inherited this mark (``NAME=value``), and all that descend from such a one."""
    wanted = mark.encode()
    found: dict[int, psutil.Process] = {}
    for directory in Path("/proc").iterdir():
        if not directory.name.isdigit() or int(directory.name) == os.getpid():
            continue
        with contextlib.suppress(OSError, psutil.Error):
            if wanted in (directory / "environ").read_bytes().split(b"\0"):
                process = psutil.Process(int(directory.name))
                found |= {one.pid: one for one in (process, *descendants(process))}
    return [process for process in found.values() if not is_gone(process)]


def is_gone(process: psutil.Process) -> bool:
    try:
        return process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.Error:
        return True


def mounts() -> set[str]:
    """Mount points of this mount namespace with what is mounted there."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return {" ".join((fields := line.split())[4:5] + fields[-3:-1]) for line in lines}


def link_remaps() -> set[str]:
    """Files that CRIU makes for a while when it dumps or restores, and that only it can tell from others."""
    return {str(path) for name in ("link_remap.*", "*.ghost") for path in Path("/dev/shm").glob(name)}


# -- what a training leaves -------------------------------------------------------------------------------------


def contents(directory: Path, ignored: Iterable[str] = IGNORED) -> dict[str, str]:
    """Every path below a directory with what is there: bytes of files, targets of links, rows of databases."""
    return dict(_contents(directory, directory, frozenset(ignored)))


def _contents(directory: Path, top: Path, ignored: frozenset[str]) -> Iterator[tuple[str, str]]:
    for path in sorted(directory.iterdir()):
        name = str(path.relative_to(top))
        if name in ignored or name.endswith((".sqlite-wal", ".sqlite-shm")):
            continue
        if path.is_symlink():
            yield name, f"-> {path.readlink()}"
        elif path.is_dir():
            yield name, "directory"
            yield from _contents(path, top, ignored)
        elif path.suffix == ".sqlite":
            yield name, rows(path)
        else:
            data = path.read_bytes()
            yield name, f"{len(data)} bytes, {data.count(10)} lines, sha256 {hashlib.sha256(data).hexdigest()}"


def rows(database: Path) -> str:
    """All rows of all tables, and that the database is sound."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return "\n".join(connection.iterdump())


@dataclass(frozen=True)
class Undisturbed:
    """What a command leaves when nothing happens to it."""

    contents: dict[str, str]
    output: str
    seconds: float


def run_undisturbed(place: Path, command: Sequence[str]) -> Undisturbed:
    """Run a command by itself, as if criu-train did not exist."""
    work, output = place / "work", place / "output.log"
    work.mkdir(parents=True)
    (place / "hurry").touch()  # what it leaves does not depend on its rests
    begin = time.monotonic()
    with open(output, "ab") as file:
        subprocess.run(
            list(command),
            cwd=work,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            timeout=180,
            check=True,
        )
    return Undisturbed(contents(work), output.read_text(), time.monotonic() - begin)
