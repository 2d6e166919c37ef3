"""Which wine it is, by Keras on the backend that KERAS_BACKEND names, with the callback for it."""

from __future__ import annotations

import sys

import keras
import numpy as np
from restored import note_restore, report
from sklearn.datasets import load_wine
from sklearn.preprocessing import StandardScaler

from criu_train.integrations.keras import CriuTrainCallback


class Report(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.first = epoch * self.params["steps"]

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        report(self.first + batch, **{name: float(value) for name, value in (logs or {}).items()})


def main(checkpoint_every_epochs: int | None) -> None:
    keras.utils.set_random_seed(0)
    features, labels = load_wine(return_X_y=True)
    order = np.random.permutation(len(labels))
    features, labels = StandardScaler().fit_transform(features)[order].astype("float32"), labels[order]
    model = keras.Sequential(
        [
            keras.Input((13,)),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    ours = CriuTrainCallback(checkpoint_every_epochs=checkpoint_every_epochs, digest=True, after_restore=note_restore)
    validation = (features[140:], labels[140:])
    model.fit(
        features[:140],
        labels[:140],
        batch_size=14,
        epochs=24,
        validation_data=validation,
        verbose=0,
        callbacks=[Report(), ours],
    )
    np.savez("weights.npz", *model.get_weights())


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else None)
