"""scikit-learn's SGDClassifier on its digits, partial_fit by partial_fit, with standard scaling fitted on the way."""

from __future__ import annotations

import sys

import joblib
import numpy as np
from progress import report
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

images, labels = load_digits(return_X_y=True)
x_train, x_test, y_train, y_test = train_test_split(images, labels, random_state=0, stratify=labels)
scaler, model = StandardScaler(), SGDClassifier(loss="log_loss", random_state=0)
rng = np.random.default_rng(0)
for step in range(int(sys.argv[1])):
    chosen = rng.integers(0, len(x_train), 64)
    batch = scaler.partial_fit(x_train[chosen]).transform(x_train[chosen])
    model.partial_fit(batch, y_train[chosen], classes=np.arange(10))
    accuracy = model.score(scaler.transform(x_test), y_test)
    print(f"step {step:4d}  accuracy {accuracy:.4f}")
    report(step, accuracy=accuracy)
joblib.dump((scaler, model), "model.joblib")
np.savetxt("predictions.txt", model.predict(scaler.transform(x_test)), fmt="%d")
