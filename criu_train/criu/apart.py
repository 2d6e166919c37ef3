"""Tasks that CRIU dumps without a word and can never restore: those in namespaces apart from the rest of their tree."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from criu_train.errors import DumpFailedError

_KINDS = {"mnt": "mount", "net": "network"}  # with all others the dump itself fails


def refuse_tasks_apart(pids: Sequence[int]) -> None:
    """Raises DumpFailedError when one of these tasks is in other namespaces than the first, their root task.

    ``pids`` are as this namespace numbers them. Best asked while the tree stands still.
    """
    for kind, name in _KINDS.items():
        of_root = _namespace(pids[0], kind) if pids else None
        for pid in pids[1:]:
            own = _namespace(pid, kind)
            if of_root and own and own != of_root:
                raise DumpFailedError(
                    f"process {pid} of the training lives in a {name} namespace of its own, which can't be restored",
                    tip="run the training without a container or sandbox inside of it",
                )


def _namespace(pid: int, kind: str) -> str | None:
    """None for a task that has ended, a zombie too."""
    with suppress(OSError):
        return str(Path(f"/proc/{pid}/ns/{kind}").readlink())
    return None
