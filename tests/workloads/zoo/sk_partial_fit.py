"""Handwritten digits a few at a time, by scikit-learn's partial_fit: a scaler, a linear model and a network."""

from __future__ import annotations

import joblib
import numpy as np
from progress import report
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import log_loss
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler


def main() -> None:
    images, labels = load_digits(return_X_y=True)
    classes = np.unique(labels)
    scaler = StandardScaler()
    linear = SGDClassifier(loss="log_loss", alpha=1e-3, random_state=0)
    network = MLPClassifier((64,), learning_rate_init=3e-3, random_state=0)
    chance = np.random.default_rng(0)
    for step in range(100):
        chosen = chance.choice(1500, 64, replace=False)
        batch = scaler.partial_fit(images[chosen]).transform(images[chosen])
        linear.partial_fit(batch, labels[chosen], classes=classes)
        network.partial_fit(batch, labels[chosen], classes=classes)
        test = scaler.transform(images[1500:])
        loss = log_loss(labels[1500:], network.predict_proba(test), labels=classes)
        report(step, loss=loss, linear=linear.score(test, labels[1500:]), network=network.score(test, labels[1500:]))
        if step % 25 == 24:
            joblib.dump((scaler, linear, network), "models.joblib", compress=3)
            print(f"step {step}: loss {loss:.4f}")
    np.savetxt("predictions.txt", np.stack([linear.predict(test), network.predict(test)], axis=1), fmt="%d")


if __name__ == "__main__":
    main()
