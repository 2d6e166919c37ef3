"""Dumps of one cell, again and again: tries once more when the moment was bad, and lets no mistake out but as a failed
dump."""

from __future__ import annotations

import asyncio
import contextlib
import time

from criu_train.criu.schema import image_schema
from criu_train.errors import CriuTrainError, DumpFailedError
from criu_train.supervisor.attempt import Attempt
from criu_train.supervisor.dump_context import DumpContext, Dumped
from criu_train.supervisor.dump_errors import PassingFailureError

# So long the tree is let run on between tries when CRIU met it in a bad moment.
_PASSING_PAUSES_S = (0.05, 0.2, 0.5)


class Dumper:
    """Dumps the training of one cell, again and again, one at a time."""

    def __init__(self, context: DumpContext) -> None:
        self._context = context
        self._attempt: Attempt | None = None
        self._done_by: float | None = None
        self._patient = True
        image_schema(context.criu.pycriu)  # loading it takes a tenth of a second, which no tree should stand still for

    def hurry(self, seconds: float) -> None:
        """From now on nothing is done slowly for the training's sake: a dump at work has so many seconds to be done."""
        self._done_by = time.monotonic() + seconds
        if self._attempt is not None:
            self._attempt.hurry(self._done_by)

    def abandon(self) -> None:
        """The dump at work can't come to a good end any more: have it fail at once, and mend what it has begun."""
        self._context.keeper.abandon()

    async def dump(
        self, trigger: str, *, leave_running: bool = True, limit_s: float | None = None, at_work: bool | None = None
    ) -> Dumped:
        """Raises DumpFailedError, and then the tree runs on as if nothing had been asked.

        ``limit_s``: for everything together, all tries and waits; without it CRIU has its own time limit.
        ``at_work``: whether the training is to go on by itself after a restore; None to look what it does.
        """
        deadline = time.monotonic() + limit_s if limit_s is not None else None
        try:
            for pause_s in _PASSING_PAUSES_S:
                with contextlib.suppress(PassingFailureError):
                    return await self._try(trigger, leave_running, deadline, at_work, patient=self._patient)
                await asyncio.sleep(pause_s)
            return await self._try(trigger, leave_running, deadline, at_work, patient=False)
        except CriuTrainError:
            raise
        except OSError as error:
            raise DumpFailedError(
                f"the snapshot could not be written: {error.strerror or error}",
                tip="see that the store's disk has room and works",
            ) from error
        except Exception as error:  # no mistake of ours may reach the training
            raise DumpFailedError(
                f"something unexpected went wrong in the dump: {error!r}",
                tip="please report it with the store's events.jsonl, which has the details",
            ) from error

    async def _try(
        self, trigger: str, leave_running: bool, deadline: float | None, at_work: bool | None, *, patient: bool
    ) -> Dumped:
        self._attempt = attempt = Attempt(
            self._context, trigger, leave_running=leave_running, patient=patient, at_work=at_work
        )
        if self._done_by is not None:
            attempt.hurry(self._done_by)
        try:
            dumped = await attempt.run(deadline)
            self._patient = not attempt.unread  # a training that never keeps up is not stopped several times a dump
            return dumped
        finally:
            self._attempt = None
