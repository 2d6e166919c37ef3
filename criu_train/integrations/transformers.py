"""For Hugging Face's Trainer: ``Trainer(..., callbacks=[CriuTrainCallback()])``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from transformers import TrainerCallback

from criu_train import hooks
from criu_train.integrations.torch_state import digest_of
from criu_train.integrations.trained import Trained, apart


class CriuTrainCallback(TrainerCallback):
    """Reports each optimizer step in every rank; metrics when the Trainer logs them, which are numbers by then.

    ``checkpoint_every_epochs``: takes a snapshot at the end of every so many epochs. ``digest``: the model's parameters
    and buffers must be the same after a restore. ``after_restore``: called with the model.
    """

    def __init__(
        self,
        *,
        checkpoint_every_epochs: int | None = None,
        digest: bool = False,
        after_restore: Callable[[Any], object] | None = None,
    ) -> None:
        self._trained = Trained(
            digest=digest_of if digest else None,
            after_restore=after_restore,
            checkpoint_every_epochs=checkpoint_every_epochs,
        )

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._trained.begin(kwargs.get("model"))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        hooks.report(state.global_step, state.epoch)

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        hooks.report(**apart(logs or {}))

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._trained.epoch_ended(round(state.epoch))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._trained.end()
