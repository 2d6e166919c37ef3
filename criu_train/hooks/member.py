"""One process of the training, as it tells the supervisor how far it is, and waits for it between two steps.

Standard library only. Nothing here may end the training: where the directory is gone or full, hooks do nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import mmap
import os
import struct
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, SupportsFloat, SupportsIndex

from criu_train.hooks import layout
from criu_train.hooks.layout import Phase

# Between two looks while parked: every one of these is added to the pause.
_LOOK_S = 0.001
_LEISURELY_S = 0.01
# A supervisor that gave no sign for so long is gone, and nobody will tell us to go on.
_LOST_S = 10.0

Hook = Callable[[], object]
Digest = Callable[[], bytes | str]


class Hooks:
    """What the training wants done, in the order in which it said so."""

    def __init__(self) -> None:
        self.before_dump: list[Hook] = []
        self.after_dump: list[Hook] = []
        self.after_restore: list[Hook] = []
        self.digests: list[Digest] = []
        self._tried = self._unstable = False

    def digest(self) -> str:
        """Of all digests together, hexadecimal; empty where there are none. Raises what they raise."""
        if not self.digests or self._unstable:
            return ""
        if not self._tried:
            self._tried, first = True, self._make()
            if first != self._make():  # every restore would fail because of it
                self._unstable = True
                _warn("the digest of the state is another each time it is made, and is not used")
                return ""
            return first
        return self._make()

    def _make(self) -> str:
        total = hashlib.sha256()
        for digest in self.digests:
            found = digest()
            total.update(hashlib.sha256(found.encode() if isinstance(found, str) else found).digest())
        return total.hexdigest()


def run_all(hooks: list[Hook]) -> None:
    """One that raises is warned of and keeps no other from running."""
    for hook in hooks:
        try:
            hook()
        except Exception as error:
            _warn(f"the hook {getattr(hook, '__name__', hook)} raised {error!r}")


def _warn(what: str) -> None:
    with contextlib.suppress(Warning):  # where warnings are errors, this one still ends no training
        warnings.warn(f"criu-train: {what}", stacklevel=3)


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
        self._page = _new_page(directory / layout.MEMBERS / str(self.pid))
        self._words = memoryview(self._page).cast("Q")
        self._words[0] = layout.MAGIC
        self.generation = self._told[layout.GENERATION]
        self._round = self._told[layout.ROUND]
        if self._phase(self._round) is Phase.GATHERING:
            self._round -= 1
        self._number, self._step, self._epoch = 0, layout.UNKNOWN_STEP, math.nan
        self._index: dict[str, int] = {}
        self._values: list[float] = []
        self._format = layout.report_format(0)

    @property
    def restores(self) -> int:
        """The generation, as told just now."""
        return self._told[layout.GENERATION]

    # --- how far it is ------------------------------------------------------------------------------------------

    def report(
        self, step: SupportsIndex | None, epoch: SupportsFloat | None, metrics: Mapping[str, SupportsFloat]
    ) -> None:
        """Write it down; if the supervisor waits for it, park."""
        try:
            values, index = self._values, self._index
            for name, value in metrics.items():
                values[index[name]] = float(value)
            self._write(self._step if step is None else int(step), self._epoch if epoch is None else float(epoch))
        except (KeyError, struct.error, TypeError, ValueError, OverflowError, RuntimeError):
            self._write_with_care(step, epoch, metrics)
        told = self._told
        if told[layout.ROUND] != self._round or told[layout.GENERATION] != self.generation:
            self._meet(step is not None)

    def _write(self, step: int, epoch: float) -> None:
        number, values = self._number + 1, self._values
        where = layout.REPORTS[number & 1]
        self._format.pack_into(self._page, where, number, len(values), step, epoch, *values, number)
        self._number, self._step, self._epoch = number, step, epoch

    def _write_with_care(self, step: Any, epoch: Any, metrics: Mapping[str, Any]) -> None:
        """The first report of a metric, or one with something that is no number, which is left out."""
        for name, value in metrics.items():
            number = _float(value, math.nan)
            if name in self._index:
                self._values[self._index[name]] = number
            elif not math.isnan(number) and len(self._values) < layout.METRICS:
                self._learn(name, number)
        self._write(_int(step, self._step), _float(epoch, self._epoch))

    def _learn(self, name: str, number: float) -> None:
        names = json.dumps([*self._index, name]).encode()
        if len(names) < layout.NAMES_BYTES:
            self._index[name] = len(self._values)
            self._values.append(number)
            self._page[layout.NAMES : layout.NAMES + layout.NAMES_BYTES] = names.ljust(layout.NAMES_BYTES, b"\0")
            self._format = layout.report_format(len(self._values))

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
        if not at_a_step and self._step != layout.UNKNOWN_STEP:
            return  # in the middle of a step
        if self._told[layout.TARGET] == layout.NEXT_REPORT or self._position() >= self._told[layout.TARGET]:
            self.park(number)

    def _position(self) -> int:
        """The step; where none is ever told, which report this is."""
        return int(self._step) if self._step != layout.UNKNOWN_STEP else self._number

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
        watch, prepared, phase = _Watch(self._told), False, Phase.NONE
        digest = ""
        while True:
            if self._told[layout.GENERATION] != self.generation:
                self._after_restore(digest)
                return None
            phase = self._phase(number)
            if phase is Phase.PREPARING and not prepared:
                prepared = True
                run_all(self._hooks.before_dump)
                digest = self._tell_digest()
                self._words[layout.READY] = number
                watch = _Watch(self._told)
            elif phase not in (Phase.GATHERING, Phase.PREPARING, Phase.CUTTING) or watch.is_lost():
                break
            else:
                time.sleep(_LOOK_S)
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
            _warn(f"the digest of the state raised {error!r}")
            digest = ""
        self._page[layout.DIGEST : layout.DIGEST + layout.DIGEST_BYTES] = digest.encode().ljust(
            layout.DIGEST_BYTES, b"\0"
        )
        self._words[layout.DIGESTED] = self.generation + 1
        return digest

    def _phase(self, number: int) -> Phase:
        """``FAILED`` for a round that was so long ago that it is not told any more."""
        at = layout.round_at(number) // layout.WORD
        phase = Phase(self._told[at + 1])
        return phase if self._told[at] == number else Phase.FAILED

    def leave(self) -> None:
        """In a forked child, which is another member."""
        self._words.release()
        with contextlib.suppress(BufferError):
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


def _new_page(path: Path) -> mmap.mmap:
    path.unlink(missing_ok=True)  # of a process of the same number before
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(fd, 0, layout.PAGE_BYTES)  # where there is no room, now is the time to be told
        return mmap.mmap(fd, layout.PAGE_BYTES)
    finally:
        os.close(fd)


def _float(value: Any, otherwise: float) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return otherwise


def _int(value: Any, otherwise: int) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return otherwise
    return number if -(1 << 63) < number < 1 << 63 else otherwise
