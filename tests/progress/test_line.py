"""Lines as trainings print them, and lines that tell nothing."""

from __future__ import annotations

import re

import pytest

from criu_train.progress.line import Told, read_line, read_with


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("step 12 loss 0.345", Told(12, None, {"loss": 0.345})),
        ("iter 100: loss 2.5021, time 12.30ms, mfu 1.2%", Told(100, None, {"loss": 2.5021})),
        ("Epoch [3/10], Step [100/600], Loss: 0.1234", Told(100, 3, {"Loss": 0.1234})),
        ("Train Epoch: 2 [640/60000 (1%)]\tLoss: 2.300210", Told(None, 2, {"Loss": 2.30021})),
        ("Epoch: [0][ 10/5005]\tTime 0.3 ( 0.5)\tLoss 6.9e+00 (6.9e+00)", Told(10, 0, {"Loss": 6.9})),
        ("| epoch   1 |   200/ 2928 batches | lr 20.00 | loss  7.63 |", Told(200, 1, {"loss": 7.63})),
        ('{"step": 5, "loss": 0.25, "name": "x", "done": true}', Told(5, None, {"loss": 0.25})),
        (
            "{'loss': '1.143', 'learning_rate': 1e-05, 'epoch': 2.5}",
            Told(None, 2.5, {"loss": 1.143, "learning_rate": 1e-5}),
        ),
        ("Epoch 2:  85%|████ | 17/20 [00:00<00:00, 90.1it/s, loss=0.0172]", Told(17, 2, {"loss": 0.0172})),
        ("Epoch 2/2 ━━━━━━ 6/6 0:00:00 • 0:00:00 411.27it/s train_loss: 0.923", Told(6, 2, {"train_loss": 0.923})),
        ("6/6 ━━━━━━━━ 0s 4ms/step - loss: 1.5 - val_mae: 1.04", Told(6, None, {"loss": 1.5, "val_mae": 1.04})),
        ("[11]\ttrain-rmse:0.23609\teval-rmse:1.26419", Told(11, None, {"train-rmse": 0.23609, "eval-rmse": 1.26419})),
        ("[12]\ttraining's l2: 0.8\ttraining's l1: 0.7", Told(12, None, {"training's l2": 0.8, "training's l1": 0.7})),
        ("2026-11-22 20:25:39,123 INFO: epoch 4 step 200 lr=1e-4", Told(200, 4, {"lr": 1e-4})),
        ("accuracy 0.9312", Told(None, None, {"accuracy": 0.9312})),
        ("the loss is now: loss 0.5.", Told(None, None, {"loss": 0.5})),
        ("epoch=3 loss=nan", Told(None, 3, {})),
        ("epoch 1 step -1.5 loss=1e999", Told(None, 1, {})),
    ],
)
def test_steps_epochs_and_metrics_are_understood(line: str, told: Told) -> None:
    assert read_line(line) == told


@pytest.mark.parametrize(
    "line",
    [
        "",
        "listening on port: 8080",
        "TPU available: False, using: 0 TPU cores",
        "number of data points in the train set: 200, number of used features: 3",
        "Traceback (most recent call last):",
        "version=1.2.3 build 2026-11-22",
        "{" * 3000,
        "{" + "(" * 3900 + "}",
        "loss=" * 500,
        "loss: 12:30:01",
    ],
)
def test_lines_about_something_else_tell_nothing(line: str) -> None:
    assert not read_line(line)


def test_a_pattern_of_the_user_counts_alone() -> None:
    pattern = re.compile(r"update (?P<step>\d+) of round (?P<epoch>\d+) -> (?P<reward>\S+) (?P<note>\w+)")
    assert read_with(pattern, "update 7 of round 2 -> -0.5 well") == Told(7, 2, {"reward": -0.5})
    assert not read_with(pattern, "step 3 loss 0.1")
