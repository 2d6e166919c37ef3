"""criu-train in a container: the image that the Dockerfile makes, overlayfs below, Docker's rights around it."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from containers import DEFAULT, PRIVILEGED, UNCONFINED, Rights
from harness import contents, until
from runs import STEPS, assert_as_if_nothing_happened, run, snapshots, training, wait_for_snapshot

if TYPE_CHECKING:
    from container_fixtures import Images, Left, MakeContainer

pytestmark = [pytest.mark.criu, pytest.mark.alone, pytest.mark.slow, pytest.mark.timeout(420)]

# Not in a conftest.py: two of that name would get in each other's way.
pytest_plugins = ("container_fixtures",)

SMALLEST = UNCONFINED.with_capabilities("DAC_READ_SEARCH", "NET_ADMIN", "SYS_ADMIN", "SYS_PTRACE", "SYS_TIME")


def kill_and_carry_on(make: MakeContainer, work: Path, command: tuple[str, ...], rights: Rights) -> None:
    """SIGKILL for a container some steps after a snapshot; the same command in a new one of the same image."""
    first = make(work, rights=rights).start(*run(command))
    wait_for_snapshot(first, work / ".criu-train")
    time.sleep(0.4)
    first.kill()
    code, said = make(work, rights=rights).run(*run(command))
    assert code == 0, said


@pytest.mark.parametrize("start_method", ["fork", "forkserver"])
def test_a_killed_container_is_carried_on_by_a_new_one_as_if_nothing_had_happened(
    container: MakeContainer, place: Path, left_alone: Callable[..., Left], start_method: str
) -> None:
    command = training(start_method)
    kill_and_carry_on(container, place / "work", command, PRIVILEGED)
    assert_as_if_nothing_happened(place / "work", left_alone(command))


def test_a_working_directory_inside_the_container_survives_its_kill_and_restart(
    container: MakeContainer, place: Path, left_alone: Callable[..., Left]
) -> None:
    made = container()
    work = made.upper / "app"
    made.start(*run(training()))
    wait_for_snapshot(made, work / ".criu-train", 2)
    time.sleep(0.4)
    made.kill()
    code, said = made.run(*run(training()))
    assert code == 0, said
    expected = left_alone(training())
    left = contents(work)
    notes = left.pop("notes.txt")  # a file of the image, written to: it is in the working directory here
    assert f"{STEPS + 1} lines" in notes
    assert left == expected.contents
    assert (work / ".criu-train/output.log").read_text() == expected.output


def test_what_overlayfs_hides_is_told_and_the_working_directory_is_exact_all_the_same(
    container: MakeContainer, place: Path, left_alone: Callable[..., Left]
) -> None:
    work = place / "work"
    plain = ("run", "--every", "1.5s", "--", *training())
    first = container(work).start(*plain)
    wait_for_snapshot(first, work / ".criu-train")
    time.sleep(0.4)
    first.kill()
    code, said = container(work).run(*plain)
    assert code == 0, said
    assert "--workspace" in said
    left, expected = contents(work), dict(left_alone(training()).contents)
    # What was written elsewhere and closed again is not there in a new container: only that may differ.
    assert left.pop("outside.json")
    assert expected.pop("outside.json")
    assert left == expected


@pytest.mark.parametrize("entrypoint", [None, ("criu-train",)], ids=["tini is PID 1", "criu-train is PID 1"])
def test_docker_stop_loses_nothing(
    container: MakeContainer, place: Path, left_alone: Callable[..., Left], entrypoint: tuple[str, ...] | None
) -> None:
    work, command = place / "work", training()
    metrics = work / "metrics.jsonl"
    first = container(work).start(*run(command), entrypoint=entrypoint)
    until(lambda: metrics.exists() and metrics.stat().st_size > 400, "progress")
    assert first.stop() == 143, first.said()
    assert [manifest["trigger"] for manifest in snapshots(work / ".criu-train")][-1] == "preempt"
    stopped_at = metrics.read_bytes()
    code, said = container(work).run(*run(command), entrypoint=entrypoint)
    assert code == 0, said
    assert metrics.read_bytes().startswith(stopped_at)
    assert_as_if_nothing_happened(work, left_alone(command))


ORPHAN = """
import os, time
if os.fork() == 0:
    if os.fork() == 0:
        time.sleep(0.5)
    os._exit(0)
