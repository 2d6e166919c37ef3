"""The archive's own process: it takes captures in, packs them, and hands images out.

One thread hears the supervisor; what was asked for is done in order by another, so that a word to hurry or to stop is
heard at once. It never outlives the supervisor.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from criu_train.archive.damage import DamagedError
from criu_train.archive.jobs import Jobs
from criu_train.cell.wire import Wire
from criu_train.errors import CriuTrainError
from criu_train.store.seal import Seal, seal_of

_PR_SET_PDEATHSIG = 1
# Better us than the training when memory runs out; the most there is, since the training holds more memory than we do.
_OOM_SCORE = 1000
# Several threads are at the pipes while the tree stands still; the default lets one keep the others waiting for 5 ms.
_SWITCH_S = 0.0005


class Worker:
    """Answers carry the number that the question named in ``answer``; each is ``ok``, or tells a problem."""

    def __init__(self, wire: Wire, jobs: Jobs) -> None:
        self._wire = wire
        self._jobs = jobs
        self._doing = ThreadPoolExecutor(1)
        self._handlers: dict[str, Callable[..., dict[str, Any] | None]] = {
            "prepare": jobs.prepare,
            "listen": jobs.listen,
            "captured": jobs.captured,
            "pack": jobs.pack,
            "drop": jobs.drop,
            "check": jobs.check,
            "serve": jobs.serve,
            "served": jobs.served,
            "end_serving": jobs.end_serving,
        }

    def run(self) -> None:
        """Until the supervisor is gone."""
        while (message := self._wire.receive()) is not None:
            kind, answer = message.pop("kind"), message.pop("answer", "")
            if kind == "hear":
                with contextlib.suppress(OSError):
                    self._wire.send(answer)
                continue
            if kind == "hurry":
                self._jobs.hurry(**message)
                continue
            if kind == "drop":
                self._jobs.interrupt()
            self._doing.submit(self._do, self._handlers[kind], message, answer)

    def _do(self, handler: Callable[..., dict[str, Any] | None], fields: dict[str, Any], answer: str) -> None:
        try:
            reply = {"ok": True, **(handler(**fields) or {})}
        except Exception as error:  # the supervisor waits: it has to be told, whatever it is
            reply = {"ok": False, **_told(error)}
        with contextlib.suppress(OSError):
            self._wire.send(answer, **reply)


def main(descriptor: int) -> None:
    """The other end of the supervisor's channel."""
    _settle()
    wire = Wire(socket.socket(fileno=descriptor))
    limit, seal = _settings(wire)
    jobs = Jobs(limit, lambda message: wire.send("problem", message=message), seal)
    wire.send("ready")
    Worker(wire, jobs).run()
    os._exit(0)  # whatever any thread is doing


def _settings(wire: Wire) -> tuple[int | None, Seal]:
    """The first message says how much memory captures may take, and how the store is protected."""
    first = wire.receive()
    if first is None:
        os._exit(0)
    return first["memory_limit"], seal_of(first["secret"])


def _settle() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError, ValueError):
        path = Path("/proc/self/oom_score_adj")
        path.write_text(str(_OOM_SCORE))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # it would hold the training's memory
    sys.setswitchinterval(_SWITCH_S)


def _told(error: Exception) -> dict[str, str]:
    if isinstance(error, DamagedError):
        return {"problem": f"corrupt: {error}", "tip": error.tip}
    if isinstance(error, CriuTrainError):
        return {"problem": str(error), "tip": error.tip}
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return {"problem": "the disk is full", "tip": "free some space, or put the store elsewhere with --store"}
    if isinstance(error, OSError) and error.errno in (errno.EIO, errno.EROFS, errno.EDQUOT):
        return {"problem": f"the disk refuses: {error.strerror}", "tip": "check the disk that holds the store"}
    with contextlib.suppress(OSError):  # the disk that the log is on may be as full
        traceback.print_exception(error)
    return {
        "problem": str(error) or repr(error),
        "tip": f"please report it; {_log()} has the details while this run goes on",
    }


def _log() -> str:
    return os.readlink("/proc/self/fd/2")  # noqa: PTH115 (any text will do)
