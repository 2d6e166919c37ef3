"""A second root directory, with the same libraries and nothing else of the first machine: a run goes on there."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from conftest import Reference, StartJob
from harness import Job, workload
from places import after, assert_refused, call, move, run_on, second_root, stopped, taken_in

pytestmark = [pytest.mark.criu, pytest.mark.slow, pytest.mark.timeout(120)]

DATA = """
import json, os, time
table, big = open("table.csv"), open("big.bin", "rb")
os.makedirs("/tmp/criu-train-another-place", exist_ok=True)
with open("metrics.jsonl", "a") as metrics:
    for step in range(400):
        big.seek(step * 1000)
        metrics.write(json.dumps([step, table.readline(), sum(big.read(1000))]) + "\\n")
        metrics.flush()
        with open("/tmp/criu-train-another-place/newest", "w") as newest:
            newest.write(str(step))
        if step % 50 == 0:
            os.mkdir(f"epoch{step}")
            with open(f"epoch{step}/weights", "w") as weights:
                weights.write(str(step))
        print("step", step, flush=True)
        if not os.path.exists("../hurry"):
            time.sleep(0.03)
with open("/tmp/criu-train-another-place/newest") as newest, open("last", "w") as last:
    last.write(newest.read())
"""


def test_on_another_machine_an_imported_run_says_which_data_it_misses_and_goes_on_with_them(
    start_job: StartJob, place: Path
) -> None:
    work = place / "job" / "work"
    work.mkdir(parents=True)
    (work / "table.csv").write_text("".join(f"row {number}\n" for number in range(400)))
    (work / "big.bin").write_bytes(bytes(range(256)) * (10 << 12))  # 10 MiB: more than is kept of what is only read
    job = stopped(start_job([sys.executable, "-c", DATA], "--every", "0"))
    assert job.tell("snapshot", "export", "latest", str(place / "exported")).code == 0

    root = place / "root"
    there = (*second_root(root), "env", "-C")
    inside = root / str(work).lstrip("/")
    move(place / "exported", root / "var/tmp/exported")
    other = Job(place, job.command, store=Path("/srv/store"))

    imported = call(other, (*there, "/"), "snapshot", "import", "/var/tmp/exported", cwd=place)
    assert imported.code == 0, imported.text
    assert f"in {work}, which has to be made first" in imported.out
    refused = call(other, (*there, "/"), "restore", "--latest", cwd=place)
    assert_refused(refused, f"{work}/big.bin is missing", "copy it from where the training was")
    assert not inside.exists()

    inside.mkdir(parents=True)
    move(work / "big.bin", inside / "big.bin")
    (inside.parent / "hurry").touch()
    told = run_on(other, (*there, str(work)), cwd=place)
    assert told.code == 0, told.text
    assert "step 399" in told.text, "its output is seen there"
    lines = [json.loads(line) for line in (inside / "metrics.jsonl").read_text().splitlines()]
    block = sum(bytes(range(256)) * 4)
    assert [line[:2] for line in lines] == [[step, f"row {step}\n"] for step in range(400)]
    assert all(0 < line[2] < block for line in lines)
    assert (inside / "last").read_text() == "399"
    assert sorted(path.name for path in inside.glob("epoch*")) == sorted(f"epoch{step}" for step in range(0, 400, 50))
    assert len((root / "srv/store/output.log").read_text().splitlines()) == 400


def test_processes_with_shared_memory_and_semaphores_go_on_in_another_root(
    undisturbed: Reference, place: Path, nothing_stays_behind: None
) -> None:
    command = workload("pool.py", "--start-method", "spawn", "--steps", 200, "--renew", 150)
    job = taken_in(after("mount -t tmpfs shm /dev/shm"), command, place)
    root = place / "root"
    there = (*second_root(root), "env", "-C", str(job.work))
    inside = Job(root / str(job.place).lstrip("/"), command)
    inside.work.rmdir()
    move(job.work, inside.work)
    (inside.place / "hurry").touch()
    told = run_on(Job(place, command, store=job.store), there, cwd=place)
    assert told.code == 0, told.text
    assert "cold start" not in told.text
    assert inside.contents() == undisturbed(command).contents
