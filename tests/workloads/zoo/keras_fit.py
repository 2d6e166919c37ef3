"""Which wine it is, by Keras on whatever backend KERAS_BACKEND names."""

from __future__ import annotations

import keras
import numpy as np
from progress import report
from sklearn.datasets import load_wine
from sklearn.preprocessing import StandardScaler


class Report(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.first = epoch * self.params["steps"]

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        report(self.first + batch, **{name: float(value) for name, value in (logs or {}).items()})


def main() -> None:
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
    model.fit(
        features[:140],
        labels[:140],
        batch_size=14,
        epochs=9,
        validation_data=(features[140:], labels[140:]),
        verbose=0,
        callbacks=[
            Report(),
            keras.callbacks.CSVLogger("epochs.csv"),
            keras.callbacks.ModelCheckpoint(
                "best.weights.h5", monitor="val_loss", save_best_only=True, save_weights_only=True
            ),
            keras.callbacks.ReduceLROnPlateau(patience=2),
        ],
    )
    loss, accuracy = model.evaluate(features[140:], labels[140:], verbose=0)
    print(f"{keras.config.backend()}: loss {loss:.4f}, accuracy {accuracy:.4f}")
    np.savetxt("predictions.txt", model.predict(features[140:], verbose=0))
    np.savez("weights.npz", *model.get_weights())


if __name__ == "__main__":
    main()
