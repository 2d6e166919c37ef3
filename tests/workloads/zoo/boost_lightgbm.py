"""Which digit it is, by LightGBM on two threads; the model is saved every twenty rounds."""

from __future__ import annotations

import lightgbm as lgb
import numpy as np
from progress import report
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

ROUNDS = 80


def told(environment: lgb.callback.CallbackEnv) -> None:
    _, _, loss, _ = environment.evaluation_result_list[0]
    report(environment.iteration, loss=loss)
    if environment.iteration % 20 == 19:
        environment.model.save_model("checkpoint.txt")


def main() -> None:
    features, targets = load_digits(return_X_y=True)
    train, test, train_targets, test_targets = train_test_split(features, targets, random_state=0)
    data = lgb.Dataset(train, train_targets)
    settings = {
        "objective": "multiclass",
        "num_class": 10,
        "num_leaves": 15,
        "bagging_freq": 1,
        "bagging_fraction": 0.8,
        "feature_fraction": 0.6,
        "num_threads": 2,
        "deterministic": True,
        "force_row_wise": True,
        "seed": 0,
        "verbose": -1,
    }
    model = lgb.train(
        settings,
        data,
        num_boost_round=ROUNDS,
        valid_sets=[lgb.Dataset(test, test_targets, reference=data)],
        callbacks=[told, lgb.log_evaluation(20)],
    )
    model.save_model("model.txt")
    guesses = model.predict(test)
    print(f"accuracy {(guesses.argmax(axis=1) == test_targets).mean():.4f}")
    np.savetxt("predictions.txt", guesses)


if __name__ == "__main__":
    main()