os.wait()
"""


def test_what_loses_its_parent_is_reaped_inside_the_cell_and_beside_it(container: MakeContainer, place: Path) -> None:
    work = place / "work"
    program = f"{ORPHAN}\nopen('orphaned', 'w').close()\ntime.sleep(4)\nos._exit(7)"
    made = container(work).start("run", "--max-restarts", "0", "--", "python3", "-c", program)
    until((work / "orphaned").exists, "the training")
    code, said = made.execute("python3", "-c", ORPHAN)
    assert code == 0, said
    time.sleep(1.0)  # until both orphans have ended
    assert made.zombies() == []
    code, said = made.execute("criu-train", "dump")
    assert code == 0, said
    assert made.wait() == 7, made.said()


def test_docker_kill_with_sigusr1_takes_a_snapshot(container: MakeContainer, place: Path) -> None:
    store = place / "work/.criu-train"
    made = container(place / "work").start(*run(training()))
    until((store / "output.log").exists, "the training")
    time.sleep(0.3)
    made.signal(signal.SIGUSR1)
    wait_for_snapshot(made, store)
    assert snapshots(store)[0]["trigger"] == "signal"
    made.kill()


def test_the_image_tells_what_it_is_for(container: MakeContainer, images: Images) -> None:
    code, said = container().run()
    assert code == 0
    assert "Make a long training run unbreakable" in said


def test_the_doctor_finds_a_privileged_container_fit(container: MakeContainer, place: Path) -> None:
    code, said = container(place / "work").run("doctor")
    assert code == 0, said


@pytest.mark.parametrize("arguments", [("doctor",), run(training()), ("setup",)])
def test_an_unprivileged_container_is_told_what_it_lacks(
    container: MakeContainer, place: Path, arguments: tuple[str, ...]
) -> None:
    work = place / "work"
    code, said = container(work, rights=DEFAULT).run(*arguments)
    assert code == 125, said
    assert "Traceback" not in said
    assert "CAP_SYS_ADMIN" in said
    assert "--privileged" in said
    assert "kernel of" not in said, "the kernel is not to blame"
    assert not list(work.glob("*")), "nothing may have been started"


def test_the_smallest_set_of_rights_carries_a_training_on(
    container: MakeContainer, place: Path, left_alone: Callable[..., Left]
) -> None:
    kill_and_carry_on(container, place / "work", training("forkserver"), SMALLEST)
    assert_as_if_nothing_happened(place / "work", left_alone(training("forkserver")))


@pytest.mark.parametrize("missing", sorted(SMALLEST.capabilities - UNCONFINED.capabilities))  # type: ignore[operator]
def test_each_capability_of_the_smallest_set_is_missed_by_name(
    container: MakeContainer, place: Path, missing: str
) -> None:
    assert SMALLEST.capabilities is not None
    rights = Rights(SMALLEST.capabilities - {missing}, unmasked=False)
    code, said = container(place / "work", rights=rights).run(*run(training()))
    assert code == 125, said
    assert f"CAP_{missing}" in said
    assert "Traceback" not in said


def test_a_training_of_another_user_needs_one_more(container: MakeContainer, place: Path) -> None:
    code, said = container(place / "work", rights=SMALLEST).run("run", "--user", "nobody", "--", "true")
    assert code == 125, said
    assert "CAP_SYS_RESOURCE" in said
    assert "Traceback" not in said


def test_a_seccomp_filter_around_the_container_is_told(container: MakeContainer, place: Path) -> None:
    rights = Rights(SMALLEST.capabilities, unmasked=False, seccomp=True)
    code, said = container(place / "work", rights=rights).run(*run(training()))
    assert code == 125, said
    assert "seccomp=unconfined" in said
    assert "Traceback" not in said
