"""Trainings of frameworks with our callback, killed five times: dumps fall between two steps, and nothing differs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import Reference, StartJob
from harness import Job, run_undisturbed, until, workload

pytestmark = [pytest.mark.criu, pytest.mark.zoo, pytest.mark.slow, pytest.mark.timeout(300)]

KILLS = 5
BY_THE_CALLBACK = 2  # which of them comes after a snapshot that the callback took at the end of an epoch
LIMIT_S = 120.0


@dataclass(frozen=True)
class Training:
    name: str
    script: str
    arguments: tuple[object, ...]
    loss: str  # by the name in the snapshots
    ranks: int = 1
    env: str = ""

    @property
    def command(self) -> list[str]:
        python, script, *arguments = workload(f"tests/workloads/frameworks/{self.script}", *self.arguments)
        return [*(["env", self.env] if self.env else []), python, script, *arguments]


LIGHTNING = ("lightning_digits.py", ("--checkpoint-every-epochs", 2))
TRAININGS = [
    Training("lightning", *LIGHTNING, "train/loss"),
    Training("pytorch-lightning", LIGHTNING[0], (*LIGHTNING[1], "--name", "pytorch_lightning"), "train/loss"),
    Training("lightning-ddp", LIGHTNING[0], (*LIGHTNING[1], "--ranks", 2), "train/loss", ranks=2),
    Training("transformers", "transformers_sums.py", (2,), "loss", env="HF_HUB_OFFLINE=1"),
    Training("keras-jax", "keras_wine.py", (4,), "loss", env="KERAS_BACKEND=jax"),
    Training("keras-torch", "keras_wine.py", (4,), "loss", env="KERAS_BACKEND=torch"),
]
SHORT = ("transformers",)

EXAMPLE = workload("examples/train_with_hooks.py", "--epochs", 12)


def marked(training: Training) -> Any:
    return pytest.param(training, id=training.name, marks=[pytest.mark.short] if training.name in SHORT else [])


def facts(job: Job, snapshot: str) -> Any:
    return json.loads((job.store / "snapshots" / snapshot / "manifest.json").read_text())


def losses(lines: Sequence[str]) -> list[float]:
    return [json.loads(line)["loss"] for line in lines]


@pytest.mark.parametrize("training", [marked(training) for training in TRAININGS])
def test_a_training_with_our_callback_is_carried_over_five_kills(training: Training, place: Path) -> None:
    expected = run_undisturbed(place / "reference", training.command)
    losses_expected = losses((place / "reference/work/metrics.jsonl").read_text().splitlines())
    job = Job(place / "job", training.command, "--every", "1h", "--keep", "9", env={"ZOO_REST": "0.3"})
    restored_from = []
    try:
        job.start()
        job.wait_for_step(3, deadline_s=LIMIT_S)
        for kill in range(KILLS):
            if kill == BY_THE_CALLBACK:
                newest = job.newest()
                until(lambda: job.newest() > newest, "a snapshot by the callback", LIMIT_S)  # noqa: B023
            else:
                job.dump()
            job.wait_for_progress(2, deadline_s=LIMIT_S)
            job.kill_everything()
            restored_from.append(job.start().wait_for_restore(LIMIT_S)["restored_from"])
            job.wait_for_progress(2, deadline_s=LIMIT_S)
        snapshots = [facts(job, snapshot) for snapshot in restored_from]
        assert job.finish(LIMIT_S) == 0, job.history()
    finally:
        job.kill_everything()

    assert job.contents() == expected.contents
    assert snapshots[BY_THE_CALLBACK]["trigger"] == "hook"
    assert [snapshot["aligned"] for snapshot in snapshots] == [True] * KILLS
    assert [len(snapshot["hooks"]["digests"]) for snapshot in snapshots] == [training.ranks] * KILLS
    for snapshot in snapshots:
        step, loss = snapshot["step"], snapshot["metrics"][training.loss]
        assert any(loss == pytest.approx(one) for one in losses_expected[step - 2 : step])
    for rank in range(training.ranks):
        assert len((job.place / f"restored-{rank}").read_text().splitlines()) == KILLS


@pytest.mark.short
def test_the_example_goes_on_from_a_snapshot_that_it_asked_for(start_job: StartJob, undisturbed: Reference) -> None:
    expected = undisturbed(EXAMPLE)
    assert "snapshot: this is not under criu-train" in expected.output
    job = start_job(EXAMPLE, "--every", "1h")
    until(job.newest, "a snapshot that the training asked for", LIMIT_S)
    job.kill_everything()
    job.start()
    job.wait_for_restore(LIMIT_S)
    assert job.finish(LIMIT_S) == 0
    assert "restored, for the 1. time\nsnapshot: restored just now\n" in job.output()
    assert job.contents() == expected.contents
