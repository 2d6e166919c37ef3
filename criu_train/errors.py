"""Failures a user can meet: one line that says what happened, one tip that says what to do, an exit code."""

from __future__ import annotations

EXIT_OURS = 125  # criu-train itself failed
EXIT_NOT_EXECUTABLE = 126  # the command was found and can't be executed
EXIT_NOT_FOUND = 127  # the command was not found
EXIT_USAGE = 2


class CriuTrainError(Exception):
    """Base of every expected failure.

    ``str(error)`` is one line without a final stop; ``tip`` is one line that tells what to do next.
    """

    exit_code = EXIT_OURS

    def __init__(self, message: str, *, tip: str) -> None:
        super().__init__(message)
        self.tip = tip


class UsageError(CriuTrainError):
    """The call itself is wrong: nothing was touched."""

    exit_code = EXIT_USAGE


class EnvironmentUnfitError(CriuTrainError):
    """This machine, user or CRIU can't do what was asked."""


class StoreError(CriuTrainError):
    """The store is missing, foreign, damaged, or of another version."""


class StoreBusyError(StoreError):
    """Another supervisor or a cell that still lives holds the store's lock."""


class DumpFailedError(CriuTrainError):
    """A dump failed; the training goes on."""


class RestoreFailedError(CriuTrainError):
    """A snapshot could not be restored; its rollback was undone."""


class CommandNotRunnableError(CriuTrainError):
    """The training's command could not be executed (exit code 126 or 127)."""

    def __init__(self, message: str, *, tip: str, exit_code: int) -> None:
        super().__init__(message, tip=tip)
        self.exit_code = exit_code
