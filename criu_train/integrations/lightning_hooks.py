"""What the callbacks for Lightning do, by whichever name it was installed. Imports no framework."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from criu_train import hooks
from criu_train.integrations.torch_state import digest_of
from criu_train.integrations.trained import Trained, apart


class LightningHooks:
    """Reports each optimizer step before the next batch is drawn, in every rank.

    ``log_every``: metrics go along every so many steps, since a number on a GPU has to be waited for; None: when the
    Trainer logs (``log_every_n_steps``). Those of a validation or an epoch always do. ``checkpoint_every_epochs``:
    takes a snapshot at the end of every so many epochs. ``digest``: the model's parameters and buffers must be the same
    after a restore. ``after_restore``: called with the LightningModule.
    """

    def __init__(
        self,
        *,
        log_every: int | None = None,
        checkpoint_every_epochs: int | None = None,
        digest: bool = False,
        after_restore: Callable[[Any], object] | None = None,
    ) -> None:
        super().__init__()
        self._log_every = log_every
        self._trained = Trained(
            digest=digest_of if digest else None,
            after_restore=after_restore,
            checkpoint_every_epochs=checkpoint_every_epochs,
        )
        self._step = -1

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        self._step = trainer.global_step
        self._trained.begin(pl_module)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        step = trainer.global_step
        if step == self._step or not hooks.active():
            return  # gradients are still being accumulated
        self._step = step
        every = self._log_every or trainer.log_every_n_steps
        metrics = apart(trainer.callback_metrics) if every and step % every == 0 else {}
        hooks.report(step, trainer.current_epoch, **metrics)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.sanity_checking and hooks.active():
            hooks.report(**apart(trainer.callback_metrics))

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if hooks.active():
            hooks.report(**apart(trainer.callback_metrics))
            self._trained.epoch_ended(trainer.current_epoch + 1)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self._trained.end()
