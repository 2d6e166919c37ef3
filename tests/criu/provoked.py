"""Making dumps and restores fail for real, and what each log must be told as.

With ``CRIU_TRAIN_KEEP_LOGS=1`` the lines of each log that matter are kept under ``logs/``, for the tests without CRIU.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from trial import LIMIT_S, ROOT_PID, Cell, cell, python, script, until

from criu_train.criu.command import dump_command, restore_command
from criu_train.criu.cure import cure
from criu_train.criu.explain import find_failure
from criu_train.criu.find import Criu

LOGS = Path(__file__).with_name("logs")
READY = "\nimport os, sys, time; open(sys.argv[1] + '/ready', 'w').close(); time.sleep(60)"
PRELUDE = """
import ctypes, errno, os, socket, sys, time
here = sys.argv[1]; libc = ctypes.CDLL(None, use_errno=True)
def must(result):
    if result < 0: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
def tell(kind, error, trace):
    open(here + "/failed", "w").write(repr(error))
sys.excepthook = tell
"""


@dataclass(frozen=True)
class Place:
    """``prefix``: what CRIU is started through."""

    path: Path
    criu: Criu
    prefix: tuple[str, ...] = ()

    @property
    def images(self) -> Path:
        return self.path / "images"

    @property
    def log(self) -> str:
        return _text(self.path / "criu.log")

    @property
    def said(self) -> str:
        """What CRIU said when it had no log yet."""
        return _text(self.path / "said")

    def through(self, *prefix: str) -> Place:
        return replace(self, prefix=prefix)

    def dump(self, code: str, *words: str, kill: bool = False, **settings: object) -> int:
        """Dump a tree that runs this code, and end it; the code that CRIU ended with."""
        with cell("run", *python(PRELUDE + code + READY, str(self.path), *words)) as tree:
            until(lambda: (self.path / "ready").exists() or (self.path / "failed").exists())
            if not (self.path / "ready").exists():
                pytest.fail(f"what CRIU is to fail on can't be made on this machine: {_text(self.path / 'failed')}")
            code_of_criu = self.dump_of(tree, leave_running=not kill, **settings)
        cure([], log=self.log)
        return code_of_criu

    def dump_of(
        self,
        tree: Cell,
        *,
        leave_running: bool = True,
        ghost_limit: int = 1 << 30,
        freeze_limit_s: int = 5,
        action: str = "",
        stream: bool = False,
    ) -> int:
        self.images.mkdir(exist_ok=True)
        command = dump_command(
            self.criu,
            root_pid=ROOT_PID,
            images=self.images,
            log=self.path / "criu.log",
            action_script=script(self.path / "action", action) if action else None,
            leave_running=leave_running,
            ghost_limit=ghost_limit,
            freeze_limit_s=freeze_limit_s,
            stream=stream,
        )
        with (self.path / "said").open("wb") as said:
            enter = ["nsenter", "-t", str(tree.init.pid), "-p", "-m", *self.prefix, *command]
            return subprocess.run(
                enter, timeout=LIMIT_S, check=False, stdin=subprocess.DEVNULL, stdout=said, stderr=said
            ).returncode

    def restore(self, *, before: str = "", limit_s: float = 20, stream: bool = False) -> str:
        """A restore that fails, in a cell in which a shell ran ``before``; its log."""
        log = self.path / "restore.log"
        command = restore_command(self.criu, images=self.images, log=log, stream=stream)
        shell = ["sh", "-c", f'{before or ":"}\nexec "$@"', "sh"]
        with cell("restore", *shell, *self.prefix, *command) as made:
            made.init.wait(limit_s)
        return _text(log)


def told(log: str, name: str) -> str:
    """This row of the table explains this log; what it says."""
    if os.environ.get("CRIU_TRAIN_KEEP_LOGS"):
        keep(log, name)
    found = find_failure(log)
    assert found is not None, errors(log)
    failure, what = found.failure, found.what
    assert failure.name == name, errors(log)
    assert "{" not in what
    return what


def errors(log: str) -> str:
    return "\n".join(line for line in log.splitlines() if "Error (" in line)


def keep(log: str, name: str) -> None:
    """The errors and warnings of a log, and the line before each, without what differs from run to run."""
    lines = log.splitlines()
    wanted = {n for at, line in enumerate(lines) if re.search("(?:Error|Warn) ", line) for n in (at - 1, at) if n >= 0}
    text = "\n".join(lines[n] for n in sorted(wanted)) + "\n"
    text = re.sub(r"/var/tmp/criu-train-test-\w+", "/home/user/training", text)
    (LOGS / f"{name}.log").write_text(re.sub(r"var/tmp/criu-train-test-\w+", "home/user/training", text))


def seize(pid: int) -> list[str]:
    """A tracer of this task, as a debugger is one."""
    code = "import ctypes, sys, time; print(ctypes.CDLL(None).ptrace(0x4206, int(sys.argv[1]), 0, 0), flush=True)"
    return [sys.executable, "-I", "-c", code + "; time.sleep(60)", str(pid)]


def without(*capabilities: str) -> Sequence[str]:
    """Start a program without these rights."""
    return ["setpriv", "--bounding-set", ",".join(f"-{capability}" for capability in capabilities)]


def _text(log: Path) -> str:
    return log.read_text(errors="replace") if log.exists() else ""
