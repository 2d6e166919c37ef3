"""Trying a training out: it runs for a while as ``run`` would start it, is looked at, and is killed.

It lives in a cell, with the same filter, streams and namespaces as in a run; journal and output lie in a directory that
is removed afterwards. What it does to files elsewhere it really does.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from criu_train.cell.cell import Cell
from criu_train.cell.records import CellSpec, Ended
from criu_train.doctor import privileges
from criu_train.doctor.preflight import Finding, Preflight, preflight
from criu_train.errors import EnvironmentUnfitError
from criu_train.units import format_duration

_FIRST_PID = 1000
# One that ends early is known by what was seen of it last.
_BETWEEN_LOOKS_S = 1.0
_FIRST_LOOK_S = 0.2


def preflight_of_command(command: Sequence[str], seconds: float, umask: int) -> Preflight:
    """Run it for so long, or until it ends. Raises CommandNotRunnableError, EnvironmentUnfitError."""
    privileges.require()
    with tempfile.TemporaryDirectory(prefix="criu-train-doctor-", ignore_cleanup_errors=True) as name:
        try:
            return asyncio.run(_try_out(command, seconds, umask, Path(name)))
        except asyncio.CancelledError:
            raise SystemExit(128 + signal.SIGTERM) from None


async def _try_out(command: Sequence[str], seconds: float, umask: int, scratch: Path) -> Preflight:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    output = scratch / "output.log"
    with (scratch / "lock").open("w") as lock:
        cell = await Cell.start(_cell_in(scratch, lock.fileno()))
    with _leash(cell.init_pid):
        try:
            began = time.monotonic()
            await cell.launch(command, output=output, first_pid=_FIRST_PID, umask=umask)
            seen = await _watch(cell, seconds)
            if seen is not None and not cell.ended.done():
                return seen
            return _ended_early(seen, await cell.ended, time.monotonic() - began, output)
        finally:
            await cell.kill()


async def _watch(cell: Cell, seconds: float) -> Preflight | None:
    """What was seen last; None when there was no time to look."""
    until, pause_s = time.monotonic() + seconds, min(_FIRST_LOOK_S, seconds)
    seen = None
    while not cell.ended.done():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(cell.ended), max(0.0, min(pause_s, until - time.monotonic())))
        pause_s = _BETWEEN_LOOKS_S
        found = await asyncio.to_thread(preflight, [cell.root_pid])
        seen = found if found.tasks else seen
        if time.monotonic() >= until:
            break
    return seen


def _ended_early(seen: Preflight | None, ended: Ended, after_s: float, output: Path) -> Preflight:
    said = _last_line(output)
    if seen is None:
        raise EnvironmentUnfitError(
            f"the command ended with exit code {ended.exit_code} before it could be looked at",
            tip=f"its last line was: {said}" if said else "it printed nothing; does it work without criu-train?",
        )
    told = Finding(
        "fine" if ended.code == 0 else "warns",
        f"the command ended by itself after {format_duration(after_s)}, with exit code {ended.exit_code}",
        f"its last line was: {said}" if said else "it printed nothing",
        "" if ended.code == 0 else "see that it works; this is what was seen of it last",
    )
    return replace(seen, findings=(*seen.findings, told))


def _cell_in(scratch: Path, lock: int) -> CellSpec:
    return CellSpec(
        door=scratch / "door",
        lock_fd=lock,
        cell_file=scratch / "cell.json",
        journal=scratch / "journal.jsonl",
        roots=(),
        exclude=(str(scratch),),
        include=(),
        facts={},
        log=scratch / "init.log",
    )


@contextlib.contextmanager
def _leash(init: int) -> Iterator[None]:
    """If we are killed meanwhile, the cell is not to live on, as that of a run would."""
    argv = ["sh", "-c", 'read -r _ || kill -KILL "$1"', "sh", str(init)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, start_new_session=True) as holder:
        try:
            yield
        finally:
            assert holder.stdin is not None
            holder.stdin.write(b"done\n")
            holder.stdin.flush()


def _last_line(output: Path) -> str:
    with contextlib.suppress(OSError, IndexError):
        return output.read_text(errors="replace").strip().splitlines()[-1].strip()
    return ""
