"""A training moves to an empty store: the same line as ever goes on from what was imported."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest
from conftest import Reference, StartJob
from harness import Job, workload

pytestmark = [pytest.mark.criu, pytest.mark.slow, pytest.mark.timeout(100)]

TRAINING = workload("plain.py", "--steps", 600, "--delay", 0.02)


def test_run_goes_on_from_a_snapshot_that_was_imported_into_an_empty_store(
    start_job: StartJob, undisturbed: Reference, place: Path
) -> None:
    job = start_job(TRAINING, "--every", "0", store=place / "store")
    job.wait_for_progress(10)
    job.send(signal.SIGTERM)
    assert job.wait() == 143
    exported = place / "exported"
    assert job.tell("snapshot", "export", "latest", str(exported)).code == 0
    shutil.rmtree(job.store)

    other = Job(job.place, TRAINING, "--every", "0", store=place / "other")
    imported = other.tell("snapshot", "import", str(exported))
    assert f"go on with `criu-train --store {other.store} run -- " in imported.text
    other.start()
    try:
        assert other.wait_for_restore()["restored_from"] == other.snapshots()[-1]["id"]
        assert other.finish() == 0
        assert other.contents() == undisturbed(TRAINING).contents
    finally:
        other.close()
