"""The probe: a real dump and a real restore of a small tree, because ``criu check`` proves nothing.

Everything happens in two short-lived cells in a scratch directory; nothing of it outlives the call.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from criu_train.criu.command import dump_command, restore_command
from criu_train.criu.cure import cure
from criu_train.criu.explain import explain
from criu_train.criu.find import Criu
from criu_train.criu.verdicts import NetworkLock, Verdict
from criu_train.doctor import privileges, probe_cell
from criu_train.doctor.probe_cell import ROOT_PID, Stage
from criu_train.errors import EnvironmentUnfitError
from criu_train.units import utc_now_iso

CELL_LIMIT_S = 45.0
_GHOST_LIMIT = 1 << 20
_LOCKS: tuple[NetworkLock, ...] = ("nftables", "iptables")

_MEANING = {
    Stage.START: "the tree to dump did not start",
    Stage.DUMP: "the dump failed",
    Stage.RUN_ON: "the dumped tree did not run on",
    Stage.RESTORE: "the restore failed",
    Stage.GO_ON: "the restored tree did not go on",
}


@dataclass(frozen=True)
class _Failure:
    """Where it stopped and why; ``log`` is CRIU's."""

    stage: str
    why: str
    log: str = ""

    @property
    def concerns_network_lock(self) -> bool:
        return "ocking network failed" in self.log or "ocking connection failed" in self.log or "nft" in self.why


def probe(criu: Criu) -> Verdict:
    """Dump a tree with threads, a child, a TCP connection, semaphores and a growing log, kill it, restore it.

    Takes a second or two, 90 at most. Raises EnvironmentUnfitError when the probe itself can't be run here.
    """
    privileges.require()  # what they lack is no verdict on a CRIU
    started = time.monotonic()
    failure: _Failure | None = None
    for lock in _LOCKS:
        failure = _try(replace(criu, network_lock=lock))
        if failure is None:
            detail = f"dumped and restored a tree with a TCP connection in {time.monotonic() - started:.1f} s"
            return _verdict(criu, lock, detail, passed=True)
        if not failure.concerns_network_lock:
            break
    assert failure is not None
    return _verdict(criu, "nftables", f"{failure.stage}: {failure.why}", passed=False)


def _verdict(criu: Criu, lock: NetworkLock, detail: str, *, passed: bool) -> Verdict:
    return Verdict(passed=passed, detail=detail, version=criu.version, network_lock=lock, probed_at=utc_now_iso())


def _try(criu: Criu) -> _Failure | None:
    with tempfile.TemporaryDirectory(prefix="criu-train-probe-") as name:
        directory = Path(name)
        images, script = directory / "images", directory / "action"
        images.mkdir()
        script.write_text(f"#!/bin/sh\nexec {_python(probe_cell.__file__, str(directory))}\n", encoding="utf-8")
        script.chmod(0o700)
        dump_log, restore_log = directory / "dump.log", directory / "restore.log"
        dump = dump_command(
            criu,
            root_pid=ROOT_PID,
            images=images,
            log=dump_log,
            action_script=script,
            leave_running=True,
            ghost_limit=_GHOST_LIMIT,
        )
        restore = restore_command(criu, images=images, log=restore_log)
        try:
            return _cell("dump", directory, dump, dump_log) or _cell("restore", directory, restore, restore_log)
        finally:
            # A CRIU that fails in the middle may leave packet rules behind in the host's network namespace.
            cure([], log=_text(dump_log))


def _cell(mode: str, directory: Path, command: list[str], log: Path) -> _Failure | None:
    """One cell from its start to its end; None when all went well."""
    argv = ["unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc"]
    argv += [sys.executable, "-I", probe_cell.__file__, mode, str(directory), *command]
    try:
        ended = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=CELL_LIMIT_S, check=False
        )
    except FileNotFoundError as error:
        raise EnvironmentUnfitError("the program unshare is missing", tip="install util-linux") from error
    except subprocess.TimeoutExpired:
        return _Failure(f"the {mode} failed", "it did not end in time", _text(log))
    if ended.returncode == Stage.ALL:
        return None
    text = _text(log)
    if ended.returncode not in _MEANING:
        last = (ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"])[-1]
        return _Failure("the probe's cell could not be made", last, text)
    why = explain(text, None).what if text else (ended.stderr.strip().splitlines() or ["CRIU logged nothing"])[-1]
    return _Failure(_MEANING[Stage(ended.returncode)], why, text)


def _python(*arguments: str) -> str:
    return shlex.join([sys.executable, "-I", *arguments])


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
