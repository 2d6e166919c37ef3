"""Ends of a try to restore that are not simply a snapshot's fault."""

from __future__ import annotations

from criu_train.errors import CriuTrainError, RestoreFailedError


class SurroundingsError(RestoreFailedError):
    """What is around it kept a snapshot from being restored: memory, a port that is taken, rights. It can be mended."""


class CutShortError(SurroundingsError):
    """Somebody killed what was restoring, or what had just been restored: another try may well succeed."""


class UndoFailedError(CriuTrainError):
    """The files are neither as they were nor as at a cut: nothing may run on them."""


class OtherStateError(RestoreFailedError):
    """What was restored is not what was saved, says the training's own digest."""
