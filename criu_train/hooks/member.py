"""One process of the training, as it tells the supervisor how far it is, and waits for it between two steps.

Standard library only. Nothing here may end the training: where the directory is gone or full, hooks do nothing.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import SupportsFloat, SupportsIndex

from criu_train.hooks import layout
from criu_train.hooks.layout import Phase
from criu_train.hooks.page import Page
from criu_train.hooks.wishes import Hooks, run_all, warn

# Between two looks while parked: every one of these is added to the pause.
_LOOK_S = 0.001
_LEISURELY_S = 0.01
# A supervisor that gave no sign for so long is gone, and nobody will tell us to go on.
_LOST_S = 10.0
_UNDER_WAY = (Phase.GATHERING, Phase.PREPARING, Phase.CUTTING)


class Member:
    """Made at the first use of hooks in a process. Raises OSError and ValueError where there is no directory to use."""

    def __init__(self, directory: Path, hooks: Hooks) -> None:
        self._hooks = hooks
        with (directory / layout.CONTROL).open("rb") as file:
            control = mmap.mmap(file.fileno(), layout.CONTROL_BYTES, mmap.MAP_SHARED, mmap.PROT_READ)
        self._control = control
        self._told = memoryview(control).cast("Q")
        if self._told[0] != layout.MAGIC:
            raise ValueError("hooks of another version")
        if (cell := self._told[layout.NAMESPACE]) and os.stat("/proc/self/ns/pid").st_ino != cell:  # noqa: PTH116
            raise ValueError("a process outside of the cell")
        self.pid = os.getpid()
        self._page = Page(directory / layout.MEMBERS / str(self.pid))
        self._words = self._page.words
        self.generation = self._told[layout.GENERATION]
        self._round = self._told[layout.ROUND]
        if self._phase(self._round) is Phase.GATHERING:
            self._round -= 1

    @property
    def restores(self) -> int:
        """The generation, as told just now."""
        return self._told[layout.GENERATION]

    # --- how far it is ------------------------------------------------------------------------------------------

    def report(
        self, step: SupportsIndex | None, epoch: SupportsFloat | None, metrics: Mapping[str, SupportsFloat]
    ) -> None:
        """Write it down; if the supervisor waits for it, park."""
        self._page.report(step, epoch, metrics)
        told = self._told
        if told[layout.ROUND] != self._round or told[layout.GENERATION] != self.generation:
            self._meet(step is not None)

    def _meet(self, at_a_step: bool) -> None:
        """The supervisor wants something, or there was a restore since the last report."""
        if self._was_restored():
            run_all(self._hooks.after_restore)
        number = self._told[layout.ROUND]
        if number == self._round:
            return
        if self._phase(number) is not Phase.GATHERING:
            self._round = number
            return
        if not at_a_step and self._page.step != layout.UNKNOWN_STEP:
            return  # in the middle of a step
        if self._told[layout.TARGET] == layout.NEXT_REPORT or self._page.position >= self._told[layout.TARGET]:
            self.park(number)

    # --- rounds -------------------------------------------------------------------------------------------------

    def checkpoint(self, wait: bool) -> tuple[str | None, bool, str]:
        """Ask for a dump and park until it is over: its id, whether this is after a restore, what went wrong."""
        if self._was_restored():
            run_all(self._hooks.after_restore)
        asked_in = self._told[layout.ROUND]
        self._words[layout.WAITING] = self.generation + 1
        self._words[layout.STAYING] = self.generation + 1 if wait else 0
        try:
            watch = _Watch(self._told)
            while True:
                number = self._told[layout.ROUND]
                phase: Phase | None = self._phase(number)
                if self._was_restored():  # not parked at the cut: the dump had not waited for this process
                    run_all(self._hooks.after_restore)
                    phase = None
                elif phase is Phase.GATHERING and number != self._round:
                    phase = self.park(number)
                elif number == asked_in or phase is not Phase.FAILED:
                    phase = Phase.NONE
                if phase is None:
                    return layout.text_at(self._control, layout.RESTORED_FROM, layout.ID_BYTES), True, ""
                if phase in (Phase.CUT, Phase.COMPLETE, Phase.FAILED):
                    self._words[layout.WAITING] = 0
                    return self._outcome(number, wait, phase)
                if watch.is_lost():
                    return None, False, "nobody watches over this training at present"
                time.sleep(_LOOK_S)
        finally:
            self._words[layout.WAITING] = self._words[layout.STAYING] = 0

    def _outcome(self, number: int, wait: bool, phase: Phase) -> tuple[str | None, bool, str]:
        watch, generation = _Watch(self._told), self.generation
        while wait and phase is Phase.CUT:
            if watch.is_lost():
                return None, False, "nobody watches over this training any more"
            if self._told[layout.GENERATION] != generation:
                break  # of an earlier snapshot: that one was never finished in this life
            time.sleep(_LEISURELY_S)
            phase = self._phase(number)
        at = layout.round_at(number)
        if phase is Phase.COMPLETE or (phase is Phase.CUT and not wait):
            return layout.text_at(self._control, at + layout.SNAPSHOT, layout.ID_BYTES), False, ""
        problem = layout.text_at(self._control, at + layout.PROBLEM, layout.PROBLEM_BYTES)
        return None, False, problem or "nobody knows whether the snapshot was finished"

    def park(self, number: int) -> Phase | None:
        """Stand still in this round until it is over; its phase then, or None after a restore."""
        self._round = number
        self._words[layout.PARKED] = number
        try:
            return self._stand(number)
        finally:
            self._words[layout.PARKED] = self._words[layout.READY] = 0

    def _stand(self, number: int) -> Phase | None:
        watch, prepared, digest = _Watch(self._told), False, ""
        while True:
            phase = self._phase(number)
            if phase is Phase.PREPARING and not prepared:
                prepared = True
                run_all(self._hooks.before_dump)
                digest = self._tell_digest()
                self._words[layout.READY] = number
                watch = _Watch(self._told)
            elif phase in _UNDER_WAY and self.restores == self.generation and not watch.is_lost():
                time.sleep(_LOOK_S)
            else:
                break
        # The cut can fall between any two of these lines. While this is set a snapshot counts on our digest, and who
        # restores it waits until it is made again; so it is taken back before we look for the last time.
        self._words[layout.READY] = 0
        if self.restores != self.generation:
            self._after_restore(digest)
            return None
        if prepared:
            run_all(self._hooks.after_dump)
        return phase

    def _after_restore(self, digest: str) -> None:
        self._was_restored()
        if digest and self._tell_digest() != digest:
            watch = _Watch(self._told)
            while not watch.is_lost():  # the supervisor ends us: not one step is made from a state that is another
                time.sleep(_LEISURELY_S)
        run_all(self._hooks.after_restore)

    def _was_restored(self) -> bool:
        generation = self._told[layout.GENERATION]
        if generation == self.generation:
            return False
        self.generation = generation
        # Rounds before the restore are over, whoever waited for them.
        self._round = self._told[layout.ROUND]
        if self._phase(self._round) is Phase.GATHERING:
            self._round -= 1
        return True

    def _tell_digest(self) -> str:
        try:
            digest = self._hooks.digest()
        except Exception as error:
            warn(f"the digest of the state raised {error!r}")
            digest = ""
        self._page.write_digest(digest)
        self._words[layout.DIGESTED] = self.generation + 1
        return digest

    def _phase(self, number: int) -> Phase:
        """``FAILED`` for a round that was so long ago that it is not told any more."""
        at = layout.round_at(number) // layout.WORD
        phase = Phase(self._told[at + 1])
        return phase if self._told[at] == number else Phase.FAILED

    def leave(self) -> None:
        """In a forked child, which is another member."""
        self._page.close()


class _Watch:
    """Whether the supervisor still gives signs of life, as far as somebody who looks often can tell."""

    def __init__(self, told: memoryview[int]) -> None:
        self._told = told
        self._beat, self._since = told[layout.HEARTBEAT], time.monotonic()

    def is_lost(self) -> bool:
        beat, now = self._told[layout.HEARTBEAT], time.monotonic()
        if beat != self._beat:
            self._beat, self._since = beat, now
        return now - self._since > _LOST_S
