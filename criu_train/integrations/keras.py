"""For Keras 3, on any backend: ``model.fit(..., callbacks=[CriuTrainCallback()])``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from criu_train import hooks
from criu_train.integrations.trained import Trained, apart


def digest_of(model: Any) -> str:
    """Hexadecimal BLAKE3 of all variables of the model, but those of its optimizer."""
    from blake3 import blake3

    if hasattr(model, "jax_state_sync"):
        model.jax_state_sync()  # while it trains, JAX's arrays are elsewhere
    total = blake3()
    for variable in model.variables:
        array = np.ascontiguousarray(keras.ops.convert_to_numpy(variable))
        total.update(f"{variable.path} {array.dtype} {array.shape}\n".encode())
        total.update(array.reshape(-1).view(np.uint8).data)
    return str(total.hexdigest())


class CriuTrainCallback(keras.callbacks.Callback):
    """Reports each optimizer step just before the next one begins, and the last one of an epoch at its end.

    Metrics are those of the last batch whose numbers Keras has at that time; after an epoch those of the epoch.
    ``checkpoint_every_epochs``: takes a snapshot at the end of every so many epochs. ``digest``: the model's variables
    must be the same after a restore. ``after_restore``: called with the model.
    """

    # Keras may then call on_train_batch_end in a thread, and needs no number from a GPU to go on.
    async_safe = True

    def __init__(
        self,
        *,
        checkpoint_every_epochs: int | None = None,
        digest: bool = False,
        after_restore: Callable[[Any], object] | None = None,
    ) -> None:
        super().__init__()
        self._trained = Trained(
            digest=digest_of if digest else None,
            after_restore=after_restore,
            checkpoint_every_epochs=checkpoint_every_epochs,
        )
        self._epoch, self._done, self._batches, self._told = 0, 0, 0, -1
        self._logs: Mapping[str, Any] = {}

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        self._trained.begin(self.model)
        self._done, self._batches, self._told = self._steps(), 0, -1

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._epoch, self._batches, self._logs = epoch, 0, {}

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._batches = batch
        self._report(self._done + batch // self._batches_a_step(), self._logs)

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._logs = apart(logs or {})

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._done = self._steps()
        self._report(self._done, apart(logs or {}))
        self._trained.epoch_ended(epoch + 1)

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        self._trained.end()

    def _report(self, step: int, metrics: Mapping[str, Any]) -> None:
        if step == self._told:  # gradients are being accumulated, or the epoch has just begun
            hooks.report(epoch=self._epoch, **metrics)
        else:
            self._told = step
            hooks.report(step, self._epoch, **metrics)

    def _steps(self) -> int:
        """That the optimizer has made in all, those before a checkpoint was loaded too."""
        optimizer = getattr(self.model, "optimizer", None)
        if optimizer is None:
            return self._done + self._batches + 1
        return int(keras.ops.convert_to_numpy(optimizer.iterations))

    def _batches_a_step(self) -> int:
        return getattr(getattr(self.model, "optimizer", None), "gradient_accumulation_steps", None) or 1
