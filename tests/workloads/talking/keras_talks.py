"""Keras as it prints by itself."""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np

rng = np.random.default_rng(0)
model = keras.Sequential([keras.layers.Dense(4, activation="relu"), keras.layers.Dense(1)])
model.compile(optimizer="sgd", loss="mse", metrics=["mae"])
model.fit(rng.normal(size=(64, 3)), rng.normal(size=64), epochs=3, batch_size=8, validation_split=0.25)
