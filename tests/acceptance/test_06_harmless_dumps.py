"""Whatever happens to a dump, the training runs on, its connections work, and a later dump succeeds."""

from __future__ import annotations

import contextlib
import shlex
import signal
from collections.abc import Callable
from pathlib import Path
from shutil import disk_usage

import psutil
import pytest
from conftest import Reference, StartJob
from harness import Job, link_remaps, torchrun, until, workload

pytestmark = [pytest.mark.criu, pytest.mark.slow, pytest.mark.timeout(180)]

BIG_MIB = 1500
LIMIT = "3s"  # beside what a dump of so much memory may take


def talking(*more: object) -> list[str]:
    """A training that needs its child and its loopback connection in every step."""
    return workload("plain.py", "--steps", 3000, "--delay", 0.02, "--loopback", "--child", *more)


def failures(job: Job) -> int:
    return int(job.supervisor().get("dumps_failed", 0))


def archivist(job: Job) -> psutil.Process:
    """The process that takes the images in."""
    assert job.process is not None
    children = psutil.Process(job.process.pid).children()
    return next(child for child in children if any("archive" in word for word in child.cmdline()))


def taken_in(job: Job) -> int:
    """Bytes that CRIU has handed over so far, in all dumps."""
    with contextlib.suppress(StopIteration, psutil.NoSuchProcess):
        return int(archivist(job).io_counters().read_chars)
    return 0


def assert_explained(job: Job, *words: str) -> None:
    """What went wrong is on record, in words: a failure with its tip, or a note to a snapshot that still came."""
    event = next(e for e in reversed(job.events()) if e["event"] in ("dump_failed", "dumped"))
    told = " ".join(str(value) for value in event.values())
    assert event.get("tip") or event.get("notes"), f"nothing is explained: {event}"
    for word in words:
        assert word in told, f"{word!r} is not in {event}"


def wait_for_the_end_of_the_dump(job: Job) -> None:
    until(lambda: any(e["event"] in ("dump_failed", "dumped") for e in job.events()), "the dump to end", 90)


