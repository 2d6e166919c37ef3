"""Containers without a container engine: an overlay over an image's layers, fresh namespaces, the rights of Docker."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

TEST_MARK = "LEFT_BY_TEST"
_PROGRAM = Path(__file__).with_name("container_init.py")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_BITS = {  # linux/capability.h
    **{"CHOWN": 0, "DAC_OVERRIDE": 1, "DAC_READ_SEARCH": 2, "FOWNER": 3, "FSETID": 4, "KILL": 5, "SETGID": 6},
    **{"SETUID": 7, "SETPCAP": 8, "LINUX_IMMUTABLE": 9, "NET_BIND_SERVICE": 10, "NET_ADMIN": 12, "NET_RAW": 13},
    **{"IPC_OWNER": 15, "SYS_CHROOT": 18, "SYS_PTRACE": 19, "SYS_ADMIN": 21, "SYS_NICE": 23, "SYS_RESOURCE": 24},
    **{"SYS_TIME": 25, "MKNOD": 27, "AUDIT_WRITE": 29, "SETFCAP": 31, "CHECKPOINT_RESTORE": 40},
}
_DOCKERS = frozenset(
    [
        *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "NET_RAW"),
        *("SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
    ]
)


@dataclass(frozen=True)
class Rights:
    """What a container may: ``capabilities`` (None: all there are), an unmasked /proc and /sys, no seccomp filter."""

    capabilities: frozenset[str] | None = None
    unmasked: bool = True
    seccomp: bool = False

    def with_capabilities(self, *names: str) -> Rights:
        """``--cap-add``."""
        return Rights((self.capabilities or frozenset()) | set(names), self.unmasked, self.seccomp)

    def numbers(self) -> list[int] | None:
        return None if self.capabilities is None else sorted(_BITS[name] for name in self.capabilities)


PRIVILEGED = Rights()
DEFAULT = Rights(capabilities=_DOCKERS, unmasked=False, seccomp=True)
UNCONFINED = Rights(capabilities=_DOCKERS, unmasked=False, seccomp=False)


@dataclass(frozen=True)
class Image:
    """Layers, the topmost first, and what a container of it executes by default."""

    layers: tuple[Path, ...]
    environment: Mapping[str, str] = field(default_factory=lambda: {"PATH": _PATH})
    workdir: str = "/"
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bind:
    """A host's file or directory seen in the container."""

    source: Path
    target: str
    options: str = ""


