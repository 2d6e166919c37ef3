"""Names that are no text, or that hold what a shell would stumble over, are names like any other."""

from __future__ import annotations

import os
import sys

import pytest
from conftest import Reference, StartJob

pytestmark = [pytest.mark.criu, pytest.mark.slow, pytest.mark.timeout(120)]

TRAINING = r"""
import os, socket, time
from pathlib import Path
os.makedirs(b"caf\xe9 one"); os.chdir(b"caf\xe9 one")
log = open(b"l\xf6g 'quoted'\n.txt", "a", buffering=1)
held = open(b"\xff\xfe", "wb"); held.write(b"123"); held.flush()
gone = open(b"gone\xfe", "wb"); gone.write(b"12345"); gone.flush(); os.unlink(b"gone\xfe")
bound = socket.socket(socket.AF_UNIX); bound.bind(b"s\xf6cket")
for step in range(600):
    log.write(f"{step}\n")
    with open("../metrics.jsonl", "a") as metrics:
        metrics.write(f"{step}\n")
    Path(os.fsdecode(b"ep\xf6che")).write_text(str(step))
    if not Path("../../hurry").exists():
        time.sleep(0.03)
assert os.fstat(gone.fileno()).st_size == 5
os.unlink(b"s\xf6cket")
"""


def test_files_whose_names_are_no_text_are_carried(start_job: StartJob, undisturbed: Reference) -> None:
    command = [sys.executable, "-c", TRAINING]
    job = start_job(command, "--every", "1h")
    for _ in range(2):
        job.wait_for_progress(10)
        job.dump()
        job.wait_for_progress(5)
        job.kill_everything()
        job.start()
        job.wait_for_restore()
    assert job.tell("snapshot", "diff", "1", "2").code == 0
    assert job.tell("snapshot", "show", "latest", "--json").code == 0
    assert job.finish() == 0
    left = {os.fsencode(path): what for path, what in job.contents().items()}
    assert left == {os.fsencode(path): what for path, what in undisturbed(command).contents.items()}
