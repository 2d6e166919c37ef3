"""For ``lightning.pytorch``: ``Trainer(callbacks=[CriuTrainCallback()])``."""

from __future__ import annotations

from lightning.pytorch.callbacks import Callback

from criu_train.integrations.lightning_hooks import LightningHooks


class CriuTrainCallback(LightningHooks, Callback):
    __doc__ = LightningHooks.__doc__
