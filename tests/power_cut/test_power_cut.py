"""The power is cut ten times during one training, on the same disk; it ends as the undisturbed run does.

``POWER_CUT_SEED`` repeats the moments of an earlier run.
"""

from __future__ import annotations

import os
import random
import re
import time
from pathlib import Path

import pytest
from harness import contents

from power_cut.machine import Machine

pytestmark = [pytest.mark.criu, pytest.mark.slow, pytest.mark.power_cut, pytest.mark.timeout(5400)]

CUTS = int(os.environ.get("POWER_CUT_CUTS", "10"))
TRAIN = "python3 /usr/src/training/plain.py --steps 4000 --delay 0.05 --loopback --child"
RUN = f"mkdir -p job && cd job && criu-train run --every 3s --keep 3 -- {TRAIN}"
DOCTOR = "criu-train doctor"
REFERENCE = f"cd /data && mkdir ref && cd ref && {TRAIN} >../ref.out"
BOOT_S, SNAPSHOT_S, END_S = 600.0, 300.0, 1500.0
# A snapshot is due every three seconds, and takes three times as long here: so a cut meets any moment of it.
LATEST_S = 12.0


def snapshots(said: str) -> list[int]:
    """Sequence numbers of those that were called complete."""
    return [int(number) for number in re.findall(r"criu-train: snapshot \d+T\d+Z-(\d+) ", said)]


def restored(said: str) -> int | None:
    found = re.search(r"criu-train: restored \d+T\d+Z-(\d+)", said)
    return int(found[1]) if found else None


def test_ten_power_cuts_in_a_row_lose_nothing_but_the_time_since_the_last_snapshot(
    machine: Machine, place: Path
) -> None:
    seed = int(os.environ.get("POWER_CUT_SEED") or random.randrange(1 << 32))
    print(f"POWER_CUT_SEED={seed}")
    dice = random.Random(seed)
    (place / "empty").mkdir()
    machine.prepare(place / "empty")
    known = 0
    for cut in range(CUTS):
        machine.switch_on(f"{DOCTOR}\n{RUN}" if cut == 0 else RUN)
        machine.wait_for("watching, a snapshot every", BOOT_S)
        assert (restored(machine.said()) or 0) >= known, f"an older one than {known}:\n{machine.said()[-3000:]}"
        machine.wait_for("criu-train: snapshot ", SNAPSHOT_S)
        time.sleep(dice.uniform(0, LATEST_S))
        assert machine.on, machine.said()[-3000:]
        machine.cut()
        known = max(snapshots(machine.said()))
        print(f"cut {cut + 1}: snapshot {known} was complete, restored before: {restored(machine.said())}")
        if cut == 0:
            assert re.search(r"^ok +soft-dirty tracking", machine.said(), re.MULTILINE)
    machine.switch_on(f"touch hurry\n{RUN}\n{REFERENCE}")
    machine.wait_for("GUEST: ended with", END_S)
    machine.wait_until_off(BOOT_S)
    said = machine.said()
    assert (restored(said) or 0) >= known
    assert "the training is over: it ended with exit code 0" in said
    machine.files("/job", place / "job")
    machine.files("/ref", place / "ref")
    machine.files("/ref.out", place / "out")
    ours, theirs = contents(place / "job" / "job"), contents(place / "ref" / "ref")
    assert ours == theirs
    assert len(theirs) == 2
    output = (place / "job" / "job" / ".criu-train" / "output.log").read_bytes()
    assert output == (place / "out" / "ref.out").read_bytes()
