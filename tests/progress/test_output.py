"""The end of an output, as it was at a cut."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from harness import WORKLOADS, environment

from criu_train.progress.line import Told
from criu_train.progress.output import progress_at

TALKING = WORKLOADS / "talking"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "output.log"


def test_what_was_written_after_the_cut_is_not_told(output: Path) -> None:
    output.write_text("step 1 loss 0.5\nstep 2 loss 0.4\nstep 3 loss 0.3\n")
    assert progress_at(output, 32) == Told(2, None, {"loss": 0.4})


def test_a_line_that_was_being_printed_at_the_cut_does_not_count(output: Path) -> None:
    output.write_text("step 1 loss 0.5\nstep 2 loss 0.0012\n")
    assert progress_at(output, 31) == Told(1, None, {"loss": 0.5})


def test_what_is_told_seldom_stays_known_beside_what_is_told_each_step(output: Path) -> None:
    output.write_text("epoch 3 val_loss 0.7\nstep 40 loss 0.2\nstep 41 loss 0.1\n")
    assert progress_at(output, output.stat().st_size) == Told(41, 3, {"val_loss": 0.7, "loss": 0.1})


def test_a_bar_counts_as_soon_as_it_is_whole(output: Path) -> None:
    bars = (f"\rEpoch 2:  80%|##  | {step}/20 [00:00<00:00, 9it/s, loss=0.0{18 - step}]" for step in (16, 17))
    bar = "".join(bars).encode()
    output.write_bytes(bar)
    assert progress_at(output, len(bar)) == Told(17, 2, {"loss": 0.01})
    assert progress_at(output, len(bar) - 2) == Told(16, 2, {"loss": 0.02})


def test_of_a_huge_output_the_end_is_read(output: Path) -> None:
    with output.open("wb") as file:
        file.truncate(1 << 34)
        file.seek(0, 2)
        file.write(b"\nstep 9 loss 0.5\n")
    assert progress_at(output, output.stat().st_size) == Told(9, None, {"loss": 0.5})


def test_no_output_tells_nothing(output: Path) -> None:
    assert not progress_at(output, 100)
    output.write_bytes(b"")
    assert not progress_at(output, 0)
    output.write_bytes(bytes(range(256)) * 1000)
    assert not progress_at(output, 256_000)


def test_a_pattern_finds_what_nobody_else_prints_so(output: Path) -> None:
    output.write_text("<<7>> fine\n<<8>> fine\n")
    assert progress_at(output, 22, re.compile(r"<<(?P<step>\d+)>>")) == Told(8)


@pytest.mark.zoo
@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "step", "epoch", "metrics"),
    [
        ("loop", None, 3, {"Loss"}),
        ("tqdm", 20, 2, {"loss"}),
        ("keras", 6, 3, {"loss", "mae", "val_loss", "val_mae"}),
        ("lightning", 6, 2, {"train_loss"}),
        ("hf", 18, 3, {"loss", "grad_norm", "learning_rate", "train_loss"}),
        ("xgboost", 11, None, {"train-rmse", "eval-rmse"}),
        ("lightgbm", 12, None, {"training's l2", "training's l1"}),
    ],
)
def test_what_frameworks_print_by_themselves_is_understood(
    output: Path, program: str, step: int | None, epoch: float | None, metrics: set[str]
) -> None:
    call = [sys.executable, str(TALKING / f"{program}_talks.py")]
    with output.open("wb") as file:
        subprocess.run(call, stdout=file, stderr=file, cwd=output.parent, env=environment(), timeout=100, check=True)
    told = progress_at(output, output.stat().st_size)
    assert (told.step, told.epoch) == (step, epoch), output.read_text()[-2000:]
    assert metrics <= set(told.metrics)
    assert all("using" not in name and name != "set" for name in told.metrics)
