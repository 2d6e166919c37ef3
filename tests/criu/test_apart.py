"""Trees that look as if they could be dumped, and could not be restored."""

from __future__ import annotations

from pathlib import Path

import pytest
from programs import NESTED
from provoked import PRELUDE, READY
from trial import cell, python, until

from criu_train.criu.apart import refuse_tasks_apart
from criu_train.errors import DumpFailedError

pytestmark = pytest.mark.criu


@pytest.mark.parametrize(("kind", "flag"), [("mount", 0x20000), ("network", 0x40000000)])
def test_a_child_in_a_namespace_of_its_own_is_refused(place: Path, kind: str, flag: int) -> None:
    with cell("run", *python(PRELUDE + NESTED + READY, str(place), str(flag))) as tree:
        until((place / "ready").exists)
        with pytest.raises(DumpFailedError, match=f"process {tree.pids[1]} .* a {kind} namespace of its own"):
            refuse_tasks_apart(tree.pids)


def test_a_tree_in_one_set_of_namespaces_is_not(place: Path) -> None:
    code = "child = os.fork() or os.fork()\nif child == 0: time.sleep(60)\n"
    with cell("run", *python(PRELUDE + code + READY, str(place))) as tree:
        until((place / "ready").exists)
        refuse_tasks_apart([*tree.pids, 1 << 22])  # one that has just ended is passed over


def test_a_root_task_that_took_its_whole_tree_along_is_not(place: Path) -> None:
    code = "must(libc.unshare(0x40000000))\nif os.fork() == 0: time.sleep(60)\n"
    with cell("run", *python(PRELUDE + code + READY, str(place))) as tree:
        until((place / "ready").exists)
        refuse_tasks_apart(tree.pids)
    refuse_tasks_apart([])
