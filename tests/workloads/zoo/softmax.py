"""The small model that programs train whose matter is something else: softmax regression on scikit-learn's digits."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits


class Softmax:
    """Trained by mini-batches; every number depends on the seed alone."""

    def __init__(self, seed: int = 0, batch: int = 64) -> None:
        images, labels = load_digits(return_X_y=True)
        self.images, self.labels = images / 16, labels
        self.weights = np.zeros((self.images.shape[1], 10))
        self.rng = np.random.default_rng(seed)
        self.batch = batch

    def gradient(self) -> tuple[float, np.ndarray]:
        """Loss and gradient of the next batch."""
        chosen = self.rng.integers(0, len(self.images), self.batch)
        return self.loss(self.images[chosen], self.labels[chosen])

    def loss(self, images: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
        logits = images @ self.weights
        logits -= logits.max(axis=1, keepdims=True)
        odds = np.exp(logits)
        odds /= odds.sum(axis=1, keepdims=True)
        loss = -np.log(odds[np.arange(len(labels)), labels]).mean()
        odds[np.arange(len(labels)), labels] -= 1
        return float(loss), images.T @ odds / len(labels)

    def step(self, rate: float = 0.5) -> float:
        loss, gradient = self.gradient()
        self.weights -= rate * gradient
        return loss

    def accuracy(self) -> float:
        return float(np.mean((self.images @ self.weights).argmax(axis=1) == self.labels))
