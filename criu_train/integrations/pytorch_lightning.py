"""For ``pytorch_lightning``, the other name of Lightning: its callbacks are other classes."""

from __future__ import annotations

from pytorch_lightning.callbacks import Callback

from criu_train.integrations.lightning_hooks import LightningHooks


class CriuTrainCallback(LightningHooks, Callback):
    __doc__ = LightningHooks.__doc__