class Container:
    """One container: created once, started any number of times, removed by ``close``.

    ``upper`` is its own writable layer (a directory in ``scratch`` when not given), which survives a stop as it does
    with Docker.
    """

    def __init__(
        self,
        image: Image,
        scratch: Path,
        *,
        rights: Rights = PRIVILEGED,
        binds: Sequence[Bind] = (),
        own_network: bool = True,
        upper: Path | None = None,
        workdir: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._place = Path(tempfile.mkdtemp(prefix="container-", dir=scratch))
        self.upper = upper or self._place / "upper"
        for name in ("upper", "overlay", "root", "points"):
            (self._place / name).mkdir()
        self._image = image
        self._rights = rights
        self._binds = (*binds, Bind(Path("/sys/fs/cgroup"), "/sys/fs/cgroup", "" if rights.unmasked else "ro"))
        self._own_network = own_network
        self._cwd = workdir or image.workdir
        self._environment = dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None
        self.log = self._place / "log"

    # -- a container's life --------------------------------------------------------------------------------------

    def start(self, *arguments: str, entrypoint: Sequence[str] | None = None) -> Container:
        """``docker run``, and ``docker start`` when it ran before. Everything it says goes to ``log``."""
        assert self._process is None or self._process.poll() is not None, "the container runs already"
        chosen = self._image.entrypoint if entrypoint is None else tuple(entrypoint)
        argv = [*chosen, *(arguments or (() if entrypoint else self._image.command))]
        # The container dies with us, whatever ends us.
        wrap = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--uts", "--ipc", "--fork"]
        wrap += ["--kill-child", *(["--net"] if self._own_network else [])]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [*wrap, sys.executable, "-I", str(_PROGRAM), json.dumps(self._spec(argv))],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return self

    def wait(self, limit_s: float = 60.0) -> int:
        """The exit code; 137 after a SIGKILL, as Docker tells it."""
        assert self._process is not None
        try:
            code = self._process.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the container did not end within {limit_s:g} s:\n{self.said()}") from None
        return code if code >= 0 else 128 - code

    def run(self, *arguments: str, entrypoint: Sequence[str] | None = None, limit_s: float = 60.0) -> tuple[int, str]:
        """Start, wait, and return exit code and output."""
        code = self.start(*arguments, entrypoint=entrypoint).wait(limit_s)
        return code, self.said()

    def kill(self) -> None:
        """``docker kill``: SIGKILL for PID 1, which takes everything with it."""
        self.signal(signal.SIGKILL)
        self.wait(20)

    def stop(self, limit_s: float = 60.0) -> int:
        """``docker stop``: SIGTERM for PID 1; returns the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait(limit_s)

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid1, number)

    def close(self) -> None:
        """``docker rm --force``."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._place)

    # -- looking into it -----------------------------------------------------------------------------------------

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    @property
    def pid1(self) -> int:
        """The host's number of the container's PID 1."""
        assert self._process is not None
        return psutil.Process(self._process.pid).children()[0].pid

    def execute(self, *argv: str, limit_s: float = 60.0) -> tuple[int, str]:
        """``docker exec``: exit code and output of another program in the running container."""
        enter = ["nsenter", "--target", str(self.pid1), "--mount", "--pid", "--uts", "--ipc", "--net", "--root"]
        inside = ["/usr/bin/env", "-C", self._cwd, *argv]
        done = subprocess.run(
            [*enter, "--", *inside],
            env=self._variables(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def zombies(self) -> list[str]:
        """Names of ended processes in the container that nobody has reaped."""
        names = []
        for process in psutil.Process(self.pid1).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if process.status() == psutil.STATUS_ZOMBIE:
                    names.append(process.name())
        return names

    def wait_until_executed(self, limit_s: float = 20.0) -> None:
        """Until PID 1 is the container's command and not our own program any more."""
        end = time.monotonic() + limit_s
        while time.monotonic() < end and not self.ended():
            with contextlib.suppress(psutil.Error, IndexError):
                if str(_PROGRAM) not in psutil.Process(self.pid1).cmdline():
                    return
            time.sleep(0.02)
        raise AssertionError(f"the container did not come up:\n{self.said()}")

    # -- how it is made ------------------------------------------------------------------------------------------

    def _variables(self) -> dict[str, str]:
        mark = {TEST_MARK: os.environ[TEST_MARK]} if TEST_MARK in os.environ else {}
        return {"HOME": "/root", **self._image.environment, **self._environment, **mark}

    def _spec(self, argv: Sequence[str]) -> dict[str, object]:
        points = self._place / "points"
        for bind in self._binds:
            _mount_point(points / bind.target.lstrip("/"), bind.source)
        return {
            # Places to mount on lie in a layer below all others, so that none is left in the container's own.
            "lower": [str(layer) for layer in (*self._image.layers, points)],
            "upper": str(self.upper),
            "overlay_work": str(self._place / "overlay"),
            "root": str(self._place / "root"),
            "unmasked": self._rights.unmasked,
            "capabilities": self._rights.numbers(),
            "seccomp": self._rights.seccomp,
            "own_network": self._own_network,
            "hostname": self._place.name.replace("_", "-"),  # another one in each container, as Docker does it
            "binds": [(str(bind.source), bind.target, bind.options) for bind in self._binds],
            "cwd": self._cwd,
            "environment": self._variables(),
            "argv": list(argv),
        }


def _mount_point(place: Path, source: Path) -> None:
    if source.is_dir():
        place.mkdir(parents=True, exist_ok=True)
    else:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
