"""Rules about the tasks themselves: namespaces, sessions, tracers, what can't be stopped, who left the tree."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from criu_train.cell import processes
from criu_train.doctor import privileges
from criu_train.doctor.preflight_notice import Notice, blocks, fine
from criu_train.doctor.preflight_tree import Task, Tree, read_link

# What is so for a moment only does no harm.
_A_MOMENT_S = 0.2
_APART = {"mnt": "mount", "net": "network"}
_NESTED = ("ipc", "uts", "user", "pid", "cgroup", "time")
_SANDBOX_TIP = "run the training without a container or sandbox inside of it"
_SANDBOX_WHY = "CRIU restores a tree that shares one set of namespaces; sandboxes (bubblewrap, browsers) make their own"
_ELF_32_BIT = 1
_CRIU = "criu"


def look(tree: Tree) -> Iterator[Notice]:
    yield fine("processes", "all processes of the tree go into the snapshot", count=len(tree.tasks))
    for task in tree.tasks[1:]:
        yield from _namespaces(tree.root, task)
        yield from _session(tree, task)
    for task in tree.tasks:
        yield from _tracer(tree, task)
        yield from _kind(task)
        yield from _user(task)
    yield from _in_the_cell(tree)
    yield from _busy(tree)
    if len({groups for task in tree.tasks if task.state != "Z" and (groups := _cgroups(task))}) > 1:
        why = "control groups are the resource manager's business: all come back in that of criu-train"
        tip = "nothing to do, unless the limits of single processes matter"
        yield Notice("warns", "processes of the training live in different control groups", why, tip)


def _namespaces(root: Task, task: Task) -> Iterator[Notice]:
    def differs(kind: str) -> bool:
        ours, theirs = root.namespaces.get(kind), task.namespaces.get(kind)
        return bool(ours and theirs and ours != theirs)

    for kind, name in _APART.items():
        if differs(kind):
            what = f"a process of the training lives in a {name} namespace of its own, which can't be restored"
            yield Notice("blocks", what, _SANDBOX_WHY, _SANDBOX_TIP, str(task))
    for kind in _NESTED:
        if differs(kind):
            yield blocks("nested-namespace", _SANDBOX_WHY, str(task), kind)


def _session(tree: Tree, task: Task) -> Iterator[Notice]:
    """CRIU makes a session below its leader, or below the root task in its stead (prepare_pstree_ids() in pstree.c)."""
    if task.session in (task.pid, tree.root.session, 0) or task.parent == tree.root.pid or task.state == "Z":
        return
    above = tree.by_pid.get(task.parent)
    while above is not None:
        if task.session in (above.pid, above.session):
            return
        above = tree.by_pid.get(above.parent) if above is not tree.root else None
    yield Notice(
        "blocks",
        "a process belongs to a session whose leader has ended, which can't be restored",
        "the dump works, but a session can be made again only below its leader",
        "start it without a process in between that calls setsid() and ends, or let the leader live",
        str(task),
    )


def _tracer(tree: Tree, task: Task) -> Iterator[Notice]:
    tracer = int(task.status.get("TracerPid", "0"))
    if tracer and _name(tracer) != _CRIU:
        why = f"CRIU stops tasks by ptrace, and a task can have one tracer; this one has {_name(tracer)} (PID {tracer})"
        yield blocks("unstoppable", why, str(task), task.pid)


def _kind(task: Task) -> Iterator[Notice]:
    with contextlib.suppress(OSError), Path(f"/proc/{task.pid}/exe").open("rb") as program:
        head = program.read(5)
        if head[:4] == b"\x7fELF" and head[4] == _ELF_32_BIT:
            yield blocks("32-bit", "CRIU is built without support for the other mode", str(task), task.pid)


def _user(task: Task) -> Iterator[Notice]:
    if task.user != 0 and privileges.lack() is None and privileges.lack(another_user=True) is not None:
        why = f"it runs as user {task.user}, and its limits are part of a snapshot"
        yield blocks("limits-unreadable", why, str(task))


def _in_the_cell(tree: Tree) -> Iterator[Notice]:
    if tree.init is None:
        return
    for kind, name in (("mnt", "mount"), ("user", "user")):
        outside = read_link(f"/proc/{tree.init}/ns/{kind}")
        if outside and tree.root.namespaces.get(kind, outside) != outside:
            what = f"the training has gone into a {name} namespace of its own, away from the cell's"
            yield Notice("blocks", what, _SANDBOX_WHY, _SANDBOX_TIP, str(tree.root))
    for pid in _strays(tree.init, tree.root.pid):
        yield Notice(
            "warns",
            "a process has left the training's tree",
            "its parent has ended (a daemon, a double fork): it is not in the snapshot and does not come back",
            "start it in the foreground, or outside of the training",
            f"process {pid}, {_name(pid)}",
        )


def _strays(init: int, root: int) -> list[int]:
    """Those that are still there a moment later: many a process only outlives its parent by that."""
    strays = [pid for pid in processes.children(init) if pid != root and _name(pid) != _CRIU]
    if strays:
        time.sleep(_A_MOMENT_S)
    return [pid for pid in strays if _state(pid) not in ("", "Z")]


def _busy(tree: Tree) -> Iterator[Notice]:
    """Tasks that can't be stopped, twice a moment apart."""
    doubtful = [task for task in tree.tasks if task.state == "D" or _leader_has_ended(task)]
    if not doubtful:
        return
    time.sleep(_A_MOMENT_S)
    for task in doubtful:
        if _leader_has_ended(task):
            why = "its first thread has ended long before the others: the kernel shows it as half dead for ever"
            tip = "let the first thread wait for the others instead of ending itself"
            yield Notice("blocks", "a process goes on without its first thread", why, tip, str(task))
        elif _state(task.pid) == "D":
            why = "a task in an uninterruptible call stops when the call is over; a dump waits half a minute for it"
            tip = "it waits for a disk, a network file system, or a child it started by vfork"
            yield Notice("warns", "a process can't be stopped at the moment", why, tip, str(task))


def _leader_has_ended(task: Task) -> bool:
    with contextlib.suppress(OSError):
        return _state(task.pid) == "Z" and sum(1 for _ in Path(f"/proc/{task.pid}/task").iterdir()) > 1
    return False


def _state(pid: int) -> str:
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    return ""


def _name(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    return ""


def _cgroups(task: Task) -> str:
    """Empty for one that has ended, and where there are none."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{task.pid}/cgroup").read_text(errors="replace")
    return ""
