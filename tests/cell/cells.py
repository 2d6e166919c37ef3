"""Cells with real namespaces for tests: one that ends with its test, a training in it, a dump of that."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from criu_train.cell.cell import Cell
from criu_train.cell.records import CellSpec
from criu_train.criu.command import dump_command
from criu_train.criu.find import find_criu
from criu_train.supervisor.hook import prepare_hook

FIRST_PID = 7000
COUNT = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done"


@asynccontextmanager
async def cell_at(place: Path, *, complaint: str | None = None, **spec: Any) -> AsyncIterator[Cell]:
    """A cell with everything in ``place``; init must complain of ``complaint``, or of nothing at all."""
    lock = os.open(place / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    try:
        cell = await Cell.start(replace(spec_at(place, lock), **spec))
    except BaseException:
        os.close(lock)
        raise
    try:
        yield cell
    finally:
        await cell.kill()
        os.close(lock)
    said = (place / "init.log").read_text().splitlines()
    # util-linux says this when it passes on a SIGKILL that can't be unblocked.
    complaints = [line for line in said if not line.startswith("unshare: sigprocmask unblock failed")]
    if complaint is None:
        assert complaints == []
    else:
        assert complaint in "\n".join(complaints)


def spec_at(place: Path, lock: int) -> CellSpec:
    return CellSpec(
        lock_fd=lock,
        door=place / "door",
        cell_file=place / "cell.json",
        journal=place / "journal",
        roots=(str(place),),
        exclude=(),
        include=(),
        facts={"run": "r"},
        log=place / "init.log",
    )


async def launch(cell: Cell, place: Path, *argv: str) -> None:
    await cell.launch(argv, output=place / "output.log", first_pid=FIRST_PID)


async def grows(path: Path) -> bool:
    before = path.stat().st_size
    for _ in range(200):
        await asyncio.sleep(0.02)
        if path.stat().st_size > before:
            return True
    return False


def dump(place: Path, name: str, *, leave_running: bool = True) -> list[str]:
    (place / name).mkdir()
    return dump_command(
        find_criu(),
        root_pid=FIRST_PID,
        images=place / name,
        log=place / f"{name}.log",
        action_script=prepare_hook(place / ".hook"),
        leave_running=leave_running,
    )
