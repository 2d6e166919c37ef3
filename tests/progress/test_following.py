"""An output, followed as it grows."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from criu_train.progress.following import Following
from criu_train.progress.line import Told
from criu_train.progress.output import progress_at


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "output.log"


@pytest.fixture
def following(output: Path) -> Following:
    return Following(output)


def add(output: Path, text: str | bytes) -> None:
    with output.open("ab") as file:
        file.write(text if isinstance(text, bytes) else text.encode())


def test_before_there_is_an_output_nothing_is_told(following: Following, output: Path) -> None:
    assert not following.update()
    add(output, "step 1 loss 0.5\n")
    assert following.update() == Told(1, None, {"loss": 0.5})


def test_what_comes_later_is_laid_over_what_was_told(following: Following, output: Path) -> None:
    add(output, "epoch 1 val_loss 0.7\nstep 1 loss 0.5\n")
    following.update()
    assert following.update() == Told(1, 1, {"val_loss": 0.7, "loss": 0.5})
    add(output, "step 2 loss 0.4\n")
    assert following.update() == Told(2, 1, {"val_loss": 0.7, "loss": 0.4})


def test_a_line_is_read_once_it_is_whole(following: Following, output: Path) -> None:
    add(output, "step 1 loss 0.5\nstep 2 lo")
    assert following.update().step == 1
    add(output, "ss 0.4")
    assert following.update().step == 1
    add(output, "25\n")
    assert following.update() == Told(2, None, {"loss": 0.425})


def test_a_bar_is_read_while_it_is_painted_again_and_again(following: Following, output: Path) -> None:
    for step in range(1, 4):
        add(output, f"\rEpoch 2:  80%|##  | {step}/20 [00:00<00:00, 9it/s, loss=0.{step}]")
        assert following.update() == Told(step, 2, {"loss": step / 10})


@pytest.mark.parametrize("size", range(1, 40))
def test_pieces_of_any_size_tell_what_the_whole_tells(output: Path, size: int) -> None:
    text = (
        "epoch 1 val_loss 0.75\r\n\x1b[32mstep 11 loss 0.5\x1b[0m\nhé ━━ step 12 acc 0.25\n\nstep 13 loss 0.125\nstep 1"
    )
    data, following = text.encode(), Following(output)
    for at in range(0, len(data), size):
        add(output, data[at : at + size])
        following.update()
    assert (
        following.told == progress_at(output, len(data)) == Told(13, 1, {"val_loss": 0.75, "loss": 0.125, "acc": 0.25})
    )


def test_an_output_that_was_cut_tells_what_is_left_of_it(following: Following, output: Path) -> None:
    add(output, "step 1 loss 0.5\nstep 2 loss 0.4\nepoch 1 val_loss 0.7\n")
    assert following.update() == Told(2, 1, {"loss": 0.4, "val_loss": 0.7})
    with output.open("rb+") as file:
        file.truncate(16)
    assert following.update() == Told(1, None, {"loss": 0.5})
    add(output, "step 2 loss 0.4\n")
    assert following.update().step == 2


def test_another_file_in_its_place_is_read_from_its_beginning(following: Following, output: Path) -> None:
    add(output, "step 8 loss 0.5\n")
    following.update()
    output.rename(output.with_name("old"))
    add(output, "step 1 acc 0.25\n")
    assert following.update() == Told(1, None, {"acc": 0.25})


def test_one_that_was_cut_and_has_grown_again_is_read_anew_when_told_so(following: Following, output: Path) -> None:
    add(output, "step 1 loss 0.5\nepoch 7 val_loss 0.7\n")
    following.update()
    with output.open("rb+") as file:
        file.truncate(16)
    add(output, "step 2 loss 0.4\nstep 3 loss 0.3\n")
    following.begin_anew()
    assert not following.told
    assert following.update() == Told(3, None, {"loss": 0.3})


def test_of_very_much_at_once_the_end_is_read_and_what_was_told_before_stays(
    following: Following, output: Path
) -> None:
    add(output, "epoch 1 val_loss 0.7\nstep 1 lo")
    following.update()
    with output.open("rb+") as file:
        file.truncate(1 << 34)
    add(output, "ss 9\nstep 9 loss 0.5\n")
    assert following.update() == Told(9, 1, {"val_loss": 0.7, "loss": 0.5})


def test_a_line_without_an_end_takes_no_memory_and_tells_nothing(following: Following, output: Path) -> None:
    add(output, "step 1 loss 0.5\n")
    for _ in range(20):
        add(output, b"loss 7 " * 1000)
        assert following.update() == Told(1, None, {"loss": 0.5})
    add(output, "loss 7\nstep 2 loss 0.4\n")
    assert following.update() == Told(2, None, {"loss": 0.4})


def test_whatever_is_in_an_output_harms_nobody(output: Path) -> None:
    chance = random.Random(7)
    following = Following(output, re.compile(r"step (?P<step>\d+)"))
    for _ in range(60):
        noise = bytes(chance.choices(b"step 0123456789.:={}[]'\"\x1b\r\n\b\0\xff\xc3", k=chance.randrange(3000)))
        add(output, noise)
        if chance.random() < 0.2:
            output.write_bytes(noise[: len(noise) // 2])
        following.update()
    add(output, "\nstep 5\n")
    assert following.update().step == 5


def test_names_that_never_come_again_do_not_pile_up(following: Following, output: Path) -> None:
    for number in range(30):
        add(output, "".join(f"step 1 loss_{chr(97 + number % 26)}{'x' * (number * 10 + i)} 0.5\n" for i in range(10)))
        following.update()
    assert len(following.told.metrics) <= 100
    assert all(len(name) <= 100 for name in following.told.metrics)


def test_an_output_that_is_a_directory_tells_nothing(following: Following, output: Path) -> None:
    output.mkdir()
    assert not following.update()


def test_a_hundred_thousand_lines_alike_are_passed_through_quickly(following: Following, output: Path) -> None:
    for number in range(60):
        add(output, "".join(f"step {number}{i} loss 0.{i}\n" for i in range(5000)))
        following.update()
    assert following.told.step == 594999