def assert_unharmed(job: Job, file: str = "metrics.jsonl") -> None:
    """Steps go on, nothing is stopped, and the next dump gives a snapshot."""
    job.wait_for_progress(5, file)
    root = psutil.Process(job.wait_for_pid("root_pid"))
    for process in [root, *root.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            assert process.status() not in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
    before = job.newest()
    job.dump()
    assert job.newest() > before
    job.wait_for_progress(5, file)


def stop_it_early(job: Job) -> None:
    job.criu().suspend()


def stop_it_while_it_streams(job: Job) -> None:
    process = streaming(job)
    process.suspend()


def kill_it_while_it_streams(job: Job) -> None:
    streaming(job).kill()


def streaming(job: Job) -> psutil.Process:
    """CRIU in the middle of writing pages."""
    before = taken_in(job)
    process = job.criu()
    until(lambda: taken_in(job) > before + (8 << 20) or not process.is_running(), "CRIU writing pages", 30)
    assert process.is_running(), "CRIU was done before it could be disturbed"
    return process


DISASTERS: list[Callable[[Job], None]] = [stop_it_early, stop_it_while_it_streams, kill_it_while_it_streams]


@pytest.mark.parametrize("disaster", DISASTERS, ids=lambda disaster: disaster.__name__)
def test_a_disturbed_criu_harms_neither_the_training_nor_the_next_dump(
    start_job: StartJob, disaster: Callable[[Job], None]
) -> None:
    job = start_job(talking("--memory", BIG_MIB), "--every", "1h", "--dump-timeout", LIMIT)
    job.wait_for_step(5)
    job.send(signal.SIGUSR1)
    disaster(job)
    wait_for_the_end_of_the_dump(job)
    assert_explained(job, "stopped" if "stop" in disaster.__name__ else "killed")
    assert_unharmed(job)
    assert job.status()["restarts"] == 0


def test_a_run_whose_criu_was_killed_ends_as_if_nothing_had_happened(
    start_job: StartJob, undisturbed: Reference
) -> None:
    command = workload("plain.py", "--steps", 1000, "--delay", 0.02, "--loopback", "--child", "--memory", 800)
    job = start_job(command, "--every", "1h")
    for _ in range(3):
        job.wait_for_progress(10)
        job.send(signal.SIGUSR1)
        streaming(job).kill()
        job.wait_for_state("running")
    assert job.finish() == 0
    assert job.contents() == undisturbed(command).contents


def test_threads_that_wait_for_a_connection_notice_nothing_of_a_criu_that_is_killed(
    start_job: StartJob, undisturbed: Reference
) -> None:
    """They stand without CRIU's code in them: what lets them go is CRIU's death itself."""
    command = workload("listeners.py", "--steps", 1000, "--memory", 800)
    job = start_job(command, "--every", "1h")
    for _ in range(5):
        job.wait_for_progress(10)
        job.send(signal.SIGUSR1)
        streaming(job).kill()
        job.wait_for_state("running")
    assert_unharmed(job)
    assert job.finish() == 0
    assert job.contents() == undisturbed(command).contents


def test_connections_work_on_when_another_process_is_killed_while_criu_dumps(start_job: StartJob) -> None:
    """CRIU gives up then in the middle of its work, and clears nothing up."""
    beside = ["sh", "-c", 'sleep 1000 & exec "$@"', "sh", *talking("--memory", BIG_MIB)]
    job = start_job(beside, "--every", "1h")
    job.wait_for_step(5)
    [sleeper] = [task for task in psutil.Process(job.wait_for_pid("root_pid")).children() if task.name() == "sleep"]
    job.send(signal.SIGUSR1)
    streaming(job)
    sleeper.kill()
    wait_for_the_end_of_the_dump(job)
    assert_unharmed(job)
    assert job.status()["restarts"] == 0


def test_a_descriptor_that_criu_cannot_handle_is_named_and_costs_nothing(start_job: StartJob, place: Path) -> None:
    wish = place / "undumpable"
    wish.touch()
    job = start_job(talking("--control", str(place)), "--every", "1h")
    job.wait_for_step(5)
    told = job.tell("dump")
    assert told.code == 125
    assert "userfaultfd" in told.text
    assert "Traceback" not in told.text
    assert_explained(job, "userfaultfd")
    assert failures(job) == 1
    assert "userfaultfd" in job.said()
    job.wait_for_progress(5)
    wish.unlink()
    job.wait_for_progress(3)
    assert_unharmed(job)


def test_a_failed_dump_is_tried_again_at_the_next_interval(start_job: StartJob, place: Path) -> None:
    wish = place / "undumpable"
    wish.touch()
    job = start_job(talking("--control", str(place)), "--every", "2s")
    until(lambda: failures(job) >= 2, "two dumps to fail", 30)
    assert job.newest() == 0
    wish.unlink()
    assert job.wait_for_snapshot(deadline_s=15)["trigger"] == "timer"


@pytest.mark.parametrize("small_disk", ["240M"], indirect=True)
def test_without_room_for_a_snapshot_none_is_begun(small_disk: Path, start_job: StartJob) -> None:
    filler = small_disk / "filler"
    filler.write_bytes(bytes(200 << 20))
    job = start_job(talking("--memory", 60), "--every", "1h", store=small_disk / "store")
    job.wait_for_step(5)
    told = job.tell("dump")
    assert told.code == 125
    assert "room" in told.text
    assert_explained(job, "room")
    filler.unlink()
    assert_unharmed(job)


@pytest.mark.parametrize("small_disk", ["240M"], indirect=True)
def test_a_disk_that_fills_up_in_the_middle_fails_the_dump_and_leaves_room_for_the_next(
    small_disk: Path, start_job: StartJob
) -> None:
    job = start_job(talking("--memory", 100, "--quiet"), "--every", "1h", store=small_disk / "store")
    job.wait_for_step(5)
    job.send(signal.SIGUSR1)
    process = job.criu()
    process.suspend()
    filler = small_disk / "filler"
    filler.write_bytes(bytes(disk_usage(small_disk).free - (20 << 20)))
    process.resume()
    until(lambda: failures(job) == 1, "the dump to fail", 60)
    assert_explained(job)
    filler.unlink()
    assert_unharmed(job)


def test_a_supervisor_killed_alone_leaves_the_training_running_and_no_second_copy_starts(
    start_job: StartJob, undisturbed: Reference
) -> None:
    command = workload("plain.py", "--steps", 1000, "--delay", 0.02, "--child")
    job = start_job(command, "--every", "1h")
    job.wait_for_step(5)
    job.dump()
    init = job.wait_for_pid("init_pid")
    job.kill_supervisor()
    assert job.status()["state"] == "lost"
    job.wait_for_progress(5)

    for call in (["run", "--fresh", "--", *command], ["restore", "--latest"]):
        refused = job.tell(*call)
        assert refused.code == 125
        assert str(init) in refused.text
        assert "Traceback" not in refused.text
    job.wait_for_progress(5)
    psutil.Process(init).kill()
    until(lambda: not psutil.pid_exists(init), "the cell to go")
    job.start()
    job.wait_for_restore()
    assert job.finish() == 0
    assert job.contents() == undisturbed(command).contents


def test_a_supervisor_killed_in_the_middle_of_a_dump_leaves_the_training_running(start_job: StartJob) -> None:
    job = start_job(talking("--memory", BIG_MIB), "--every", "1h")
    job.wait_for_step(5)
    job.send(signal.SIGUSR1)
    streaming(job)
    init = psutil.Process(job.wait_for_pid("init_pid"))
    job.kill_supervisor()
    job.wait_for_progress(10)
    assert [s for s in job.snapshots() if s["status"] == "complete"] == []
    init.kill()
    until(lambda: not init.is_running(), "the cell to go")


def test_a_training_that_ended_unwatched_is_not_trained_again(start_job: StartJob) -> None:
    command = workload("plain.py", "--steps", 150, "--delay", 0.02)
    job = start_job(command, "--every", "1h")
    job.wait_for_step(5)
    job.dump()
    init = job.wait_for_pid("init_pid")
    job.kill_supervisor()
    until(lambda: not psutil.pid_exists(init), "the training and its cell to end", 30)
    job.start()
    assert job.finish() == 0
    assert job.steps() == 150
    job.start()
    assert job.finish() == 0
    assert job.steps() == 300, "the run after one that ended is a new one"


@pytest.mark.torch
@pytest.mark.parametrize("disaster", [stop_it_early, kill_it_while_it_streams], ids=lambda d: d.__name__)
def test_a_disturbed_criu_does_not_hang_a_ddp_job(
    start_job: StartJob, undisturbed: Reference, disaster: Callable[[Job], None]
) -> None:
    command = torchrun("--steps", 800, "--delay", 0.03)
    job = start_job(command, "--every", "1h", "--dump-timeout", LIMIT)
    job.wait_for_step(10, "rank0.jsonl")
    job.send(signal.SIGUSR1)
    disaster(job)
    wait_for_the_end_of_the_dump(job)
    assert_explained(job)
    for rank in range(2):
        job.wait_for_progress(5, f"rank{rank}.jsonl")
    assert_unharmed(job, "rank0.jsonl")
    assert job.finish(120) == 0
    assert job.contents() == undisturbed(command).contents


def test_a_child_in_a_network_of_its_own_is_told_at_the_dump_and_not_at_a_restore_that_fails(
    start_job: StartJob,
) -> None:
    training = shlex.join(workload("plain.py", "--steps", 2000, "--delay", 0.02))
    job = start_job(["sh", "-c", f"unshare --net sleep 1000 & exec {training}"], "--every", "1h")
    job.wait_for_step(5)
    told = job.tell("dump")
    assert told.code == 125
    assert "network namespace of its own" in told.text
    assert job.complete() == []
    job.wait_for_progress(5)


def test_an_impatient_user_in_the_middle_of_the_last_dump_leaves_no_links_to_deleted_files(
    start_job: StartJob, place: Path
) -> None:
    """With a spawn pool CRIU links semaphores whose names are gone; here nobody is left by whom to find them."""
    halt = place / "halt"
    halt.mkdir()
    pool = workload("pool.py", "--start-method", "spawn", "--steps", 1000)
    job = start_job(pool, "--every", "1h", env={"CRIU_TRAIN_HALT_AT": f"dump-frozen:{halt}"})
    job.wait_for_step(3)
    before = link_remaps()
    (halt / "armed").touch()
    job.send(signal.SIGINT)
    until((halt / "reached").exists, "the last dump")
    assert link_remaps() > before
    job.send(signal.SIGINT)
    (halt / "go").touch()
    assert job.wait() == 130
    assert link_remaps() == before


def test_links_that_a_killed_criu_has_left_are_not_in_the_way_though_their_files_have_other_names(
    start_job: StartJob, place: Path
) -> None:
    """As semaphores have, when the tree was killed together with the CRIU that linked them."""
    shared = Path("/dev/shm")
    before = link_remaps()
    other_name = shared / place.name
    other_name.touch()
    try:
        for number in range(1, 300):
            (shared / f"link_remap.{number}").hardlink_to(other_name)
        job = start_job(workload("pool.py", "--start-method", "spawn", "--steps", 1000), "--every", "1h")
        job.wait_for_step(3)
        job.dump()
        assert link_remaps() == before
        assert other_name.stat().st_nlink == 1
    finally:
        other_name.unlink()
