"""What can't work is refused with one clear line, a tip, and the documented exit code; nothing is touched."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import StartJob
from harness import Told, tell, workload

pytestmark = [pytest.mark.criu, pytest.mark.slow, pytest.mark.timeout(90)]

TRAINING = workload("plain.py", "--steps", 2000, "--delay", 0.02)
NOBODY = 65534


def assert_refused(told: Told, code: int, *words: str) -> None:
    assert told.code == code, told.text
    assert "Traceback" not in told.text
    assert len(told.err.strip().splitlines()) <= 6, f"more than a line and a tip:\n{told.err}"
    for word in words:
        assert word in told.err, f"{word!r} is not in:\n{told.err}"


def wrapped(wrapper: list[str], *arguments: str, cwd: Path, **env: str) -> Told:
    """criu-train started by another program, say one that takes privileges away."""
    return tell(*arguments, cwd=cwd, env=env, by=wrapper)


def test_without_root_it_says_so(place: Path) -> None:
    place.chmod(0o777)
    # Nobody at all, save that it may read the interpreter wherever that lies.
    reader = ["--inh-caps", "-all,+dac_read_search", "--ambient-caps", "-all,+dac_read_search"]
    nobody = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", *reader]
    told = wrapped(nobody, "run", "--", *TRAINING, cwd=place)
    assert_refused(told, 125, "root")
    assert not (place / "metrics.jsonl").exists()


def test_without_a_criu_it_says_how_to_get_one(place: Path) -> None:
    hide = (
        "for d in /usr/local/sbin /usr/local/bin /usr/sbin /usr/bin; do"
        ' [ ! -e "$d/criu" ] || mount --bind /dev/null "$d/criu"; done; exec "$@"'
    )
    hidden = ["unshare", "--mount", "sh", "-c", hide, "sh"]
    nowhere = {"CRIU_TRAIN_PREFIX": str(place / "nowhere"), "CRIU_TRAIN_CRIU": ""}
    told = wrapped(hidden, "run", "--", *TRAINING, cwd=place, **nowhere)
    assert_refused(told, 125, "CRIU", "criu-train setup")
    assert not (place / "metrics.jsonl").exists()


def test_a_command_that_does_not_exist_leaves_no_run_behind(place: Path) -> None:
    assert_refused(tell("run", "--", "no-such-program", cwd=place), 127, "no-such-program")
    assert tell("snapshot", "list", "--json", cwd=place).json() == []
    told = tell("run", "--", *workload("plain.py", "--steps", 2), cwd=place)
    assert told.code == 0, told.text


def test_a_command_that_is_not_executable_is_refused_with_126(place: Path) -> None:
    (place / "train.sh").write_text("#!/bin/sh\n")
    assert_refused(tell("run", "--", "./train.sh", cwd=place), 126, "train.sh")


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--every", "soon", "--", "true"],
        ["run", "--grace", "-3s", "--", "true"],
        ["run", "--file-limit", "many", "--", "true"],
        ["run", "--keep", "0", "--", "true"],
        ["run", "--on-restore-failure", "maybe", "--", "true"],
        ["run", "--cold-command", " ", "--", "true"],
        ["run", "--cold-command", "python 'train.py", "--", "true"],
        ["run"],
        ["restore"],
        ["restore", "--latest", "20261121T204512Z-000007"],
        ["nonsense"],
    ],
    ids=" ".join,
)
def test_a_wrong_call_is_refused_with_2_and_makes_no_store(place: Path, arguments: list[str]) -> None:
    told = tell(*arguments, cwd=place)
    assert told.code == 2, told.text
    assert "Traceback" not in told.text
    assert not (place / ".criu-train").exists()


def test_a_store_in_use_is_refused_and_the_supervisor_is_named(start_job: StartJob) -> None:
    job = start_job(TRAINING, "--every", "1h")
    job.wait_for_step(3)
    assert job.process is not None
    assert_refused(job.tell("run", "--", *TRAINING), 125, str(job.process.pid))
    assert_refused(job.tell("restore", "--latest"), 125)
    job.wait_for_progress()


def test_another_command_in_the_same_store_is_refused_unless_fresh(start_job: StartJob) -> None:
    job = start_job(TRAINING, "--every", "1h")
    job.wait_for_step(3)
    job.dump()
    job.kill_everything()
    other = [sys.executable, "-c", "print('another training')"]
    assert_refused(job.tell("run", "--", *other), 125, "--fresh")
    assert len(job.complete()) == 1
    fresh = job.tell("run", "--fresh", "--", *other)
    assert fresh.code == 0, fresh.text
    assert job.output() == "another training\n"


def test_a_store_that_others_can_write_to_is_refused(place: Path) -> None:
    assert tell("run", "--", "true", cwd=place).code == 0
    store = place / ".criu-train"
    store.chmod(0o770)
    assert_refused(tell("run", "--", "true", cwd=place), 125, str(store.name))
    store.chmod(0o700)
    assert tell("run", "--", "true", cwd=place).code == 0


def test_a_store_of_another_user_is_refused(place: Path) -> None:
    assert tell("run", "--", "true", cwd=place).code == 0
    store = place / ".criu-train"
    os.chown(store, NOBODY, NOBODY)
    assert_refused(tell("run", "--", "true", cwd=place), 125, str(store.name))
    assert_refused(tell("restore", "--latest", cwd=place), 125)


def test_nothing_to_restore_is_refused(place: Path) -> None:
    assert_refused(tell("restore", "--latest", cwd=place), 125)
    assert_refused(tell("restore", "20261121T204512Z-000007", cwd=place), 125)
    assert_refused(tell("dump", cwd=place), 125)
    assert tell("snapshot", "list", "--json", cwd=place).json() == []


def test_doctor_says_whether_a_run_would_work(place: Path) -> None:
    told = tell("doctor", "--json", cwd=place)
    verdict = told.json()
    assert told.code == 0, told.text
    assert verdict["ok"] is True
    assert all({"name", "ok", "detail", "tip"} <= set(check) for check in verdict["checks"])
    version = subprocess.run([*verdict["criu"]["command"], "--version"], capture_output=True, text=True, check=True)
    assert verdict["criu"]["version"] in version.stdout
