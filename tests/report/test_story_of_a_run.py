"""What a run's events come to, checked against numbers worked out by hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_samples import BEGAN, RUN, at, dumped, event, identifier, killed_four_times, progress

from criu_train.progress.line import Told
from criu_train.report.events import runs
from criu_train.report.page import render
from criu_train.report.story import Story
from criu_train.report.telling import Manifested, tell
from criu_train.report.totals import add_up
from criu_train.store.event_schema import misfits

Line = Mapping[str, Any]


def story(lines: Iterable[Line], manifests: Mapping[str, Manifested] | None = None) -> Story:
    return tell(runs(lines)[-1], manifests)


def started() -> Line:
    return event(0, "started", command=["python", "train.py"], reason="first")


def restored(when: float, number: int, step: int | None = None) -> Line:
    return event(when, "restored", snapshot=identifier(number), step=step, seconds=1.0, notes=[], warnings=[])


def test_a_run_that_was_killed_four_times_tells_what_that_cost() -> None:
    totals = add_up(story(killed_four_times()))
    pauses = [0.2 + 0.01 * number for number in range(1, 11)]
    assert (totals.wall_s, totals.interruptions, totals.downtime_s) == (320, 4, 20)
    assert totals.lost_steps == 4 * 40
    assert totals.lost_s == pytest.approx(4 * 20 - sum(pauses[1:8:2]))  # from the end of the pause on
    assert totals.pauses_total_s == pytest.approx(sum(pauses))
    assert totals.overhead_share == pytest.approx(sum(pauses) / 320)
    assert totals.useful_s == pytest.approx(320 - 20 - totals.lost_s - sum(pauses))
    assert totals.step == 440


def test_the_sample_is_what_supervisors_write() -> None:
    assert not [problem for line in killed_four_times() for problem in misfits(line)]


def test_a_pause_begins_where_the_training_is_parked() -> None:
    told = story([started(), dumped(12, 1, 20, frozen_time_us=300_000, parked_us=200_000, aligned=True)])
    assert add_up(told).pauses_total_s == 0.5


def test_what_was_done_twice_is_told_apart_from_what_counts() -> None:
    told = story(killed_four_times())
    redone = [one.told.step for one in told.samples if one.redone]
    assert redone == [step for life in range(4) for step in range(80 * life + 84, 80 * life + 124, 4)]
    counted = [one.told.step for one in told.samples if not one.redone]
    assert counted == sorted(counted, key=lambda step: step or 0)


def test_an_interruption_is_dated_by_the_last_sign_of_life() -> None:
    told = story(
        [
            started(),
            progress(10, 20),
            dumped(14, 1, 24),
            progress(30, 60),
            event(3600, "interrupted", cause="the machine was rebooted or lost power"),
            restored(3610, 1, 24),
            progress(3620, 44),
        ]
    )
    (one,) = told.interruptions
    assert (one.t, one.restored_t, one.downtime_s) == (30, 3610, 3580)
    assert one.cause == "the machine was rebooted or lost power"
    assert (one.before.step, one.after.step, one.lost_steps) == (60, 24, 36)
    assert one.lost_s == pytest.approx(30 - (12 + 0.21))
    assert told.state == "going on"


def test_a_cut_lies_where_the_progress_was_as_far_as_it() -> None:
    slow = dumped(30, 1, 40, seconds=20.0)
    told = story([started(), progress(5, 10), progress(15, 30), progress(25, 50), slow, progress(35, 70)])
    assert [one.t for one in told.snapshots] == [20]
    told = story([started(), progress(5, 10), progress(15, 30), dumped(30, 1, 99, seconds=20.0), progress(35, 70)])
    assert [one.t for one in told.snapshots] == [15]
    told = story([started(), dumped(30, 1, 40, seconds=20.0)])
    assert [one.t for one in told.snapshots] == [10]


def test_a_snapshot_tells_how_far_a_training_was_that_told_nothing_else_for_long() -> None:
    told = story(
        [started(), progress(5, 10), dumped(30, 1, 90), event(50, "interrupted", cause=""), restored(51, 1, 90)]
    )
    (one,) = told.interruptions
    assert (one.before.step, one.lost_steps) == (90, 0)
    assert [(sample.t, sample.told.step) for sample in told.samples] == [(5, 10), (28, 90), (51, 90)]


def test_a_preemption_costs_no_work_and_no_pause() -> None:
    told = story(
        [
            started(),
            progress(10, 20),
            event(11, "stopping", signal="SIGTERM"),
            dumped(14, 1, 22, trigger="preempt"),
            progress(14.1, 22),
            event(14.2, "stopped", how="preempted", signal="SIGTERM"),
            event(100, "interrupted", cause="it was stopped by SIGTERM (preemption)"),
            restored(102, 1, 22),
            progress(110, 40),
            event(111, "finished", exit_code=0),
        ]
    )
    (one,) = told.interruptions
    assert (one.t, one.lost_s, one.lost_steps, one.cause) == (12, 0, 0, "it was stopped by SIGTERM (preemption)")
    totals = add_up(told)
    assert (totals.downtime_s, totals.pauses_total_s, totals.useful_s) == (90, 0, 21)
    assert not any(sample.redone for sample in told.samples)
    assert (told.state, told.exit_code) == ("finished", 0)


def test_going_back_to_an_older_snapshot_undoes_the_work_of_two_lives_once() -> None:
    passed = {"snapshot": identifier(2), "reason": "packs/ab is damaged", "tip": None}
    told = story(
        [
            started(),
            dumped(12, 1, 20, frozen_time_us=0),
            dumped(32, 2, 60, frozen_time_us=0),
            progress(40, 80),
            event(50, "interrupted", cause="killed"),
            restored(50, 2, 60),
            progress(60, 80),
            event(70, "interrupted", cause="killed"),
            event(70, "restore", attempts=[passed, {"snapshot": identifier(1), "reason": None, "tip": None}]),
            restored(70, 1, 20),
            progress(80, 40),
        ]
    )
    first, second = told.interruptions
    assert (first.lost_steps, first.lost_s) == (20, 10)
    assert (second.lost_steps, second.lost_s) == (60, 20 + 10)
    assert second.passed_over == ((identifier(2), "packs/ab is damaged"),)
    totals = add_up(told)
    assert (totals.lost_steps, totals.lost_s, totals.useful_s) == (80, 40, 20)


def test_a_training_that_died_is_down_while_its_restart_waits() -> None:
    told = story(
        [
            started(),
            dumped(12, 1, 20),
            progress(20, 40),
            event(21, "died", reason="it ended with exit code 1", exit_code=1, backoff_s=5),
            restored(28, 1, 20),
            progress(40, 44),
        ]
    )
    (one,) = told.interruptions
    assert (one.t, one.downtime_s, one.lost_steps, one.cause) == (21, 7, 20, "it ended with exit code 1")


def test_a_training_left_running_though_it_stands_still_is_not_interrupted() -> None:
    told = story([started(), dumped(12, 1, 20), event(20, "stood_still", snapshot=identifier(1), limit_s=5, next=None)])
    assert (told.interruptions, told.state) == ((), "going on")
    following = event(20, "stood_still", snapshot=identifier(2), limit_s=5, next=identifier(1))
    told = story([started(), dumped(12, 1, 20), following, restored(22, 1, 20)])
    assert [one.cause for one in told.interruptions] == ["the restored training stood still"]


def test_a_training_that_lost_its_supervisor_alone_is_not_interrupted() -> None:
    lines = [started(), dumped(12, 1, 20), progress(20, 40), event(60, "adopted", init_pid=7, lost_supervisor_pid=6)]
    totals = add_up(story([*lines, progress(70, 140), event(71, "finished", exit_code=0)]))
    assert (totals.interruptions, totals.downtime_s, totals.step) == (0, 0, 140)


def test_a_restore_by_hand_is_told_as_such() -> None:
    told = story([started(), dumped(12, 1, 20), progress(20, 40), restored(90, 1, 20), progress(95, 30)])
    (one,) = told.interruptions
    assert one.cause == "the training was sent back to a snapshot by hand"
    assert (one.t, one.lost_steps) == (20, 20)


def test_the_last_interruption_is_no_restore_before_the_run_goes_on() -> None:
    told = story([started(), dumped(12, 1, 20), progress(20, 40), event(90, "interrupted", cause="killed")])
    totals = add_up(told)
    assert (told.state, totals.interruptions, totals.downtime_s) == ("interrupted", 0, 70)


def test_events_of_older_versions_tell_what_they_can_and_the_page_says_what_they_cannot() -> None:
    def old(when: float, kind: str, **fields: Any) -> Line:
        return {"at": at(when).replace(".000Z", "Z"), "event": kind, **fields}

    facts = {"trigger": "timer", "frozen_time_us": 100_000, "stored_bytes": 70, "seconds": 2.0, "notes": []}
    told = story(
        [
            old(0, "started", run=RUN, command=["true"], reason="first"),
            old(12, "dumped", snapshot=identifier(1), **facts),
            old(22, "dumped", snapshot=identifier(2), **facts),
            old(60, "interrupted", run=RUN, cause="killed"),
            old(62, "restored", snapshot=identifier(2), notes=[], warnings=[]),
            old(70, "finished", exit_code=0),
        ],
        {identifier(2): Manifested(Told(40), 800, 20, 3)},
    )
    totals = add_up(told)
    assert (totals.interruptions, totals.snapshots, totals.snapshots_kept, totals.pauses_total_s) == (1, 2, 1, 0.2)
    assert (totals.memory_bytes, totals.added_bytes) == (800, 20)
    assert told.snapshots[1].told.step == 40
    said = " ".join(told.notes)
    assert "told nothing of its progress" in said
    assert "to the second" in said
    assert "Of 2 snapshots the log doesn't tell the size" in said


def test_steps_that_begin_again_with_each_epoch_are_not_counted() -> None:
    def turn(when: float, epoch: int, step: int) -> Line:
        return event(when, "progress", epoch=epoch, step=step, metrics={})

    told = story(
        [
            started(),
            turn(2, 0, 10),
            turn(4, 1, 3),
            dumped(7, 1, 4, epoch=1, metrics={}),
            turn(8, 2, 1),
            event(20, "interrupted", cause="killed"),
            restored(21, 1, 4),
            turn(25, 2, 2),
        ]
    )
    assert told.counter == "epoch"
    assert [one.lost_steps for one in told.interruptions] == [None]
    assert add_up(told).lost_steps is None
    assert "counted in epochs" in " ".join(told.notes)


def test_torn_and_alien_lines_change_nothing() -> None:
    lines = killed_four_times()
    aliens: list[Any] = [
        {},
        {"at": at(10_000), "event": "visited", "run": RUN},
        {"at": "soon", "event": "dumped", "run": RUN},
        {"at": 7, "event": "restored"},
        {"event": "finished", "run": RUN},
        {"at": at(12), "event": ["dumped"], "run": RUN},
    ]
    assert story([*aliens, *lines[:20], *aliens, *lines[20:]]) == story(lines)


def test_a_clock_that_was_set_back_is_told_and_takes_no_time_away() -> None:
    told = story([started(), progress(100, 20), progress(40, 30), dumped(50, 1, 30), progress(120, 60)])
    assert told.wall_s == 120
    assert "set back by 1m" in " ".join(told.notes)
    assert [one.t for one in told.samples] == sorted(one.t for one in told.samples)


def test_each_run_of_a_store_has_a_story_of_its_own() -> None:
    later = [
        {**line, "run": "20261122T130000Z-ffffff", "at": at(4000 + number)}
        for number, line in enumerate([started(), progress(1, 2)])
    ]
    first, second = runs([*killed_four_times(), *later])
    assert (first.id, add_up(tell(first)).wall_s) == (RUN, 320)
    assert (second.id, add_up(tell(second)).wall_s) == ("20261122T130000Z-ffffff", 1)
    assert tell(second).began_at == BEGAN + 4000


KINDS = ["started", "progress", "dumped", "restored", "restore", "interrupted", "died", "stopped", "finished"]
KINDS += ["stood_still", "adopted"]
JUNK = st.none() | st.integers(-9, 10**12) | st.floats() | st.text(max_size=3) | st.just([])
LINES = st.lists(
    st.fixed_dictionaries(
        {"at": st.integers(0, 5000).map(at), "event": st.sampled_from(KINDS), "run": st.just(RUN)},
        optional={
            "snapshot": st.integers(1, 4).map(identifier) | JUNK,
            "trigger": st.sampled_from(["timer", "preempt"]) | JUNK,
            "attempts": st.just([{"reason": "no"}, 7]) | JUNK,
            "metrics": st.dictionaries(st.text(max_size=3), JUNK, max_size=2) | JUNK,
            **{
                name: st.integers(0, 10**6) | JUNK
                for name in ("step", "epoch", "seconds", "frozen_time_us", "memory_bytes", "added_bytes", "exit_code")
            },
        },
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=150, deadline=None)
@given(LINES)
def test_whatever_the_log_holds_there_is_a_page_and_the_parts_of_the_time_are_the_whole(lines: list[Line]) -> None:
    told = story(lines)
    totals = add_up(told)
    parts = (totals.useful_s, totals.lost_s, totals.downtime_s, totals.pauses_total_s)
    assert all(part >= 0 for part in parts)
    # Junk may tell of pauses that are longer than the run.
    assert sum(parts) == pytest.approx(totals.wall_s) if totals.useful_s else sum(parts) >= totals.wall_s - 1e-6
    assert "<h1>" in render(told)
