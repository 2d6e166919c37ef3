"""From a store to the story of one of its runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from criu_train.errors import StoreError, UsageError
from criu_train.progress.line import Told
from criu_train.report.events import Run, runs
from criu_train.report.story import Story
from criu_train.report.telling import Manifested, tell
from criu_train.store.events import EventLog
from criu_train.store.seal import Key
from criu_train.store.snapshot import Listed
from criu_train.store.store import Store


def read_story(root: Path, *, key: Key | None, run_id: str | None = None) -> Story:
    """Of the run with the newest event, or of that whose id begins so. Raises StoreError, UsageError."""
    store = Store.open(root, key=key)
    found = runs(EventLog(store.layout.events).read())
    if not found:
        raise StoreError(
            f"nothing has happened in {root} so far: its events.jsonl is empty or missing",
            tip="`criu-train run -- COMMAND` writes it; an older copy can be put back",
        )
    run = _choose(found, run_id)
    mine = [one for one in store.listing() if one.manifest and one.manifest.run == run.id]
    return tell(run, {one.id: _manifested(one) for one in mine if one.status == "complete"})


def _choose(found: Sequence[Run], run_id: str | None) -> Run:
    if run_id is None:
        return found[-1]
    fitting = [run for run in found if run.id.startswith(run_id)]
    exact = [run for run in fitting if run.id == run_id] or fitting
    if len(exact) != 1:
        raise UsageError(
            f"{len(exact)} runs have an id that begins with {run_id}" if exact else f"there is no run {run_id}",
            tip="the newest are: " + ", ".join(run.id or "one without an id" for run in found[-9:]),
        )
    return exact[0]


def _manifested(one: Listed) -> Manifested:
    assert one.manifest is not None
    facts = one.manifest
    epoch = facts.metrics.get("epoch")
    metrics = {name: value for name, value in facts.metrics.items() if name != "epoch"}
    return Manifested(Told(facts.step, epoch, metrics), facts.memory_bytes, facts.added_bytes, facts.tasks)
