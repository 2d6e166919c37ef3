"""Making a directory a store."""

from __future__ import annotations

from criu_train.errors import StoreError
from criu_train.store import state as state_file
from criu_train.store.durable import Disk, make_private_dir, write_atomic
from criu_train.store.layout import StoreLayout
from criu_train.store.seal import Key


def initialise(layout: StoreLayout, disk: Disk, key: Key | None = None) -> None:
    """Make an empty directory of ours, or one whose making was cut off, a store; raises StoreError, OSError.

    ``key``: what it is to be encrypted with.
    """
    with state_file.mutex(layout):
        if layout.config.exists():
            return
        ours = {path.name for path in (layout.mutex, layout.lock, layout.snapshots, layout.journals, layout.rollback)}
        if foreign := {path.name for path in layout.root.iterdir()} - ours - {f".{layout.config.name}.tmp"}:
            raise StoreError(
                f"{layout.root} is no store, and there is something else in it ({min(foreign)})",
                tip="name an empty or a new directory with --store",
            )
        layout.root.chmod(0o700)
        for path in (layout.snapshots, layout.journals, layout.rollback):
            if not path.is_dir():
                make_private_dir(path)
        write_atomic(layout.config, state_file.new_state(key).to_json(), disk=disk)
