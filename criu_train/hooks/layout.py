"""What the two sides of the hooks share: two small files that processes of the training and the supervisor map.

*Control* is written by the supervisor and read by every process of the training that uses hooks: how many restores
there have been, and the *rounds*, one for each try at a dump. A *page* is written by one process of the training and
read by the supervisor: how far it is, and at which round it has parked. Nobody connects to anybody, so both survive a
dump; pages are files of the workspace like any other, and are put back to what they were at the cut.

Every number is 8 bytes wide, aligned and in the machine's order, so that it is written and read whole. Standard library
only: the training imports this.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from mmap import mmap

VARIABLE = "CRIU_TRAIN_HOOKS"  # in the training's environment: the directory
CONTROL, MEMBERS = "supervisor/control", "members"  # below it; a member's page is named by its PID in the cell

WORD = 8
MAGIC = int.from_bytes(b"CTHOOKS1", "little")
ID_BYTES, PROBLEM_BYTES = 64, 400

# --- control ------------------------------------------------------------------------------------------------------

CONTROL_BYTES = 8192
# Words of control.
GENERATION, HEARTBEAT, ROUND, TARGET, NAMESPACE = 1, 2, 3, 4, 5  # NAMESPACE: the cell's PID namespace; 0: not told
NEXT_REPORT = 0  # as TARGET: whoever reports next parks, whatever its step
RESTORED_FROM = 1024  # offset of an id
# The last rounds are told one behind the other: who looks late must not take another's outcome for its own.
ROUNDS, ROUND_BYTES, _FIRST_ROUND = 8, 512, 2048


class Phase(IntEnum):
    """Where a round is. From ``CUT`` on the processes go on; ``COMPLETE`` and ``FAILED`` are final."""

    NONE = 0
    GATHERING = 1  # park here
    PREPARING = 2  # everybody is here: clean up
    CUTTING = 3
    CUT = 4  # dumped, being made durable
    COMPLETE = 5
    FAILED = 6
    AGAIN = 7  # without a dump: somebody had missed the step


def round_at(number: int) -> int:
    """The offset of a round: its number, its phase, the id of its snapshot, what went wrong."""
    return _FIRST_ROUND + number % ROUNDS * ROUND_BYTES


PHASE, SNAPSHOT, PROBLEM = WORD, 2 * WORD, 2 * WORD + ID_BYTES  # within a round

# --- pages --------------------------------------------------------------------------------------------------------

PAGE_BYTES = 4096
# Words of a page. WAITING: in ``checkpoint``, the generation plus one; PARKED, READY: the round; DIGESTED: the
# generation plus one in which the digest was made; STAYING: as WAITING, until the snapshot is complete.
WAITING, PARKED, READY, DIGESTED, STAYING = 1, 2, 3, 4, 5
DIGEST, DIGEST_BYTES = 64, 64  # hexadecimal
NAMES, NAMES_BYTES = 256, 1536  # of the metrics: JSON, filled up with NULs
METRICS = 64  # at most
# Reports are written to these two in turn: of a process that stands still, one of them is whole.
REPORTS = (2048, 3072)
UNKNOWN_STEP = -(1 << 63)
_HEAD = struct.Struct("=QQqd")


def report_format(metrics: int) -> struct.Struct:
    """A report: its number, how many metrics, step, epoch, their values, and its number again."""
    return struct.Struct(f"=QQqd{metrics}dQ")


def read_report(page: bytes) -> tuple[int, int, float, tuple[float, ...]] | None:
    """The last whole report: number, step, epoch, values. None before the first, or where the page makes no sense."""
    best = None
    for offset in REPORTS:
        number, metrics, _, _ = _HEAD.unpack_from(page, offset)
        if number == 0 or metrics > METRICS or (best is not None and number < best[0]):
            continue
        _, _, step, epoch, *values, again = report_format(metrics).unpack_from(page, offset)
        if again == number:
            best = (number, step, epoch, tuple(values))
    return best


def text_at(data: bytes | mmap, offset: int, size: int) -> str:
    """A text that is filled up with NULs."""
    return data[offset : offset + size].split(b"\0", 1)[0].decode(errors="replace")


def text_bytes(text: str, size: int) -> bytes:
    """For ``text_at``; cut where it is too long."""
    return text.encode(errors="replace")[: size - 1].ljust(size, b"\0")
