"""How diabetes goes on within a year, by XGBoost on two threads; the model is saved every twenty rounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xgboost as xgb
from progress import report
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split

ROUNDS = 120


class Report(xgb.callback.TrainingCallback):
    def after_iteration(self, model: xgb.Booster, epoch: int, evals_log: dict) -> bool:
        report(epoch, train=evals_log["train"]["rmse"][-1], test=evals_log["test"]["rmse"][-1])
        return False


def main() -> None:
    features, targets = load_diabetes(return_X_y=True)
    train, test, train_targets, test_targets = train_test_split(features, targets, random_state=0)
    train_data, test_data = xgb.DMatrix(train, train_targets), xgb.DMatrix(test, test_targets)
    Path("checkpoints").mkdir()
    model = xgb.train(
        {"max_depth": 3, "eta": 0.05, "subsample": 0.7, "colsample_bytree": 0.5, "nthread": 2, "seed": 0},
        train_data,
        num_boost_round=ROUNDS,
        evals=[(train_data, "train"), (test_data, "test")],
        verbose_eval=20,
        callbacks=[Report(), xgb.callback.TrainingCheckPoint("checkpoints", interval=20)],
    )
    model.save_model("model.json")
    np.savetxt("predictions.txt", model.predict(test_data))


if __name__ == "__main__":
    main()
