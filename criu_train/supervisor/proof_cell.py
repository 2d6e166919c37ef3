"""PID 1 of a trial restore: makes a view of the file system of its own, restores into it, looks, and ends everything.

Runs in namespaces of its own (PID, mount, network, IPC, host name), so nothing of the living job is touched. Of what is
restored not one instruction is run: the tasks are left stopped. The kernel kills them all when this process ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from criu_train.archive.serve import Serving
from criu_train.archive.stored import StoredPages
from criu_train.cell import view
from criu_train.cell.launch import KEPT_FD, set_next_pid
from criu_train.criu.command import restore_command
from criu_train.criu.connections import FILES
from criu_train.criu.explain import explain
from criu_train.criu.find import Criu, find_criu
from criu_train.criu.images import Images
from criu_train.criu.resemblance import differences
from criu_train.errors import CriuTrainError
from criu_train.store.layout import StoreLayout
from criu_train.store.manifest import Manifest
from criu_train.store.seal import seal_of
from criu_train.store.snapshot import INDEX, Snapshot, read_snapshot
from criu_train.supervisor.hook_files import make_control
from criu_train.supervisor.lent_names import take_back
from criu_train.supervisor.reconnecting import reconnect_here
from criu_train.supervisor.restore_attempt import free_range
from criu_train.workspace.blobs import BlobReader
from criu_train.workspace.journal import Journals
from criu_train.workspace.listing import Listing, listing_of
from criu_train.workspace.place import settle_in
from criu_train.workspace.rollback import roll_back

_OOM_SCORE = 1000
_TRIES = 5
_SETTLE_S = 20.0


def main() -> None:
    """What is to be done comes as JSON on stdin; what is wrong with the snapshot goes to stdout, a list."""
    order = json.load(sys.stdin)
    # When memory runs out it is the trial that has to go; what it restores inherits this.
    Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE))
    os.dup2(0, KEPT_FD)  # nothing else is to be opened by this number
    answer = os.dup(1)
    os.dup2(2, 1)

    def tell(problems: Sequence[str]) -> None:
        os.write(answer, json.dumps(list(problems)).encode())
        os._exit(0)

    try:
        tell(prove(order, on_damage=lambda problem: tell([f"corrupt: {problem}"])))
    except CriuTrainError as error:
        tell([str(error)])


def prove(order: dict[str, Any], on_damage: Callable[[str], None]) -> Sequence[str]:
    """What is wrong. ``on_damage`` does not return: CRIU waits for bytes that will not come.

    ``order``: paths of the ``store``, the ``snapshot`` and an empty ``scratch`` directory; ``limit_s``; ``seal``, as
    ``told``."""
    criu = find_criu()
    view.bring_loopback_up()
    view.enter(Path(order["scratch"]))
    snapshot = read_snapshot(Path(order["snapshot"]), seal=seal_of(order["seal"]))
    manifest = snapshot.manifest
    if manifest is None:
        return [snapshot.reason or snapshot.status]
    here = Path(order["scratch"])  # in the view it is empty again
    layout = StoreLayout(Path(order["store"]))
    listing, renamed = settle_in(listing_of(snapshot), layout, rename=manifest.packed)
    journals = Journals.since(layout.journals, manifest.journal, manifest.journal_offset)
    _roll_back(listing, BlobReader(snapshot.files, snapshot.seal), journals, here)
    take_back(snapshot, listing, criu.pycriu)
    if manifest.hooks is not None:
        make_control(Path(manifest.hooks.directory))
    with ExitStack() as stack:
        images = snapshot.images
        if manifest.packed:
            images = here / "images"
            images.mkdir()
            replaced = reconnect_here(snapshot, criu.pycriu, "close-external", renamed).image
            if replaced is not None:
                (images / FILES).write_bytes(replaced)
            pages = stack.enter_context(
                closing(StoredPages.open(snapshot.path, manifest.files[INDEX].digest, snapshot.seal))
            )
            names = frozenset(p.removeprefix("images/") for p in manifest.files if p.startswith("images/"))
            serving = Serving(snapshot.images, pages, images, on_damage, names=names, seal=snapshot.seal)
            stack.enter_context(closing(serving))
        failure = _restore(criu, snapshot, manifest, images, log=here / "restore.log", limit_s=order["limit_s"])
        return failure or list(
            differences(Images(snapshot.images, criu.pycriu, snapshot.read_image), settle_s=_SETTLE_S)
        )


def _roll_back(listing: Listing, blobs: BlobReader, journals: Journals, here: Path) -> None:
    """Again where the living job, which makes and removes files below our view of them, was quicker."""
    for number in range(_TRIES - 1):
        with contextlib.suppress(OSError):
            roll_back(listing, blobs, journals, here / f"kept-{number}")
            return
    roll_back(listing, blobs, journals, here / "kept")


def _restore(
    criu: Criu, snapshot: Snapshot, manifest: Manifest, images: Path, *, log: Path, limit_s: float
) -> list[str]:
    terminal = (KEPT_FD, manifest.terminal) if manifest.terminal else None
    command = restore_command(criu, images=images, log=log, stream=manifest.packed, terminal=terminal)
    tasks = Images(snapshot.images, criu.pycriu, snapshot.read_image).tasks()
    set_next_pid(free_range(manifest.ns_last_pid + 1, {n for task in tasks for n in (task.pid, *task.threads)}))
    master, slave = pty.openpty()
    os.dup2(slave, KEPT_FD)
    try:
        ended = _wait([*command, "--leave-stopped"], limit_s)
    finally:
        os.close(master)
        os.close(slave)
    if ended == 0:
        return []
    explanation = explain(log.read_text(errors="replace") if log.exists() else "", ended or 1, timed_out=ended is None)
    return [explanation.what]


def _wait(argv: Sequence[str], limit_s: float) -> int | None:
    """Its exit code, None when it took too long."""
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, pass_fds=(KEPT_FD,)) as criu:
        try:
            return criu.wait(limit_s)
        except subprocess.TimeoutExpired:
            criu.kill()
            return None


if __name__ == "__main__":
    main()
