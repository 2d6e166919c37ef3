"""Whenever everything is killed, the run ends with the files of a run to which nothing happened."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest
from conftest import Reference, StartJob
from harness import Job, workload

pytestmark = [pytest.mark.criu, pytest.mark.slow, pytest.mark.timeout(180)]

STEPS = 240


def training(seed: int = 1) -> list[str]:
    return workload("files.py", "--steps", STEPS, "--delay", 0.04, "--seed", seed)


def assert_as_if_nothing_happened(job: Job, undisturbed: Reference) -> None:
    """Ended well, every file byte-equal (databases: same rows), none too many, none missing, one run throughout."""
    assert job.finish() == 0, job.history()
    expected = undisturbed(job.command)
    assert job.contents() == expected.contents
    assert job.output() == expected.output
    runs = {snapshot["run"] for snapshot in job.complete()}
    assert len(runs) == 1, f"a hidden cold start: {runs}"
    assert [event["event"] for event in job.events()].count("started") == 1


def right_after_a_snapshot(job: Job) -> None:
    job.wait_for_step(30)
    job.dump()


def some_steps_after_a_snapshot(job: Job, steps: int) -> None:
    right_after_a_snapshot(job)
    job.wait_for_progress(steps)


def when_the_timer_fired_for_the_third_time(job: Job) -> None:
    job.wait_for_snapshot(after=2)
    job.wait_for_progress(random.Random(3).randrange(10))


def while_a_dump_is_running(job: Job) -> None:
    right_after_a_snapshot(job)
    job.wait_for_state("dumping")


def while_criu_has_the_tree_frozen(job: Job) -> None:
    right_after_a_snapshot(job)
    job.criu()
    time.sleep(0.03)


def at_a_step_that_rotates_and_removes(job: Job) -> None:
    job.wait_for_step(44)
    job.dump()
    job.wait_for_step(92)


def near_the_end(job: Job) -> None:
    job.wait_for_step(100)
    job.dump()
    job.wait_for_step(STEPS - 15)


def before_the_next_snapshot_of_a_restored_run(job: Job) -> None:
    some_steps_after_a_snapshot(job, 10)
    job.kill_everything()
    job.start()
    job.wait_for_restore()
    job.wait_for_progress(2)


MOMENTS: dict[str, Callable[[Job], None]] = {
    "right after a snapshot": right_after_a_snapshot,
    "one step after a snapshot": lambda job: some_steps_after_a_snapshot(job, 1),
    "seven steps after a snapshot": lambda job: some_steps_after_a_snapshot(job, 7),
    "thirty steps after a snapshot": lambda job: some_steps_after_a_snapshot(job, 30),
    "when the timer fired for the third time": when_the_timer_fired_for_the_third_time,
    "while a dump is running": while_a_dump_is_running,
    "while CRIU has the tree frozen": while_criu_has_the_tree_frozen,
    "at a step that rotates and removes": at_a_step_that_rotates_and_removes,
    "near the end": near_the_end,
    "before the next snapshot of a restored run": before_the_next_snapshot_of_a_restored_run,
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_that_was_killed_leaves_what_an_undisturbed_one_leaves(
    start_job: StartJob, undisturbed: Reference, moment: str
) -> None:
    timer = "1s" if "timer" in moment or "dump is" in moment or "CRIU" in moment else "1h"
    job = start_job(training(), "--every", timer)
    MOMENTS[moment](job)
    job.kill_everything()
    assert job.steps() < STEPS, "the run ended before it could be killed"
    job.start()
    job.wait_for_restore()
    assert_as_if_nothing_happened(job, undisturbed)


@pytest.mark.parametrize("seed", [11, 12, 13])
def test_a_run_that_is_killed_at_random_again_and_again_leaves_what_an_undisturbed_one_leaves(
    start_job: StartJob, undisturbed: Reference, seed: int
) -> None:
    luck = random.Random(seed)
    job = start_job(training(seed), "--every", "1s")
    for _ in range(3):
        job.wait_for_snapshot(after=job.newest())
        time.sleep(luck.uniform(0, 1.2))
        job.kill_everything()
        job.start()
        job.wait_for_restore()
    assert_as_if_nothing_happened(job, undisturbed)


def test_a_run_to_which_nothing_happens_leaves_the_same_as_without_us(
    start_job: StartJob, undisturbed: Reference
) -> None:
    job = start_job(training(), "--every", "1s")
    job.wait_for_snapshot(after=2)
    assert_as_if_nothing_happened(job, undisturbed)
    assert len(job.complete()) >= 3


def test_files_that_others_change_beside_the_training_are_left_alone(
    start_job: StartJob, undisturbed: Reference
) -> None:
    job = start_job(training())
    job.wait_for_step(10)
    (job.work / "notes.txt").write_text("first thoughts\n")
    right_after_a_snapshot(job)
    (job.work / "notes.txt").write_text("second thoughts, longer\n")
    (job.work / "new.txt").write_text("made by someone else\n")
    job.kill_everything()
    job.start()
    job.wait_for_restore()
    assert job.finish() == 0
    left = job.contents()
    assert (job.work / "notes.txt").read_text() == "second thoughts, longer\n"
    assert (job.work / "new.txt").read_text() == "made by someone else\n"
    assert {name: what for name, what in left.items() if name not in ("notes.txt", "new.txt")} == undisturbed(
        job.command
    ).contents


def test_what_a_rollback_cuts_off_is_kept(start_job: StartJob) -> None:
    job = start_job(training())
    right_after_a_snapshot(job)
    lost = job.wait_for_progress(20)
    job.kill_everything()
    last_line = (job.work / "metrics.jsonl").read_text().splitlines()[-1]
    job.start()
    job.wait_for_restore()
    kept = b"".join(path.read_bytes() for path in job.store.glob("rollback/*/files/**/*") if path.is_file())
    assert last_line.encode() in kept, f"step {lost} was cut off and not kept"
