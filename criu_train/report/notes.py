"""What a reader should know before believing the numbers of a report."""

from __future__ import annotations

from collections.abc import Iterator

from criu_train.report.events import Run
from criu_train.report.story import Counter
from criu_train.units import format_duration

_A_SECOND = 1.0


def notes(run: Run, counter: Counter | None) -> Iterator[str]:
    """Sentences, for a person."""
    kinds = {event.kind for event in run.events}
    if "started" not in kinds:
        yield "The beginning of this run is not in the log: everything is counted from the first event that is."
    if "progress" not in kinds:
        yield (
            "Between its snapshots this run told nothing of its progress (or an older version of criu-train recorded "
            "it), so an interruption is dated by the last event before it: downtime may be less than shown, and lost "
            "work more."
        )
    elif counter == "epoch":
        yield "The steps that this training prints begin again with each epoch, so its progress is counted in epochs."
    elif counter is None:
        yield "Neither steps nor epochs that this training prints only go up, so lost work is told in time alone."
    if not any("." in str(event.fields.get("at")) for event in run.events):
        yield "Times were recorded to the second by an older version of criu-train."
    if run.set_back_s > _A_SECOND:
        yield (
            f"The machine's clock was set back by {format_duration(run.set_back_s)} during this run: what lies in "
            "that time is told as one instant."
        )
    dumps = [event for event in run.events if event.kind == "dumped"]
    if uncounted := sum(event.number("memory_bytes") is None for event in dumps):
        yield f"Of {uncounted} snapshots the log doesn't tell the size; of those that are still kept, the manifests do."
