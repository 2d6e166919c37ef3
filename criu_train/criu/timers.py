"""Timer descriptors in the images: those that go off again and again go on after a restore.

The kernel winds such a timer up again when somebody reads that it went off. One that goes off while the tree stands
still has not been read: no time is left on it, and CRIU 4.2 takes that for a timer that is switched off
(``timerfd_arm()`` in its restorer.c). It would tell what it has counted once, and never again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from criu_train.criu.entries import pack, unpack
from criu_train.criu.schema import image_schema


def rearm(data: bytes, pycriu: Path | None) -> bytes:
    """``files.img`` with those timers about to go off; the same object when there are none.

    Raises whatever protobuf raises when ``data`` is no such image.
    """
    entries = list(unpack(data, image_schema(pycriu).pb.file_entry))
    run_down = [entry.tfd for entry in entries if entry.HasField("tfd") and _has_run_down(entry.tfd)]
    for timer in run_down:
        timer.vnsec = 1
    return pack(data, entries) if run_down else data


def _has_run_down(timer: Any) -> bool:
    """One that was switched off has nothing to tell."""
    return bool(timer.ticks and (timer.isec or timer.insec) and not (timer.vsec or timer.vnsec))
