"""Dumps after so many steps or epochs."""

from __future__ import annotations

import math

from criu_train.progress.line import Told


class Milestones:
    """``steps``, ``epochs``: from one dump to the next, None for none of that kind.

    Steps that begin anew with each epoch are counted on; what a restored training has told before its dump is not
    counted again.
    """

    def __init__(self, steps: int | None, epochs: int | None) -> None:
        self._steps = steps
        self._epochs = epochs
        self._last_step: int | None = None
        self._made = 0
        self._epoch_at_dump: int | None = None

    @property
    def wanted(self) -> bool:
        """Whether there is anything to look out for."""
        return self._steps is not None or self._epochs is not None

    def due(self, told: Told) -> str | None:
        """The trigger of the dump that is due, now that the training has told so much."""
        if told.step is not None:
            last, self._last_step = self._last_step, told.step
            if last is not None:
                self._made += told.step - last if told.step >= last else max(0, told.step)
        epoch = None if told.epoch is None else math.floor(told.epoch)
        if epoch is not None and (self._epoch_at_dump is None or epoch < self._epoch_at_dump):
            self._epoch_at_dump = epoch
        if self._steps is not None and self._made >= self._steps:
            return "step"
        if self._epochs is not None and epoch is not None and self._epoch_at_dump is not None:
            return "epoch" if epoch - self._epoch_at_dump >= self._epochs else None
        return None

    def dumped(self, told: Told) -> None:
        """A dump, whatever its trigger, has been made, and in it the training had come so far."""
        # Below zero where the dump is of a later step than what was seen so far.
        self._made = 0 if told.step is None or self._last_step is None else self._last_step - told.step
        if told.epoch is not None:
            self._epoch_at_dump = math.floor(told.epoch)
