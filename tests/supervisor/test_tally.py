"""What happened in a run, counted from its events."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from criu_train.supervisor.tally import Spread, Tally


class Story:
    """Events at seconds after midnight."""

    def __init__(self) -> None:
        self.tally = Tally()
        self._number = 0

    def tells(self, second: float, event: str, **fields: Any) -> None:
        at = datetime.fromtimestamp(second, UTC).isoformat(timespec="milliseconds")
        self.tally.hear({"at": at, "event": event, "run": "a", **fields})

    def dumps(self, second: int, step: int | None, trigger: str = "timer") -> str:
        self._number += 1
        name = f"{datetime.fromtimestamp(second, UTC):%Y%m%dT%H%M%SZ}-{self._number:06d}"
        facts = {"frozen_time_us": 200_000, "added_bytes": 10, "stored_bytes": 30, "memory_bytes": 90}
        self.tells(second + 2, "dumped", snapshot=name, trigger=trigger, step=step, seconds=2.0, **facts)
        return name


@pytest.fixture
def story() -> Story:
    return Story()


def test_snapshots_are_counted_by_their_triggers(story: Story) -> None:
    story.dumps(10, 5)
    story.dumps(20, 9, "manual")
    story.tells(30, "dump_failed", trigger="timer")
    tally = story.tally
    assert (tally.snapshots["timer"], tally.snapshots["manual"], tally.failures["timer"]) == (1, 1, 1)
    assert (tally.added_bytes, tally.pauses.sum, tally.dumps.sum) == (20, 0.4, 4.0)
    assert tally.last is not None and (tally.last.taken_at, tally.last.step, tally.last.stored_bytes) == (20.0, 9, 30)


def test_a_training_that_was_parked_for_its_dump_stood_still_for_both(story: Story) -> None:
    story.tells(
        12, "dumped", snapshot="19700101T000010Z-000001", trigger="hook", frozen_time_us=200_000, parked_us=300_000
    )
    assert story.tally.pauses.sum == 0.5 and story.tally.snapshots["hook"] == 1


def test_what_was_computed_after_the_snapshot_is_lost_when_all_is_killed(story: Story) -> None:
    snapshot = story.dumps(100, 50)
    story.tells(130, "progress", step=80)
    story.tells(500, "interrupted")
    story.tells(500.5, "restore")
    story.tells(501, "restored", snapshot=snapshot, step=50, seconds=0.5)
    assert (story.tally.lost_steps, story.tally.lost_seconds, story.tally.interruptions) == (30, 30.0, 1)
    story.tells(531, "progress", step=82)
    story.tells(532, "died")
    story.tells(533, "restored", snapshot=snapshot, step=50, seconds=0.5)
    assert (story.tally.lost_steps, story.tally.lost_seconds, story.tally.restarts) == (62, 462.0, 1)


def test_a_preemption_loses_nothing(story: Story) -> None:
    story.dumps(100, 50)
    story.tells(130, "progress", step=80)
    story.tells(131, "stopping")
    last = story.dumps(132, 83, "preempt")
    story.tells(136, "progress", step=83)
    story.tells(137, "stopped", how="preempted")
    story.tells(900, "interrupted")
    story.tells(901, "restored", snapshot=last, step=83, seconds=0.5)
    assert (story.tally.lost_steps, story.tally.lost_seconds) == (0, 0.0)


def test_a_training_that_tells_no_steps_loses_time_only(story: Story) -> None:
    snapshot = story.dumps(100, None)
    story.tells(160, "dump_failed", trigger="timer")
    story.tells(501, "restored", snapshot=snapshot, step=None, seconds=0.5)
    assert (story.tally.lost_steps, story.tally.lost_seconds) == (0, 60.0)


def test_another_run_begins_anew(story: Story) -> None:
    story.dumps(10, 5)
    story.tells(20, "finished", exit_code=0)
    assert story.tally.exit_code == 0
    story.tells(30, "started", run="b")
    assert story.tally.snapshots["timer"] == 0 and story.tally.last is None and story.tally.exit_code is None


def test_events_of_older_versions_are_counted_as_far_as_they_tell(story: Story) -> None:
    for event in (
        {"event": "dumped", "at": "1970-01-01T00:00:10Z", "snapshot": "19700101T000007Z-000001", "trigger": "timer"},
        {"event": "restored", "at": "1970-01-01T00:01:00Z", "snapshot": "19700101T000007Z-000001"},
        {"event": "died"},
        {},
    ):
        story.tally.hear(event)
    assert (story.tally.snapshots["timer"], story.tally.lost_seconds, story.tally.restarts) == (1, 3.0, 1)


def test_a_spread_tells_how_many_took_no_longer_than_each_bound() -> None:
    spread = Spread()
    for seconds in (0.05, 0.2, 0.2, 1000.0):
        spread.add(seconds)
    counts = dict(spread.up_to_each_bound())
    assert (counts["0.05"], counts["0.1"], counts["0.25"], counts["300.0"], counts["+Inf"]) == (1, 1, 3, 3, 4)
    assert spread.sum == pytest.approx(1000.45)
