"""Which snapshot somebody means.

``7``, an id, or a unique beginning of one; ``latest``, and ``latest~2`` for the second before it; ``@step:1200`` for
the last one up to that step; ``@best:loss`` for the lowest loss, ``@best:accuracy`` for the highest accuracy.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from criu_train.errors import UsageError
from criu_train.store.retention import newest_usable
from criu_train.store.snapshot import Snapshot

_LATEST = re.compile(r"latest(?:~(\d{1,6}))?")
_STEP = re.compile(r"@step:(\d{1,18})")
_BEST = re.compile(r"@best:(.+)")
# Of these the highest is best; of all others, losses and errors, the lowest.
_THE_MORE = re.compile(r"(?i)acc|auc|f1|bleu|rouge|reward|return|score|precision|recall")
_TIP = "`criu-train snapshot list` shows the ids; the number after the dash is enough"
_WHAT_IS_THERE = "`criu-train snapshot list` tells what is there"


def choose(text: str, snapshots: Sequence[Snapshot], run: str | None) -> Snapshot:
    """Of snapshots, oldest first; ``run``: the current one. Raises UsageError where none is meant, or several are."""
    if match := _LATEST.fullmatch(text):
        return _latest(snapshots, run, int(match[1] or 0))
    if match := _STEP.fullmatch(text):
        return _at_step(_usable(snapshots, run), int(match[1]))
    if match := _BEST.fullmatch(text):
        return _best(_usable(snapshots, run), match[1])
    matches = [one for one in snapshots if text.isdecimal() and one.sequence == int(text)]
    matches = matches or [one for one in snapshots if text and one.id.startswith(text)]
    if len(matches) != 1:
        what = f"{text!r} could be any of {len(matches)} snapshots" if matches else f"there is no snapshot {text!r}"
        raise UsageError(what, tip=_TIP)
    return matches[0]


def _latest(snapshots: Sequence[Snapshot], run: str | None, back: int) -> Snapshot:
    newest = newest_usable(snapshots, run)
    if newest is None or newest.manifest is None:
        raise UsageError("there is no complete snapshot yet", tip=_WHAT_IS_THERE)
    usable = [one for one in _usable(snapshots, newest.manifest.run) if one.sequence <= newest.sequence]
    if back >= len(usable):
        raise UsageError(f"there are only {len(usable)} complete snapshots of that run", tip=_WHAT_IS_THERE)
    return usable[-1 - back]


def _usable(snapshots: Sequence[Snapshot], run: str | None) -> list[Snapshot]:
    """The complete ones of the run that nobody has left behind; of all runs where there is none at present."""
    usable = [one for one in snapshots if one.status == "complete" and not one.abandoned and one.manifest]
    return [one for one in usable if one.manifest and one.manifest.run == run] or (usable if run is None else [])


def _at_step(snapshots: Sequence[Snapshot], step: int) -> Snapshot:
    told = [
        (one.manifest.step, one.sequence, one) for one in snapshots if one.manifest and one.manifest.step is not None
    ]
    if not told:
        raise UsageError(
            "no complete snapshot of this run knows its step", tip="--progress-regex tells how to find it in the output"
        )
    if not (before := [entry for entry in told if entry[0] <= step]):
        first = min(entry[0] for entry in told)
        raise UsageError(f"no complete snapshot is of step {step} or before", tip=f"the first is of step {first}")
    return max(before, key=lambda entry: entry[:2])[2]


def _best(snapshots: Sequence[Snapshot], wanted: str) -> Snapshot:
    names = sorted({name for one in snapshots if one.manifest for name in one.manifest.metrics})
    name = _meant(wanted, names)
    told = [(one.manifest.metrics[name], one) for one in snapshots if one.manifest and name in one.manifest.metrics]
    pick: Callable[..., tuple[float, Snapshot]] = max if _THE_MORE.search(name) else min
    return pick(reversed(told), key=lambda entry: entry[0])[1]  # of equal ones the newest


def _meant(wanted: str, names: Sequence[str]) -> str:
    """``loss`` may be ``train_loss``, where no other metric ends so."""
    low = wanted.lower()
    for matches in (
        [name for name in names if name == wanted],
        [name for name in names if name.lower() == low],
        [name for name in names if re.split(r"[_/ .-]", name.lower())[-1] == low],
    ):
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise UsageError(f"{wanted!r} could be any of {', '.join(matches)}", tip="name one of these")
    known = f"they have {', '.join(names)}" if names else "--progress-regex tells how to find metrics in the output"
    raise UsageError(f"no complete snapshot of this run has a metric {wanted!r}", tip=known)
