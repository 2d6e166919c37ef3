"""Why a dump failed, from what CRIU left behind."""

from __future__ import annotations

import contextlib
from pathlib import Path

from criu_train.cell.records import CriuExit
from criu_train.criu.explain import explain
from criu_train.errors import CriuTrainError, DumpFailedError

# What CRIU logs when nobody takes its images any more.
BROKEN_PIPE = "Broken pipe"


class PassingFailureError(DumpFailedError):
    """CRIU met the tree in a moment in which it can't be dumped: a process just ending, a connection being made."""


class TrainingEndedError(DumpFailedError):
    """There was no training left to dump: no failure of the dump."""


def failure_of(ended: CriuExit, cut_error: Exception | None, log: Path) -> DumpFailedError:
    """The error to raise for a CRIU that did not dump. ``cut_error``: what went wrong of ours while the tree stood."""
    if isinstance(cut_error, CriuTrainError):
        kind = PassingFailureError if isinstance(cut_error, PassingFailureError) else DumpFailedError
        return kind(str(cut_error), tip=cut_error.tip)
    if isinstance(cut_error, TimeoutError):
        return DumpFailedError(
            "the last snapshot could not be finished in time",
            tip="allow more with --grace; the training is asked to end itself",
        )
    if cut_error is not None and not ended.timed_out:
        return DumpFailedError(
            f"the workspace could not be saved: {cut_error}", tip="see that the store's disk has room and works"
        )
    if ended.problem:
        return DumpFailedError(f"CRIU could not be started: {ended.problem}", tip="`criu-train doctor` may tell more")
    if ended.timed_out:
        return DumpFailedError(
            "the dump took longer than its time limit and was ended",
            tip="if the disk is slow rather than stuck, allow more with --dump-timeout",
        )
    explanation = explain(read_log(log), ended.code)
    kind = PassingFailureError if explanation.passing else DumpFailedError
    return kind(explanation.what, tip=explanation.tip)


def read_log(log: Path) -> str:
    """CRIU's log, as much of it as there is."""
    with contextlib.suppress(OSError):
        return log.read_text(errors="replace")
    return ""
