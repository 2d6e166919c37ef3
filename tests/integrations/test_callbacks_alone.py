"""What callbacks tell hooks, without a framework: the steps as a Trainer's hooks come in."""

from __future__ import annotations

import pickle
from types import SimpleNamespace
from typing import Any

import pytest

from criu_train import hooks
from criu_train.integrations.lightning_hooks import LightningHooks
from criu_train.integrations.trained import Trained, apart


class Calls:
    """In place of hooks that are at work."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, active: bool = True) -> None:
        self.reports: list[tuple[Any, Any, dict[str, Any]]] = []
        self.checkpoints = 0
        self.digests: list[Any] = []
        self.restored: list[Any] = []
        monkeypatch.setattr(hooks, "active", lambda: active)
        monkeypatch.setattr(hooks, "report", self.report)
        monkeypatch.setattr(hooks, "checkpoint", self.checkpoint)
        monkeypatch.setattr(hooks, "state_digest", self.digests.append)
        monkeypatch.setattr(hooks, "after_restore", self.restored.append)

    def report(self, step: Any = None, epoch: Any = None, **metrics: Any) -> None:
        self.reports.append((step, epoch, metrics))

    def checkpoint(self, wait: bool = True) -> hooks.Checkpoint:
        self.checkpoints += 1
        return hooks.Checkpoint("id")


class Unread:
    """A number that would have to be waited for."""

    def __float__(self) -> float:
        raise AssertionError("a number on a GPU was waited for")


def trainer(step: int, epoch: int = 0, **metrics: Any) -> Any:
    return SimpleNamespace(
        global_step=step,
        current_epoch=epoch,
        callback_metrics=metrics,
        log_every_n_steps=2,
        sanity_checking=False,
    )


def batch_ends(callback: LightningHooks, at: Any) -> None:
    callback.on_train_batch_end(at, None, None, None, 0)


def test_each_optimizer_step_is_reported_once_however_many_batches_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, callback = Calls(monkeypatch), LightningHooks()
    callback.on_fit_start(trainer(0), None)
    for step in (0, 1, 1, 2, 2, 3):
        batch_ends(callback, trainer(step, loss=0.5))
    assert [step for step, _, _ in calls.reports] == [1, 2, 3]


def test_metrics_go_along_when_the_trainer_logs_and_no_other_number_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, callback = Calls(monkeypatch), LightningHooks()
    callback.on_fit_start(trainer(0), None)
    batch_ends(callback, trainer(1, loss=Unread()))
    batch_ends(callback, trainer(2, epoch=1, loss=0.5))
    assert calls.reports == [(1, 0, {}), (2, 1, {"loss": 0.5})]


def test_what_a_validation_finds_is_told_at_once_and_is_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, callback = Calls(monkeypatch), LightningHooks()
    callback.on_validation_end(trainer(4, accuracy=0.9), None)
    assert calls.reports == [(None, None, {"accuracy": 0.9})]


def test_a_sanity_check_before_the_training_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, at = Calls(monkeypatch), trainer(0, accuracy=0.1)
    at.sanity_checking = True
    LightningHooks().on_validation_end(at, None)
    assert calls.reports == []


def test_a_checkpoint_comes_after_every_so_many_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, callback = Calls(monkeypatch), LightningHooks(checkpoint_every_epochs=2)
    after = []
    for epoch in range(4):
        callback.on_train_epoch_end(trainer(1, epoch), None)
        after.append(calls.checkpoints)
    assert after == [0, 1, 1, 2]


def test_no_number_of_epochs_below_one_is_taken() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        LightningHooks(checkpoint_every_epochs=0)


def test_nothing_happens_without_criu_train(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, callback = Calls(monkeypatch, active=False), LightningHooks(checkpoint_every_epochs=1, digest=True)
    callback.on_fit_start(trainer(0), None)
    batch_ends(callback, trainer(2, loss=Unread()))
    callback.on_validation_end(trainer(2, loss=Unread()), None)
    callback.on_train_epoch_end(trainer(2, loss=Unread()), None)
    assert (calls.reports, calls.checkpoints, calls.digests) == ([], 0, [])


def test_digest_and_after_restore_are_of_the_model_that_is_trained_now(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(monkeypatch)
    seen: list[str] = []
    trained = Trained(digest=lambda model: f"of {model}", after_restore=seen.append, checkpoint_every_epochs=None)
    for model in ("first", "second"):
        trained.begin(model)
    [digest], [restored] = calls.digests, calls.restored
    restored()
    assert (digest(), seen) == ("of second", ["second"])
    trained.end()
    restored()
    assert (digest(), seen) == ("", ["second"])


def test_a_callback_can_be_sent_to_the_process_that_trains() -> None:
    assert isinstance(pickle.loads(pickle.dumps(LightningHooks(digest=True))), LightningHooks)


def test_metrics_by_the_names_of_step_and_epoch_are_left_out() -> None:
    assert apart({"step": 1, "epoch": 2, "val/loss": 3}) == {"val/loss": 3}
